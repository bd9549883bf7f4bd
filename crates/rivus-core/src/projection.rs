//! Tables of views: one for each kind that the application asks for, kept in the commit that changes the view.
//!
//! Owns what such a table looks like (its name, its columns and which field each holds, its cells) and how far it
//! follows the rows. Knows no SQL: a store makes the table. A table holds what views show, overlays of rules
//! included, so it can be made anew from the rows at any time.

mod cover;
mod names;

use std::collections::BTreeMap;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::schema::{FieldType, Kind, Schema};
use crate::value::{Json, Value};
use crate::view::{Shown, View};

pub(crate) use cover::{COVERS_KEY, Cover, Covers, MARKS, Making, mark, marked};

/// A kind of which a table is kept, and by which fields it is to be searched.
///
/// ```
/// use rivus_core::projection::Projection;
/// let by_user = Projection::new("time_entry").index(["user", "start"]).index(["project"]);
/// assert_eq!(by_user.kind(), "time_entry");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Projection {
    kind: String,
    indexes: Vec<Vec<String>>,
}

impl Projection {
    /// A table of this kind.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), indexes: Vec::new() }
    }

    /// With an index by these fields, in this order.
    #[must_use]
    pub fn index<F: Into<String>>(mut self, fields: impl IntoIterator<Item = F>) -> Self {
        self.indexes.push(fields.into_iter().map(Into::into).collect());
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

impl From<&str> for Projection {
    fn from(kind: &str) -> Self {
        Self::new(kind)
    }
}

impl From<String> for Projection {
    fn from(kind: String) -> Self {
        Self::new(kind)
    }
}

/// What a kind's table looks like. Its first column is always `id`, text, the primary key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The kind.
    pub kind: String,
    /// The table: `view_` and the kind, unless another kind of the schema has that name but for its case.
    pub table: String,
    /// One column for each declared field, ascending by field.
    pub columns: Vec<Column>,
    /// The column of all other fields, a JSON object, if the kind takes undeclared ones.
    pub more: Option<String>,
    /// The columns of each index.
    pub indexes: Vec<Vec<String>>,
    /// Of all on which what the table holds depends, but for the rules.
    pub(crate) fingerprint: u128,
}

/// One column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// The field that it holds.
    pub field: String,
    /// Its name: the field's, unless `id` or another field has that name but for its case.
    pub name: String,
    /// What is in it.
    pub holds: Holds,
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// A value as it is: numbers, text, bytes; true is 1, false 0; a list or a map is JSON.
    Any,
    /// JSON: the keys of a set, the entries of a map, all candidates of a multi field.
    Json,
}

/// The content of one column in one row.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// Nothing, or null.
    Null,
    /// A whole number.
    Int(i64),
    /// Any other number.
    Real(f64),
    /// Text, or JSON.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// One change of the tables of views, as part of a commit.
#[derive(Clone, PartialEq, Debug)]
pub enum ViewWrite<'b> {
    /// A new, empty table is begun beside the one that is there.
    Make(&'b Layout),
    /// The table that was begun takes the place of the one that was there.
    Finish(&'b Layout),
    /// One row.
    Row {
        /// The table.
        layout: &'b Layout,
        /// Which of the two.
        of: Which,
        /// The entity.
        id: &'b str,
        /// The cells of [`Layout::columns`], then of [`Layout::more`]; `None` takes the row out.
        cells: Option<Vec<Cell>>,
    },
}

/// Which of a kind's two tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The one that is read.
    Table,
    /// The one that is being made.
    Begun,
}

/// The most fields that a kind with a table may declare: a table has at most 2,000 columns.
pub const COLUMNS_MAX: usize = 1_900;

