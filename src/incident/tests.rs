//! Incidents of scripted events and beliefs.
