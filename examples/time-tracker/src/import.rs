//! The CSV files that common time trackers export.
//!
//! Columns are found by their names, in any order and case. Who exports local times is read in this machine's time
//! zone. An entry's id is derived from what the file says of it, so that the same file imported twice, or on two
//! devices, makes one entry of each line.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail};
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use rivus::{Db, Ref};

use crate::core::{Entry, Project};

/// In which order a date's numbers stand, where they are separated by slashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Dates {
    /// 31/12/2026
    #[default]
    Dmy,
    /// 12/31/2026
    Mdy,
}

/// What an import did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Imported {
    /// Entries that are new.
    pub(crate) new: usize,
    /// Entries that were there already.
    pub(crate) known: usize,
}

/// Reads a file of entries into the database, in one transaction.
///
/// # Errors
/// A line that cannot be read, by its number; then nothing was imported.
pub(crate) fn import(
    db: &Db,
    file: impl Read,
    user: &str,
    dates: Dates,
    zone: &TimeZone,
) -> Result<Imported> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let columns = Columns::find(reader.headers().context("the file has no line of column names")?)?;
    let mut entries = Vec::new();
    for line in reader.records() {
        let line = line?;
        let number = line.position().map_or(0, csv::Position::line);
        entries.push(columns.read(&line, user, dates, zone).with_context(|| format!("line {number}"))?);
    }
    let mut imported = Imported::default();
    let mut projects: BTreeMap<String, Project> =
        db.list::<Project>()?.into_iter().map(|project| (project.name.clone(), project)).collect();
    db.transaction(|tx| {
        imported = Imported::default();
        for (entry, project) in &entries {
            if tx.get::<Entry>(&entry.id)?.is_some() {
                imported.known += 1;
                continue;
            }
            let mut entry = entry.clone();
            if let Some(name) = project {
                if !projects.contains_key(name) {
                    let id = rivus::derived_id("time-tracker/project", &[name]);
                    let project = Project { id, workspace: "main".into(), name: name.clone() };
                    if tx.get::<Project>(&project.id)?.is_none() {
                        tx.insert(&project)?;
                    }
                    projects.insert(name.clone(), project);
                }
                entry.project = projects.get(name).map(Ref::of);
            }
            tx.insert(&entry)?;
            imported.new += 1;
        }
        Ok(())
    })?;
    Ok(imported)
}

/// Where in a line is what.
struct Columns {
    text: Option<usize>,
    project: Option<usize>,
    start: [usize; 2],
    end: Option<[usize; 2]>,
    duration: Option<usize>,
}

impl Columns {
    fn find(names: &csv::StringRecord) -> Result<Self> {
        let bare = |name: &str| name.trim().trim_start_matches('\u{feff}').to_lowercase();
        let position = |wanted: &&str| names.iter().position(|name| bare(name) == **wanted);
        let column = |wanted: &[&str]| wanted.iter().find_map(position);
        let pair = |date: &[&str], time: &[&str]| Some([column(date)?, column(time)?]);
        let Some(start) = pair(&["start date", "date"], &["start time", "start"]) else {
            let names: Vec<_> = names.iter().collect();
            bail!(
                "no columns `Start date` and `Start time` among {}: export a detailed report",
                names.join(", ")
            );
        };
        Ok(Self {
            text: column(&["description", "note", "notes", "task"]),
            project: column(&["project", "project name"]),
            start,
            end: pair(&["end date", "stop date", "date"], &["end time", "stop time", "end"]),
            duration: column(&["duration", "duration (h)"]),
        })
    }

    /// The entry of a line, and its project's name.
    fn read(
        &self,
        line: &csv::StringRecord,
        user: &str,
        dates: Dates,
        zone: &TimeZone,
    ) -> Result<(Entry, Option<String>)> {
        let cell = |at: usize| line.get(at).unwrap_or_default().trim();
        let text = self.text.map_or("", cell).to_owned();
        let project = self.project.map(cell).filter(|name| !name.is_empty()).map(str::to_owned);
        let moment = |[date, time]: [usize; 2]| moment(cell(date), cell(time), dates, zone);
        let start = moment(self.start)?;
        let end = self.end.filter(|at| at.iter().all(|at| !cell(*at).is_empty()));
        let stop = match (end, self.duration) {
            (Some(end), _) => moment(end)?,
            (None, Some(duration)) => start + length(cell(duration))?,
            (None, None) => bail!("it has neither an end nor a duration"),
        };
        if stop < start {
            bail!("it ends before it starts");
        }
        let parts =
            [user, &start.to_string(), &stop.to_string(), &text, project.as_deref().unwrap_or_default()];
        let id = rivus::derived_id("time-tracker/entry", &parts);
        Ok((Entry { id, user: user.to_owned(), text, project: None, start, stop: Some(stop) }, project))
    }
}

/// Milliseconds since 1970.
fn moment(date: &str, time: &str, dates: Dates, zone: &TimeZone) -> Result<i64> {
    let day = day(date, dates).with_context(|| format!("`{date}` is no date"))?;
    let time = clock(time).with_context(|| format!("`{time}` is no time"))?;
    Ok(day.to_datetime(time).to_zoned(zone.clone())?.timestamp().as_millisecond())
}

fn day(date: &str, dates: Dates) -> Result<Date> {
    let numbers: Vec<i16> = date.split(['-', '/', '.']).map(str::parse).collect::<Result<_, _>>()?;
    let [a, b, c] = numbers[..] else { bail!("a date has three numbers") };
    let (year, month, day) = match (date.contains('-'), dates) {
        (true, _) => (a, b, c),
        (false, Dates::Dmy) => (c, b, a),
        (false, Dates::Mdy) => (c, a, b),
    };
    Ok(Date::new(year, i8::try_from(month)?, i8::try_from(day)?)?)
}

fn clock(time: &str) -> Result<Time> {
    let lower = time.to_lowercase();
    let (digits, afternoon) = match (lower.strip_suffix("am"), lower.strip_suffix("pm")) {
        (Some(digits), _) => (digits, Some(false)),
        (_, Some(digits)) => (digits, Some(true)),
        _ => (lower.as_str(), None),
    };
    let numbers: Vec<i8> = digits.trim().split(':').map(str::parse).collect::<Result<_, _>>()?;
    let (hour, minute, second) = match numbers[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => bail!("a time is hours:minutes, or hours:minutes:seconds"),
    };
    let hour = match afternoon {
        None => hour,
        Some(afternoon) => hour % 12 + if afternoon { 12 } else { 0 },
    };
    Ok(Time::new(hour, minute, second, 0)?)
}

/// A duration in ms, of `hours:minutes:seconds`.
fn length(duration: &str) -> Result<i64> {
    let numbers: Vec<i64> = duration.split(':').map(str::parse).collect::<Result<_, _>>()?;
    let [hours, minutes, seconds] = numbers[..] else { bail!("`{duration}` is no hours:minutes:seconds") };
    Ok(((hours * 60 + minutes) * 60 + seconds) * 1000)
}
