"""A client of the Rivus protocol, written from docs/protocol.md and docs/semantics.md alone."""
