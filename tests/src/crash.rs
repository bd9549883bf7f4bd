//! A store whose writer is killed, loses power, or is failed by the system, at every call that writes.
//!
//! [`workload`] is what the writer does, [`oracle`] knows each state that the store may be found in afterwards,
//! [`trace`] stands between the writer and the kernel, [`disk`] makes what a loss of power may leave, and
//! [`campaign`] runs them through.
//!
//! The writer runs on SQLite's own VFS and the harness below it, at the system calls: what the kernel is given is
//! what counts, and nothing that SQLite, its VFS or this workspace does on the way can be missed. A recording VFS
//! would see less (it replaces the code that does the writing) and would need `unsafe`. The one thing unseen are
//! stores into the shared memory of the write-ahead index; it survives a kill in the page cache as it is, and after
//! a loss of power SQLite builds it anew and never reads it, so images hold garbage in its place.

pub mod campaign;
pub mod disk;
pub mod oracle;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod trace;
pub mod workload;
