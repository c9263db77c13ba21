//! Small transactional state: alerts, silences, incidents, the outbox, tokens.
