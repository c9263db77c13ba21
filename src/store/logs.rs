//! The embedded, indexed log store.
