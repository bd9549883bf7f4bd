//! Standard output, for people or for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use crate::args::Global;

/// Who reads what is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// People.
    Text,
    /// Programs: `--json`.
    Json,
}

impl Form {
    pub(crate) fn of(global: &Global) -> Self {
        if global.json { Self::Json } else { Self::Text }
    }
}

/// What was asked for goes here.
#[derive(Debug)]
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    form: Form,
}

impl Output {
    pub(crate) fn new(form: Form) -> Self {
        Self { out: BufWriter::new(io::stdout()), form }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// One line: `text` for people, `data` for programs.
    pub(crate) fn say(&mut self, text: impl Display, data: &impl Serialize) -> io::Result<()> {
        if self.is_json() { self.json(data) } else { writeln!(self.out, "{text}") }
    }

    /// One line for programs.
    pub(crate) fn json(&mut self, data: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, data)?;
        self.out.write_all(b"\n")
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
