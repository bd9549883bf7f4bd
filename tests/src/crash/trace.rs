//! Standing between a process and the kernel (Linux on x86-64).
//!
//! Owns ptrace: starts a child that waits for `go` on its standard input, seizes it, and shows each call that writes
//! to the folder (or each call for a lock) before and after it happens. The caller says go on, kill, or fail. Only
//! safe calls are used: the child needs nothing done between fork and exec, because it waits.

use std::io::{IoSliceMut, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::disk::Call;

/// Which calls are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Those that change files of the folder.
    Write,
    /// Those that ask for a lock on one.
    Lock,
}

/// When a call is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Moment {
    /// The kernel has not begun.
    Before,
    /// The kernel is done.
    After,
}

/// What to do with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Nothing.
    Go,
    /// Kill the process, as `kill -9` does.
    Kill,
    /// Let the call fail with this error, without effect; [`Moment::Before`] only.
    Fail(Errno),
}

/// A call that is shown.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The how manieth of its class it is, from 0.
    pub number: usize,
    /// When.
    pub moment: Moment,
    /// The system call's number.
    pub call: c_long,
    /// The effects, [`Moment::After`] only: none if it failed.
    pub effects: &'a [Call],
}

/// How a traced process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote on standard output.
    pub said: String,
    /// What it wrote on standard error.
    pub stderr: String,
    /// How many calls of the class there were.
    pub calls: usize,
}

/// Runs a program that works in `folder`, and shows its calls.
///
/// # Errors
/// If it cannot be traced, or has more than one thread.
pub fn run(
    command: &mut Command,
    folder: &Path,
    class: Class,
    act: &mut dyn FnMut(&Seen<'_>) -> Act,
) -> Result<Ended> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let folder = folder.canonicalize()?;
    let mut traced = Traced { child, pid, folder, said: String::new(), calls: 0, ended: None };
    traced.seize()?;
    traced.follow(class, act)?;
    traced.finish()
}

struct Traced {
    child: Child,
    pid: Pid,
    folder: PathBuf,
    said: String,
    calls: usize,
    ended: Option<ExitStatus>,
}

/// A system call as the kernel got it.
#[derive(Clone, Copy)]
struct Entry {
    call: c_long,
    args: [u64; 4],
}

