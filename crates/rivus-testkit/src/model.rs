//! A reference model that keeps every write and computes views from the definitions.