impl Layout {
    /// The table of a kind.
    ///
    /// # Errors
    /// [`ProjectionError`]: the schema does not take the kind or an index's field, or the kind has too many fields.
    pub fn new(schema: &Schema, projection: &Projection) -> Result<Self, ProjectionError> {
        let name = &projection.kind;
        let kind = schema.kind(name).ok_or_else(|| ProjectionError::UndeclaredKind { kind: name.clone() })?;
        let mut kinds: Vec<&str> = schema.kinds().map(|kind| kind.name.as_str()).collect();
        kinds.extend((!kinds.contains(&name.as_str())).then_some(name.as_str()));
        kinds.sort_unstable();
        let tables = names::distinct(&[], kinds.iter().map(|kind| format!("view_{kind}")));
        let table = kinds.iter().zip(tables).find(|(kind, _)| *kind == name).map(|(_, table)| table);
        let count = kind.fields().count();
        if count > COLUMNS_MAX {
            return Err(ProjectionError::TooManyFields { kind: name.clone(), fields: count });
        }
        let taken: &[&str] = if kind.open { &["id", "more"] } else { &["id"] };
        let columns = names::distinct(taken, kind.fields().map(|field| field.name.clone()));
        let columns = kind.fields().zip(columns).map(|(field, column)| Column {
            field: field.name.clone(),
            name: column,
            holds: match field.ty {
                FieldType::Set { .. } | FieldType::Map | FieldType::Multi => Holds::Json,
                _ => Holds::Any,
            },
        });
        let mut layout = Self {
            kind: name.clone(),
            table: table.unwrap_or_default(),
            columns: columns.collect(),
            more: kind.open.then(|| "more".to_owned()),
            indexes: Vec::new(),
            fingerprint: 0,
        };
        let column = |field: &String| {
            let found = layout.columns.iter().find(|column| column.field == *field);
            let undeclared = || ProjectionError::UndeclaredField { kind: name.clone(), field: field.clone() };
            found.map(|column| column.name.clone()).ok_or_else(undeclared)
        };
        let indexes = projection.indexes.iter().filter(|fields| !fields.is_empty());
        let indexes = indexes.map(|fields| fields.iter().map(column).collect());
        layout.indexes = indexes.collect::<Result<_, _>>()?;
        layout.fingerprint = xxh3_128(format!("{layout:?} {}", policies(kind)).as_bytes());
        Ok(layout)
    }

    /// The cells of a view; `None` if it shows as deleted.
    pub(crate) fn cells(&self, view: &View) -> Option<Vec<Cell>> {
        if view.deleted {
            return None;
        }
        let mut cells: Vec<_> = self
            .columns
            .iter()
            .map(|column| view.fields.get(&column.field).map_or(Cell::Null, Cell::of))
            .collect();
        if self.more.is_some() {
            let declared = |name: &str| self.columns.binary_search_by(|c| c.field.as_str().cmp(name)).is_ok();
            let more: BTreeMap<_, _> = view.fields.iter().filter(|(name, _)| !declared(name)).collect();
            cells.push(json(&more));
        }
        Some(cells)
    }
}

/// All that decides what is shown of the kind's registers.
fn policies(kind: &Kind) -> String {
    let fields: Vec<_> = kind.fields().collect();
    let groups: Vec<_> = kind.groups().collect();
    format!("{FORM} {:?} {} {fields:?} {groups:?}", kind.life, kind.aliases)
}

/// Which form of cells this version makes: tables of another form are made anew.
const FORM: u8 = 1;

impl Cell {
    fn of(shown: &Shown) -> Self {
        match shown {
            Shown::Value(Value::Null) => Self::Null,
            Shown::Value(Value::Bool(value)) => Self::Int(i64::from(*value)),
            Shown::Value(Value::Int(value)) => Self::Int(*value),
            Shown::Value(Value::Float(value)) => Self::Real(*value),
            Shown::Value(Value::Text(value)) => Self::Text(value.clone()),
            Shown::Value(Value::Bytes(value)) => Self::Bytes(value.clone()),
            Shown::Value(value @ Value::Unknown { .. }) => json(&Json(value)),
            Shown::Value(Value::List(_) | Value::Map(_)) | Shown::Set(_) | Shown::Map(_) => json(shown),
            Shown::Counter(sum) => {
                i64::try_from(*sum).map_or_else(|_| Self::Text(sum.to_string()), Self::Int)
            }
        }
    }
}

fn json(value: &impl Serialize) -> Cell {
    serde_json::to_string(value).map_or(Cell::Null, Cell::Text)
}

/// Why a kind can have no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The schema does not take the kind.
    #[error("no table of kind `{kind}` can be kept: the schema does not declare it")]
    UndeclaredKind {
        /// The kind.
        kind: String,
    },
    /// An index names a field that has no column.
    #[error(
        "no index by field `{field}` of kind `{kind}` can be kept: the schema does not declare the field"
    )]
    UndeclaredField {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
    },
    /// The kind declares more fields than a table has columns.
    #[error(
        "kind `{kind}` declares {fields} fields, a table holds {COLUMNS_MAX}: put what belongs together in a map"
    )]
    TooManyFields {
        /// The kind.
        kind: String,
        /// How many fields it declares.
        fields: usize,
    },
    /// The store keeps no tables.
    #[error("a store in memory keeps no tables of views: open a file")]
    NoTables,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

#[cfg(test)]
mod tests;
