//! The command line of Rivus.
//!
//! Standard output carries what was asked for, standard error everything else: errors, progress, the log. Whoever
//! closes the pipe early ends the command quietly. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod accounts;
mod advice;
mod args;
mod assignment;
mod collect;
mod conflicts;
mod database;
mod demo;
mod edit;
mod evict;
mod explain;
mod export;
mod import;
mod log;
mod network;
mod output;
mod overlays;
mod rejected;
mod replay;
mod serve;
mod show;
mod simulate;
mod source;
mod table;
mod upkeep;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use tracing_subscriber::EnvFilter;

use args::{Arguments, Command};
use output::{Form, Output};

fn main() -> ExitCode {
    let mut arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // What the parser could not take apart may still ask for it.
            let asks = std::env::args_os().any(|argument| argument == "--json");
            return refuse(&error, if asks { Form::Json } else { Form::Text });
        }
    };
    let form = Form::of(&arguments.global);
    let mut log_json = form == Form::Json;
    if let Command::Serve(serve) = &mut arguments.command {
        // The file says how to log, too.
        if let Err(error) = serve.read_file(&mut arguments.global) {
            complain(&format!("{error:#}"), form);
            return ExitCode::FAILURE;
        }
        log_json |= serve.log_json == Some(true);
    }
    // The others say themselves what came of it.
    let runs_on = matches!(arguments.command, Command::Serve(_) | Command::Live(_));
    let level = match arguments.global.verbose {
        0 if runs_on => "error",
        0 => "off",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    begin_logging(level, log_json);
    let mut out = Output::new(form);
    let done = run(&arguments, &mut out).and_then(|code| Ok(out.flush().map(|()| code)?));
    match done {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(usage) => refuse(usage, form),
            None => {
                // What was asked for and done before the failure comes first.
                let _ = out.flush();
                complain(&advice::told(&error), form);
                ExitCode::FAILURE
            }
        },
    }
}

fn parse() -> Result<Arguments, clap::Error> {
    let matches = Arguments::command().try_get_matches()?;
    let mut arguments =
        Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut Arguments::command()))?;
    arguments.global.db_is_given = matches.value_source("db") != Some(ValueSource::DefaultValue);
    Ok(arguments)
}

fn run(arguments: &Arguments, out: &mut Output) -> Result<ExitCode> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Demo { dir } => return demo::run(dir.as_deref(), out),
        Command::Put(put) => edit::put(global, put, out)?,
        Command::Show { kind, id } => show::entity(global, kind, id, out)?,
        Command::List { kind: None } => show::kinds(global, out)?,
        Command::List { kind: Some(kind) } => show::entities(global, kind, out)?,
        Command::Delete { kind, id } => edit::delete(global, kind, id, out)?,
        Command::Revive { kind, id } => edit::revive(global, kind, id, out)?,
        Command::Evict { kind, ids } => evict::evict(global, kind, ids, out)?,
        Command::Collect { grace, dry_run } => collect::collect(global, *grace, *dry_run, out)?,
        Command::Leases { end } => collect::leases(global, end.as_deref(), out)?,
        Command::Accounts => accounts::list(global, out)?,
        Command::Disown { subject } => accounts::disown(global, subject, out)?,
        Command::Fetch(fetch) => evict::fetch(global, fetch, out)?,
        Command::Explain { kind, id, field } => explain::run(global, kind, id, field.as_deref(), out)?,
        Command::Conflicts(conflicts) => conflicts::run(global, conflicts, out)?,
        Command::Overlays { kind, id } => overlays::run(global, kind.as_deref(), id.as_deref(), out)?,
        Command::Rejected(rejected) => rejected::run(global, rejected, out)?,
        Command::Log(log) => log::log(global, log, out)?,
        Command::Undo(undo) => log::undo(global, undo, out)?,
        Command::Status => show::status(global, out)?,
        Command::Verify => return upkeep::verify(global, out),
        Command::Repair => upkeep::repair(global, out)?,
        Command::Backup { file } => upkeep::backup(global, file, out)?,
        Command::Restore { file } => upkeep::restore(global, file, out)?,
        Command::Import(import) => import::run(global, import, out)?,
        Command::Export(export) => return export::run(global, export, out),
        Command::Serve(serve) => serve::serve(global, serve, out)?,
        Command::Health { admin } => return serve::health(admin, out),
        Command::Sync(remote) => network::sync(global, remote, out)?,
        Command::Live(remote) => network::live(global, remote, out)?,
        Command::Replay(replay) => replay::run(replay, out)?,
        Command::Simulate(simulate) => return simulate::run(simulate, out),
        Command::Completions { shell } => {
            // Into memory first: the generator panics if the pipe closes.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "rivus", &mut script);
            out.write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An error of usage that the parser cannot see by itself.
fn usage(message: &str) -> anyhow::Error {
    Arguments::command().error(ErrorKind::ArgumentConflict, message).into()
}

/// Prints what the parser has to say, which may be help.
fn refuse(error: &clap::Error, form: Form) -> ExitCode {
    if form == Form::Json && error.use_stderr() {
        let text = error.render().to_string();
        // The first paragraph says what is wrong, the others what is right.
        let first = text.split("\n\n").next().unwrap_or_default();
        complain(first.trim_start_matches("error: ").trim_end(), form);
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Says what should be known and is no error.
fn note(note: &str, form: Form) {
    #[derive(serde::Serialize)]
    struct Note<'n> {
        note: &'n str,
    }
    let line = match form {
        Form::Json => serde_json::to_string(&Note { note }).unwrap_or_default(),
        Form::Text => format!("note: {note}"),
    };
    let _ = writeln!(io::stderr(), "{line}");
}

fn complain(message: &str, form: Form) {
    #[derive(serde::Serialize)]
    struct Failure<'m> {
        error: &'m str,
    }
    let line = match form {
        Form::Json => serde_json::to_string(&Failure { error: message }).unwrap_or_default(),
        Form::Text => format!("error: {message}"),
    };
    // Nobody is left to hear of it if this fails.
    let _ = writeln!(io::stderr(), "{line}");
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(closed)
}

/// Logs to standard error, as JSON if standard output is, or if that is asked for.
fn begin_logging(level: &str, json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if json {
        log.json().init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
}

/// Runs a future to its end, for the commands that need a network.
fn wait<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("no threads can be started")?.block_on(future)
}
