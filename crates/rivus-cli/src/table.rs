//! Text for people: tables, times and values.

use std::fmt;

use rivus::rivus_core::clock::{Stamp, whole_millis};
use rivus::{Shown, Value};

/// Rows under a header, each column as wide as it needs to be, within its bound; longer cells go on below.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    /// The header first.
    rows: Vec<[String; COLUMNS]>,
    widths_max: [usize; COLUMNS],
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// `widths_max` are the most characters of each column.
    pub(crate) fn new(header: [&str; COLUMNS], widths_max: [usize; COLUMNS]) -> Self {
        Self { rows: vec![header.map(str::to_owned)], widths_max }
    }

    pub(crate) fn push(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row);
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrap = |row: &[String; COLUMNS]| {
            let cells = row.iter().zip(self.widths_max).map(|(cell, width)| wrapped(cell, width));
            cells.collect::<Vec<_>>()
        };
        let rows: Vec<_> = self.rows.iter().map(wrap).collect();
        let mut widths = [0; COLUMNS];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                let longest = cell.iter().map(|line| line.chars().count()).max();
                *width = longest.unwrap_or_default().max(*width);
            }
        }
        for (number, row) in rows.iter().enumerate() {
            let height = row.iter().map(Vec::len).max().unwrap_or_default();
            for at in 0..height {
                let cells = row.iter().zip(widths);
                let cells =
                    cells.map(|(cell, width)| format!("{:width$}", cell.get(at).map_or("", |line| line)));
                let line = cells.collect::<Vec<_>>().join("  ");
                writeln!(f, "{}", line.trim_end())?;
            }
            if number == 0 {
                writeln!(f, "{}", widths.map(|width| "-".repeat(width)).join("  "))?;
            }
        }
        Ok(())
    }
}

/// The text in lines of at most `width` characters, broken between words where that is possible.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut letters: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + letters.len() > width {
            lines.push(String::new());
            used = 0;
        }
        if used > 0 {
            append(&mut lines, " ");
            used += 1;
        }
        while letters.len() > width {
            let rest = letters.split_off(width);
            append(&mut lines, &letters.into_iter().collect::<String>());
            lines.push(String::new());
            letters = rest;
        }
        used += letters.len();
        append(&mut lines, &letters.into_iter().collect::<String>());
    }
    lines
}

fn append(lines: &mut [String], text: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(text);
    }
}

/// The text without what would move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// What a field shows, as JSON.
pub(crate) fn shown(shown: &Shown) -> String {
    printable(&serde_json::to_string(shown).unwrap_or_default())
}

/// A value, as JSON.
pub(crate) fn value(value: &Value) -> String {
    shown(&Shown::Value(value.clone()))
}

/// The first digits of the id of who wrote it.
pub(crate) fn writer(stamp: Stamp) -> String {
    stamp.replica.to_string().chars().take(8).collect()
}

/// When it was written, in UTC.
pub(crate) fn when(stamp: Stamp) -> String {
    when_ms(i64::try_from(whole_millis(stamp.time)).unwrap_or(i64::MAX))
}

/// This moment, in ms since 1970, in UTC.
pub(crate) fn when_ms(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or(0);
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60);
    let (second, rest) = (ms_of_day / 1000 % 60, ms_of_day % 1000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

/// Year, month and day of a day since 1970 in the Gregorian calendar. The year is taken to begin in March, so that
/// the leap day is its last (Hinnant, *chrono-compatible low-level date algorithms*).
fn date(days: u64) -> (u64, u64, u64) {
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// `1 edit`, `2 edits`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use rivus::rivus_core::clock::ticks;

    use super::*;

    #[test]
    fn times_are_dates_in_utc() {
        let at = |ms| when(Stamp { time: ticks(ms), ..Stamp::LOWEST });
        assert_eq!(at(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(at(951_782_400_000 + 3_723_004), "2000-02-29 01:02:03.004Z");
        assert_eq!(at(1_709_164_800_000), "2024-02-29 00:00:00.000Z");
        assert_eq!(at(4_294_967_293_999), "2106-02-07 06:28:13.999Z");
    }

    #[test]
    fn cells_that_are_too_long_go_on_below() {
        let mut table = Table::new(["a", "why"], [4, 9]);
        table.push(["123456".into(), "the newer one wins".into()]);
        let text = "a     why\n----  ---------\n1234  the newer\n56    one wins\n";
        assert_eq!(table.to_string(), text);
        assert_eq!(wrapped("", 5), [""]);
        assert_eq!(wrapped("ab  cd", 4), ["ab ", "cd"]);
    }

    #[test]
    fn nothing_printed_moves_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\u{9b}c\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
    }
}
