//! What a merge function, a resolver and a rule must obey, as checks.
