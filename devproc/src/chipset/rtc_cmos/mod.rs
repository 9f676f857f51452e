//! Placeholder, replaced by its model.
