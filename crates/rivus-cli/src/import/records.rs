//! The file formats: each is read as a stream of records.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, Read};

use anyhow::{Context, Result, anyhow, bail};
use rivus::Value;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::args::Format;
use crate::assignment::value_of;

/// One entity of a file.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) fields: Vec<(String, Value)>,
    /// How long it is in the file.
    pub(super) bytes: usize,
}

/// Where in a file a record is, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Line(u64),
    Entry(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Entry(number) => write!(f, "entry {number}"),
        }
    }
}

/// What a file does not say itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'o> {
    pub(super) kind: Option<&'o str>,
    pub(super) id: Option<&'o str>,
    pub(super) infer: bool,
}

impl Options<'_> {
    fn id(&self) -> &str {
        self.id.unwrap_or("id")
    }
}

type Sink<'s> = &'s mut dyn FnMut(Record) -> Result<()>;

/// Gives every record to `sink`, in the order of the file, until one fails.
pub(super) fn read(
    mut input: impl BufRead,
    format: Format,
    options: Options<'_>,
    sink: Sink<'_>,
) -> Result<()> {
    if input.fill_buf().context("the file cannot be read")?.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    match format {
        Format::Json => read_json(input, options, sink),
        Format::Jsonl => read_lines(input, options, sink),
        Format::Csv => read_csv(input, options, sink),
    }
}

/// What some programs put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

fn read_lines(mut input: impl BufRead, options: Options<'_>, sink: Sink<'_>) -> Result<()> {
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).context("the file cannot be read")? == 0 {
            return Ok(());
        }
        number += 1;
        let place = Place::Line(number);
        let text = std::str::from_utf8(&line).with_context(|| format!("{place}: not UTF-8"))?.trim();
        if !text.is_empty() {
            sink(whole_or_flat(place, text, options).with_context(|| place.to_string())?)?;
        }
    }
}

fn read_csv(input: impl Read, options: Options<'_>, sink: Sink<'_>) -> Result<()> {
    let mut csv = csv::Reader::from_reader(input);
    let columns = csv.headers().map_err(csv_error)?.clone();
    let mut names = BTreeSet::new();
    if let Some(twice) = columns.iter().find(|name| !names.insert(*name)) {
        bail!("line 1: column `{twice}` is there twice: rename one");
    }
    if let Some(missing) = options.id.filter(|id| !names.contains(id)) {
        bail!("line 1: there is no column `{missing}` for the ids: name one that is there with --id");
    }
    let kind = options.kind.unwrap_or_default();
    let mut row = csv::StringRecord::new();
    while csv.read_record(&mut row).map_err(csv_error)? {
        let place = Place::Line(row.position().map_or(0, csv::Position::line));
        let (mut id, mut fields) = (None, Vec::new());
        for (column, cell) in columns.iter().zip(&row).filter(|(_, cell)| !cell.is_empty()) {
            if column == options.id() {
                id = Some(cell.to_owned());
                continue;
            }
            let value = if options.infer { value_of(cell) } else { Ok(cell.into()) };
            let value = value.map_err(|error| anyhow!("{place}: column `{column}`: {error}"))?;
            fields.push((column.to_owned(), value));
        }
        let id = id.unwrap_or_else(rivus::new_id);
        sink(Record { place, kind: kind.to_owned(), id, fields, bytes: row.as_slice().len() })?;
    }
    Ok(())
}

fn csv_error(error: csv::Error) -> anyhow::Error {
    let line = error.position().map_or(1, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(error) => anyhow::Error::new(error).context("the file cannot be read"),
        csv::ErrorKind::Utf8 { .. } => anyhow!("line {line}: not UTF-8"),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            anyhow!("line {line}: {len} cells where the header has {expected_len}")
        }
        other => anyhow!("line {line}: not CSV: {other:?}"),
    }
}

fn read_json(input: impl Read, options: Options<'_>, sink: Sink<'_>) -> Result<()> {
    let mut json = serde_json::Deserializer::from_reader(input);
    let mut failed = None;
    let whole = Whole { options, sink, failed: &mut failed, number: 0 };
    let read = whole.deserialize(&mut json).and_then(|()| json.end());
    match failed {
        Some(error) => Err(error),
        None => read.context("the file is not as it should be"),
    }
}

