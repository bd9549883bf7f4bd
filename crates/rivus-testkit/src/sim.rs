//! A seeded simulator of replicas, networks, clocks and crashes in virtual time.
