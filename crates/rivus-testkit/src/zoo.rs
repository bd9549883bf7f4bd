//! Merges and rules that look right and are not, and some that are.