impl Traced {
    fn seize(&mut self) -> Result<()> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(self.pid, options).context("this system lets no process trace another")?;
        ptrace::interrupt(self.pid)?;
        self.wait()?;
        self.child.stdin.take().context("its standard input")?.write_all(b"go\n")?;
        Ok(())
    }

    fn follow(&mut self, class: Class, act: &mut dyn FnMut(&Seen<'_>) -> Act) -> Result<()> {
        let mut entered: Option<(Entry, Option<Planned>)> = None;
        let mut signal = None;
        loop {
            ptrace::syscall(self.pid, signal.take())?;
            match self.wait()? {
                Stop::Ended(status) => {
                    self.ended = Some(status);
                    return Ok(());
                }
                Stop::Signal(got) => signal = Some(got),
                Stop::Other => {}
                Stop::Call if ptrace::syscall_info(self.pid)?.op == libc::PTRACE_SYSCALL_INFO_ENTRY => {
                    let (entry, mut planned) = self.entered(class)?;
                    if let Some(planned) = &mut planned {
                        let seen = self.seen(Moment::Before, entry, &[]);
                        match act(&seen) {
                            Act::Go => {}
                            Act::Kill => return self.kill(),
                            Act::Fail(errno) => {
                                self.skip()?;
                                planned.fails = Some(errno);
                            }
                        }
                    }
                    entered = Some((entry, planned));
                }
                Stop::Call => {
                    let Some((entry, planned)) = entered.take() else { continue };
                    let result = self.left(planned.as_ref().and_then(|planned| planned.fails))?;
                    self.listen(entry, result)?;
                    let Some(planned) = planned else {
                        self.say(act, entry);
                        continue;
                    };
                    let effects = planned.effects(result);
                    let kill = act(&self.seen(Moment::After, entry, &effects)) == Act::Kill;
                    self.calls += 1;
                    if kill {
                        return self.kill();
                    }
                }
            }
        }
    }

    fn seen<'a>(&self, moment: Moment, entry: Entry, effects: &'a [Call]) -> Seen<'a> {
        Seen { number: self.calls, moment, call: entry.call, effects }
    }

    /// The call that begins, and what it would do if it is of the class.
    fn entered(&self, class: Class) -> Result<(Entry, Option<Planned>)> {
        let registers = ptrace::getregs(self.pid)?;
        let entry = Entry {
            call: registers.orig_rax.cast_signed(),
            args: [registers.rdi, registers.rsi, registers.rdx, registers.r10],
        };
        let planned = match class {
            Class::Write => self.plan(entry)?,
            Class::Lock => {
                let asks = match entry.call {
                    libc::SYS_fcntl => [libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK]
                        .iter()
                        .any(|command| u64::from(command.unsigned_abs()) == entry.args[1]),
                    libc::SYS_flock => true,
                    _ => false,
                };
                // An unlock is no request: it cannot be refused.
                let unlocks =
                    entry.call == libc::SYS_fcntl && asks && self.bytes(entry.args[2], 2)? == UNLOCK;
                let place = if asks && !unlocks { self.file(entry.args[0])? } else { None };
                place.map(|_| Planned { calls: Vec::new(), fails: None })
            }
        };
        Ok((entry, planned))
    }

    /// What a call that writes would do; `None` for any other.
    fn plan(&self, Entry { call, args }: Entry) -> Result<Option<Planned>> {
        let create = u64::from(libc::O_CREAT.unsigned_abs());
        let calls = match call {
            libc::SYS_openat if args[2] & create != 0 => self.creates(args[1])?,
            libc::SYS_open if args[1] & create != 0 => self.creates(args[0])?,
            libc::SYS_write | libc::SYS_pwrite64 => {
                let Some(name) = self.file(args[0])? else { return Ok(None) };
                let offset = if call == libc::SYS_pwrite64 { args[3] } else { self.position(args[0])? };
                let bytes = self.bytes(args[1], usize::try_from(args[2])?)?;
                Some(vec![Call::Write { name, offset, bytes }])
            }
            libc::SYS_fsync | libc::SYS_fdatasync if self.path(args[0])? == self.folder => {
                Some(vec![Call::SyncFolder])
            }
            libc::SYS_fsync | libc::SYS_fdatasync => self.file(args[0])?.map(|name| vec![Call::Sync(name)]),
            libc::SYS_ftruncate => {
                self.file(args[0])?.map(|name| vec![Call::Truncate { name, len: args[1] }])
            }
            libc::SYS_unlink => self.name(&self.string(args[0])?).map(|name| vec![Call::Unlink(name)]),
            libc::SYS_unlinkat => self.name(&self.string(args[1])?).map(|name| vec![Call::Unlink(name)]),
            // SQLite and the store use none of these. If they begin to, the record would be wrong without them.
            libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_fallocate
            | libc::SYS_sendfile
            | libc::SYS_copy_file_range
            | libc::SYS_sync_file_range
                if self.file(args[0])?.is_some() || self.file(args[2])?.is_some() =>
            {
                bail!("system call {call} changes a file and is not recorded: add it")
            }
            libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_truncate => {
                bail!("system call {call} is not recorded: add it")
            }
            _ => None,
        };
        Ok(calls.map(|calls| Planned { calls, fails: None }))
    }

    fn creates(&self, path: u64) -> Result<Option<Vec<Call>>> {
        let path = self.string(path)?;
        let is_new = !Path::new(&path).exists();
        Ok(self.name(&path).map(|name| if is_new { vec![Call::Create(name)] } else { Vec::new() }))
    }

    /// The result of the call that ends, or the failure in its place.
    fn left(&self, fails: Option<Errno>) -> Result<i64> {
        let mut registers = ptrace::getregs(self.pid)?;
        if let Some(errno) = fails {
            registers.rax = (-i64::from(errno as i32)).cast_unsigned();
            ptrace::setregs(self.pid, registers)?;
        }
        Ok(registers.rax.cast_signed())
    }

    /// Makes the kernel do nothing.
    fn skip(&self) -> Result<()> {
        let mut registers = ptrace::getregs(self.pid)?;
        registers.orig_rax = u64::MAX;
        Ok(ptrace::setregs(self.pid, registers)?)
    }

    /// Takes down what goes to standard output.
    fn listen(&mut self, Entry { call, args }: Entry, result: i64) -> Result<()> {
        if call == libc::SYS_write && args[0] == 1 && result > 0 {
            self.said += &String::from_utf8_lossy(&self.bytes(args[1], usize::try_from(result)?)?);
        }
        Ok(())
    }

    /// Shows what the process says, between the calls.
    fn say(&self, act: &mut dyn FnMut(&Seen<'_>) -> Act, entry: Entry) {
        if entry.call == libc::SYS_write && entry.args[0] == 1 {
            act(&self.seen(Moment::After, entry, &[Call::Say(self.said.clone())]));
        }
    }

    fn wait(&mut self) -> Result<Stop> {
        Ok(match waitpid(self.pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceSyscall(_) => Stop::Call,
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_STOP) => Stop::Other,
            WaitStatus::PtraceEvent(..) => bail!("the traced process must have one thread"),
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Stop::Other,
            WaitStatus::Stopped(_, signal) => Stop::Signal(signal),
            WaitStatus::Exited(_, code) => Stop::Ended(ExitStatus::from_raw(code << 8)),
            WaitStatus::Signaled(_, signal, _) => Stop::Ended(ExitStatus::from_raw(signal as i32)),
            other => bail!("the traced process is {other:?}"),
        })
    }

    fn kill(&mut self) -> Result<()> {
        nix::sys::signal::kill(self.pid, Signal::SIGKILL)?;
        loop {
            match self.wait()? {
                Stop::Ended(status) => {
                    self.ended = Some(status);
                    return Ok(());
                }
                _ => ptrace::cont(self.pid, None)?,
            }
        }
    }

    fn finish(mut self) -> Result<Ended> {
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut stderr)?;
        }
        let status = self.ended.context("it has ended")?;
        Ok(Ended { status, said: std::mem::take(&mut self.said), stderr, calls: self.calls })
    }

    fn path(&self, descriptor: u64) -> Result<PathBuf> {
        match std::fs::read_link(format!("/proc/{}/fd/{descriptor}", self.pid)) {
            Ok(path) => Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(PathBuf::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The name of an open file in the folder.
    fn file(&self, descriptor: u64) -> Result<Option<String>> {
        Ok(self.path(descriptor)?.to_str().and_then(|path| self.name(path)))
    }

    fn name(&self, path: &str) -> Option<String> {
        let inside = Path::new(path).strip_prefix(&self.folder).ok()?;
        let name = inside.to_str().filter(|name| !name.is_empty() && !name.ends_with(" (deleted)"))?;
        Some(name.to_owned())
    }

    fn position(&self, descriptor: u64) -> Result<u64> {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.pid))?;
        let position = info.lines().find_map(|line| line.strip_prefix("pos:"));
        Ok(position.context("a file has a position")?.trim().parse()?)
    }

    fn bytes(&self, address: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let remote = RemoteIoVec { base: usize::try_from(address)?, len };
        let read = process_vm_readv(self.pid, &mut [IoSliceMut::new(&mut bytes)], &[remote])?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// A path, up to the end of its memory page or a NUL.
    fn string(&self, address: u64) -> Result<String> {
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < libc::PATH_MAX.unsigned_abs() as usize {
            let piece = self.bytes(at, usize::try_from(PAGE - at % PAGE)?)?;
            at += piece.len() as u64;
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                text.extend(piece.get(..end).unwrap_or_default());
                return Ok(String::from_utf8(text)?);
            }
            text.extend(piece);
        }
        bail!("a path without end")
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a call will do unless it fails.
struct Planned {
    calls: Vec<Call>,
    fails: Option<Errno>,
}

impl Planned {
    fn effects(self, result: i64) -> Vec<Call> {
        let Ok(done) = usize::try_from(result) else { return Vec::new() };
        let mut calls = self.calls;
        if let [Call::Write { bytes, .. }] = calls.as_mut_slice() {
            bytes.truncate(done);
        }
        calls
    }
}

enum Stop {
    Call,
    Signal(Signal),
    Other,
    Ended(ExitStatus),
}

/// `F_UNLCK` as it is in the first field of a lock request.
const UNLOCK: [u8; 2] = [2, 0];
/// No string ends a page early.
const PAGE: u64 = 4096;
