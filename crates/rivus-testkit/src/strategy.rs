//! Strategies for histories, stamps and hostile values.
