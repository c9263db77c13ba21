//! The judge: folds observations into a belief about each cluster, and tells what changed as events.
