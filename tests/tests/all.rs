//! Integration tests: several processes, real files, real sockets.

mod process;