/// A whole JSON file, of which one entity at a time is in memory.
struct Whole<'w> {
    options: Options<'w>,
    sink: Sink<'w>,
    /// The sink's own error: the reader takes no other than its own.
    failed: &'w mut Option<anyhow::Error>,
    number: u64,
}

impl Whole<'_> {
    fn pass<E: serde::de::Error>(
        &mut self,
        record: impl FnOnce(Place, Options<'_>) -> Result<Record>,
    ) -> Result<(), E> {
        self.number += 1;
        let place = Place::Entry(self.number);
        let passed = record(place, self.options).with_context(|| place.to_string());
        passed.and_then(|record| (self.sink)(record)).map_err(|error| {
            *self.failed = Some(error);
            E::custom("stopped")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects, or an object by kind and id")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<Box<RawValue>>()? {
            self.pass(|place, options| whole_or_flat(place, raw.get(), options))?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(kind) = map.next_key::<String>()? {
            map.next_value_seed(OfKind { whole: &mut self, kind })?;
        }
        Ok(())
    }
}

/// The entities of one kind, by id.
struct OfKind<'k, 'w> {
    whole: &'k mut Whole<'w>,
    kind: String,
}

impl<'de> DeserializeSeed<'de> for OfKind<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OfKind<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the entities of kind `{}` by id; an object of one entity belongs into an array", self.kind)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { whole, kind } = self;
        while let Some((id, raw)) = map.next_entry::<String, Box<RawValue>>()? {
            whole.pass(|place, options| named(place, &kind, &id, raw.get(), options))?;
        }
        Ok(())
    }
}

/// A record that says its kind and id, or an object that holds fields alone.
fn whole_or_flat(place: Place, text: &str, options: Options<'_>) -> Result<Record> {
    let mut entries = Entries::parse(text)?.0;
    let part = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, raw)| raw.get());
    if entries.len() == 3
        && let (Some(kind), Some(id), Some(fields)) = (part("kind"), part("id"), part("fields"))
        && let (Ok(kind), Ok(id)) = (serde_json::from_str::<String>(kind), serde_json::from_str::<String>(id))
        && fields.starts_with('{')
    {
        return named(place, &kind, &id, fields, options);
    }
    let kind = options.kind.context("the object does not say its kind: give --kind")?;
    let given = entries.iter().position(|(key, _)| key == options.id()).map(|at| entries.remove(at).1);
    let id = match given.map(Value::from_json).transpose()? {
        Some(Value::Text(id)) if !id.is_empty() => id,
        Some(Value::Int(id)) => id.to_string(),
        None | Some(Value::Null | Value::Text(_)) => rivus::new_id(),
        Some(other) => bail!("{} is no id: give text", crate::table::value(&other)),
    };
    let fields = values(entries)?;
    Ok(Record { place, kind: kind.to_owned(), id, fields, bytes: text.len() })
}

fn named(place: Place, kind: &str, id: &str, fields: &str, options: Options<'_>) -> Result<Record> {
    if let Some(wanted) = options.kind.filter(|wanted| *wanted != kind) {
        bail!("it is of kind `{kind}`: leave --kind {wanted} out");
    }
    let bytes = kind.len() + id.len() + fields.len();
    let fields = values(Entries::parse(fields)?.0)?;
    Ok(Record { place, kind: kind.to_owned(), id: id.to_owned(), fields, bytes })
}

fn values(entries: Vec<(String, &RawValue)>) -> Result<Vec<(String, Value)>> {
    let read = |(field, raw): (String, &RawValue)| {
        let value = Value::from_json(raw).with_context(|| format!("field `{field}`"))?;
        Ok((field, value))
    };
    entries.into_iter().map(read).collect()
}

/// An object, its values still unread; a key twice is refused rather than dropped.
struct Entries<'t>(Vec<(String, &'t RawValue)>);

impl<'t> Entries<'t> {
    fn parse(text: &'t str) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_map(EntriesVisitor).and_then(|entries| json.end().map(|()| entries));
        read.map_err(|error| {
            // Within one record its own lines and columns tell nothing.
            let error = error.to_string();
            anyhow!("{}", error.split(" at line ").next().unwrap_or_default())
        })
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let (mut entries, mut keys) = (Vec::new(), BTreeSet::new());
        while let Some((key, raw)) = map.next_entry::<String, &RawValue>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("field `{key}` is there twice")));
            }
            entries.push((key, raw));
        }
        Ok(Entries(entries))
    }
}
