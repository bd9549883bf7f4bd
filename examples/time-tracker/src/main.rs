//! A small time tracker: `track start "write the report" --project Garden`, `track stop`, `track list`, `track sync`.

mod core;
mod import;

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rivus::{Db, HubOptions, Remote};

use crate::core::{Entry, Project};

#[derive(Parser)]
#[command(name = "track", about = "Tracks time, offline and on several devices")]
struct Args {
    /// The database file.
    #[arg(long, default_value = "time.db")]
    db: PathBuf,
    /// Whose entries.
    #[arg(long, default_value = "me")]
    user: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts an entry; what ran until now stops.
    Start {
        text: String,
        #[arg(long)]
        project: Option<String>,
    },
    /// Stops the entry that runs.
    Stop,
    /// Renames an entry.
    Rename { id: String, text: String },
    /// Says what runs.
    Status,
    /// Lists entries, the newest first, and the time spent.
    List {
        #[arg(long, default_value_t = 20)]
        last: usize,
    },
    /// Lists projects.
    Projects,
    /// Reads the CSV that another time tracker exported.
    Import {
        file: PathBuf,
        /// The order of the numbers in dates with slashes.
        #[arg(long, value_enum, default_value_t)]
        dates: import::Dates,
    },
    /// Syncs with a hub: `track sync ws://127.0.0.1:7171`.
    Sync { url: String },
    /// Is the hub for other devices, until it is stopped.
    Serve {
        #[arg(default_value = "127.0.0.1:7171")]
        address: String,
    },
    /// Shows what a rule shows in place of what was entered, and why.
    Overlays,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("track: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let db = Db::builder().entity::<Entry>().entity::<Project>().open(&args.db)?;
    let (user, now) = (args.user.as_str(), Timestamp::now().as_millisecond());
    match args.command {
        Command::Start { text, project } => {
            let entry = core::start(&db, user, &text, project.as_deref(), now)?;
            println!("started {}", line(&db, &entry, now)?);
        }
        Command::Stop => match core::stop(&db, user, now)? {
            Some(entry) => println!("stopped {}", line(&db, &entry, now)?),
            None => println!("nothing runs"),
        },
        Command::Rename { id, text } => {
            db.edit::<Entry>(&id, |entry| entry.text.clone_from(&text))?;
        }
        Command::Status => match core::running(&db, user)? {
            Some(entry) => println!("{}", line(&db, &entry, now)?),
            None => println!("nothing runs"),
        },
        Command::List { last } => list(&db, user, last, now)?,
        Command::Projects => {
            for project in db.list::<Project>()? {
                println!("{}", project.name);
            }
        }
        Command::Import { file, dates } => {
            let input = File::open(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            let imported = import::import(&db, input, user, dates, &TimeZone::system())
                .with_context(|| format!("{}: nothing was imported", file.display()))?;
            println!("{} new entries, {} known already", imported.new, imported.known);
        }
        Command::Sync { url } => {
            let report = db.sync(&Remote::new(url)).await?;
            println!("{report:?}");
        }
        Command::Serve { address } => {
            let hub = db.serve(&address, HubOptions::open()).await?;
            println!("serving {}; stop with ctrl-c", hub.url());
            tokio::signal::ctrl_c().await?;
            hub.shutdown().await;
        }
        Command::Overlays => {
            for overlay in db.overlays()? {
                let rival = overlay.rival.map_or(String::new(), |rival| format!(", for {rival}"));
                println!("{} {}: {:?} by {}{rival}", overlay.kind, overlay.id, overlay.shown, overlay.rule);
            }
        }
    }
    Ok(())
}

fn list(db: &Db, user: &str, last: usize, now: i64) -> Result<()> {
    let mut entries = db.list::<Entry>()?;
    entries.retain(|entry| entry.user == user);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.start));
    let total: i64 = entries.iter().map(|entry| entry.stop.unwrap_or(now) - entry.start).sum();
    for entry in entries.iter().take(last) {
        println!("{}", line(db, entry, now)?);
    }
    let noun = if entries.len() == 1 { "entry" } else { "entries" };
    println!("{} in {} {noun}", span(total), entries.len());
    Ok(())
}

