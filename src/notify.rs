//! Notifications: rendered messages and the outbox that delivers them.
