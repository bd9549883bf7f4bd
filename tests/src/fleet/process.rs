//! A process of the fleet, talked to by lines.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A child and what it says.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    /// Everything that it acknowledged: `ID N`.
    pub acked: Vec<String>,
    /// Whether it is paused.
    pub paused: bool,
}

impl Process {
    /// Starts the program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path, args: &[&str], file: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(args).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (tell, lines) = channel();
        let out = BufReader::new(stdout.context("its standard output")?);
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let stdin = stdin.context("its standard input")?;
        Ok(Self { child, stdin, lines, acked: Vec::new(), paused: false })
    }

    /// Says a line to it.
    ///
    /// # Errors
    /// If it is gone.
    pub fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin, "{line}")?)
    }

    /// Waits for a line that begins so, and gives the rest of it.
    ///
    /// # Errors
    /// If it is gone, or says nothing of the kind in time.
    pub fn hear(&mut self, start: &str, patience: Duration) -> Result<String> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).with_context(|| format!("it never said `{start}`"))?;
            let rest = line.strip_prefix(start).map(|rest| rest.trim().to_owned());
            self.note(line);
            if let Some(rest) = rest {
                return Ok(rest);
            }
        }
    }

    fn note(&mut self, line: String) {
        if let Some(edit) = line.strip_prefix("acked ") {
            self.acked.push(edit.to_owned());
        }
    }

    /// Kills it, as `kill -9` does, and gives all that it acknowledged.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> Result<Vec<String>> {
        self.child.kill()?;
        self.child.wait()?;
        self.rest();
        Ok(std::mem::take(&mut self.acked))
    }

    /// Waits until it ends by itself, and gives all that it acknowledged.
    ///
    /// # Errors
    /// If it fails.
    pub fn end(mut self) -> Result<Vec<String>> {
        // Its lines end when it does.
        self.rest();
        let status = self.child.wait()?;
        if !status.success() {
            bail!("a process failed: {status}");
        }
        Ok(std::mem::take(&mut self.acked))
    }

    fn rest(&mut self) {
        while let Ok(line) = self.lines.recv() {
            self.note(line);
        }
    }

    /// Pauses it, or lets it go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn pause(&mut self, paused: bool) -> Result<()> {
        self.paused = paused;
        #[cfg(target_os = "linux")]
        {
            use nix::sys::signal::{Signal, kill};
            let signal = if paused { Signal::SIGSTOP } else { Signal::SIGCONT };
            kill(nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