/// An entry as it is printed.
fn line(db: &Db, entry: &Entry, now: i64) -> Result<String> {
    let project =
        entry.project.as_ref().map(|project| db.get::<Project>(project.id())).transpose()?.flatten();
    let start = Timestamp::from_millisecond(entry.start)?.to_zoned(TimeZone::system());
    let state = if entry.stop.is_none() { "running" } else { "" };
    Ok(format!(
        "{}  {}  {:7}  {}  {}  {}",
        entry.id,
        start.strftime("%F %H:%M"),
        span(entry.stop.unwrap_or(now) - entry.start),
        entry.text,
        project.map_or(String::new(), |project| format!("[{}]", project.name)),
        state
    )
    .trim_end()
    .to_owned())
}

fn span(ms: i64) -> String {
    let minutes = ms / 60_000;
    format!("{}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db() -> Db {
        Db::builder().entity::<Entry>().entity::<Project>().memory().unwrap()
    }

    #[test]
    fn starting_stops_what_ran_and_stopping_brings_nothing_back() {
        let db = db();
        let first = core::start(&db, "me", "first", Some("Garden"), 1000).unwrap();
        let second = core::start(&db, "me", "second", Some("Garden"), 61_000).unwrap();
        assert_eq!(core::running(&db, "me").unwrap().map(|entry| entry.id), Some(second.id));
        assert_eq!(db.get::<Entry>(&first.id).unwrap().unwrap().stop, Some(61_000));
        assert_eq!(core::stop(&db, "me", 90_000).unwrap().unwrap().stop, Some(90_000));
        assert_eq!(core::running(&db, "me").unwrap(), None);
        assert_eq!(db.list::<Project>().unwrap().len(), 1);
    }

    #[test]
    fn exports_of_two_trackers_are_read_once_each() {
        let toggl = "\u{feff}User,Email,Client,Project,Task,Description,Billable,Start date,Start time,End date,End time,Duration,Tags\n\
            ann,a@b.c,,Garden,,\"dig, and plant\",No,2026-03-01,09:00:00,2026-03-01,10:30:00,01:30:00,\n\
            ann,a@b.c,,,,rest,No,2026-03-01,23:30:00,2026-03-02,00:10:00,00:40:00,\n";
        let clockify = "Project,Client,Description,Task,User,Group,Email,Tags,Billable,Start Date,Start Time,End Date,End Time,Duration (h),Duration (decimal)\n\
            Garden,,water,,ann,,a@b.c,,Yes,02/03/2026,01:15:00 PM,02/03/2026,02:00:00 PM,00:45:00,0.75\n";
        let db = db();
        let read = |file: &str| {
            import::import(&db, file.as_bytes(), "me", import::Dates::Dmy, &TimeZone::UTC).unwrap()
        };
        assert_eq!((read(toggl).new, read(clockify).new), (2, 1));
        assert_eq!(read(toggl), import::Imported { new: 0, known: 2 });
        let mut entries = db.list::<Entry>().unwrap();
        entries.sort_by_key(|entry| entry.start);
        let minutes: Vec<_> = entries.iter().map(|e| (e.stop.unwrap() - e.start) / 60_000).collect();
        assert_eq!((minutes, entries[0].text.as_str()), (vec![90, 40, 45], "dig, and plant"));
        assert_eq!(entries[0].start, 1_772_355_600_000);
        assert_eq!(entries[0].project, entries[2].project);
        assert_eq!(db.list::<Project>().unwrap().len(), 1);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_and_nothing_is_imported() {
        let db = db();
        for (line, why) in [
            ("x,2026-13-01,09:00,2026-03-01,10:00", "line 3: `2026-13-01` is no date"),
            ("x,2026-03-01,9 o'clock,2026-03-01,10:00", "line 3: `9 o'clock` is no time"),
            ("x,2026-03-02,09:00,2026-03-01,10:00", "line 3: it ends before it starts"),
        ] {
            let file = format!(
                "Description,Start date,Start time,End date,End time\ny,2026-03-01,09:00,2026-03-01,10:00\n{line}\n"
            );
            let failed = import::import(&db, file.as_bytes(), "me", import::Dates::Dmy, &TimeZone::UTC);
            assert!(format!("{:#}", failed.unwrap_err()).starts_with(why), "{line}");
            assert!(db.list::<Entry>().unwrap().is_empty());
        }
        let nothing = import::import(&db, "a,b\n".as_bytes(), "me", import::Dates::Dmy, &TimeZone::UTC);
        assert!(nothing.unwrap_err().to_string().contains("no columns `Start date`"));
    }
}
