//! Replay scripts.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, LineWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use rivus::replay::{self, Direct, ReplayError, Script, StoreChoice, WebSocket};

use crate::args::{Replay, Store, Transport};
use crate::output::Output;
use crate::table::count;

/// `rivus replay`.
pub(crate) fn run(arguments: &Replay, out: &mut Output) -> Result<()> {
    let script = read(&arguments.file)?;
    let store = match arguments.store {
        Store::Memory => StoreChoice::Memory,
        Store::Sqlite => StoreChoice::Sqlite,
    };
    let mut transport: Box<dyn replay::Transport> = match arguments.transport {
        Transport::Direct => Box::new(Direct),
        Transport::Websocket => Box::new(WebSocket::new()?),
    };
    // On standard error, and only if that is a terminal.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} steps {eta}") {
        bar.set_style(style);
    }
    let mut progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let mut refused = LineWriter::new(Beside(&bar));
    let done = replay::run(&script, store, transport.as_mut(), out, &mut refused, &mut progress);
    drop(refused);
    bar.finish_and_clear();
    let summary = done.map_err(|error| match error {
        // As it is, so that a closed pipe is known for one.
        ReplayError::Write(error) => error.into(),
        error => anyhow::Error::new(error),
    })?;
    out.flush()?;
    if !io::stderr().is_terminal() {
        // Programs read the refusals there, and nothing else.
        return Ok(());
    }
    let (edits, refused) = (count(summary.edits, "edit"), count(summary.refused, "refusal"));
    let (steps, moved) = (count(summary.steps, "step"), count(summary.moved, "register"));
    writeln!(io::stderr(), "{steps}: {edits}, {refused}, {moved} moved")?;
    Ok(())
}

fn read(path: &Path) -> Result<Script> {
    let input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Box::new(BufReader::new(file))
    };
    Script::parse(input).with_context(|| path.display().to_string())
}

/// Standard error beside a progress bar, for whole lines.
struct Beside<'b>(&'b ProgressBar);

impl Write for Beside<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
