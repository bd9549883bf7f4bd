//! The fields of one entity on their way between a struct and the store.
//!
//! Owns the conversion and the difference of two states, which is what an edit by closure writes. Both states
//! are those of the struct, so a field that the closure left alone is never written, even where the struct
//! cannot hold all of what is stored.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::edit::Action;
use rivus_core::value::{Value, ValueError, from_value, to_value};
use rivus_core::view::{Shown, View};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Changed, Entity, Error};

/// The fields of one entity by name; see [`Entity::read`] and [`Entity::write`].
///
/// ```
/// # use rivus::{Entity, Error, Fields, KindBuilder};
/// # struct Point { id: String, x: i64 }
/// # impl Entity for Point {
/// #     const KIND: &'static str = "point";
/// #     fn declare(kind: KindBuilder) -> KindBuilder { kind.value("x") }
/// #     fn id(&self) -> &str { &self.id }
/// fn read(id: String, fields: &mut Fields) -> Result<Self, Error> {
///     Ok(Self { id, x: fields.take("x")? })
/// }
///
/// fn write(&self, fields: &mut Fields) -> Result<(), Error> {
///     fields.put("x", &self.x)
/// }
/// # }
/// # let db = rivus::Db::builder().entity::<Point>().memory()?;
/// # db.insert(&Point { id: "p".into(), x: 3 })?;
/// # assert_eq!(db.get::<Point>("p")?.map(|p| p.x), Some(3));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fields {
    kind: &'static str,
    id: String,
    contents: BTreeMap<String, Content>,
    /// Those that are not written when the entity is created.
    left: BTreeSet<String>,
}

/// What a field holds, as its policy merges it.
#[derive(Clone, PartialEq, Debug)]
enum Content {
    Value(Value),
    Multi(Vec<Value>),
    Set(BTreeSet<String>),
    Map(BTreeMap<String, Value>),
    Counter(i128),
}

impl From<Content> for Shown {
    fn from(content: Content) -> Self {
        match content {
            Content::Value(value) => Self::Value(value),
            Content::Multi(list) => Self::Value(Value::List(list)),
            Content::Set(keys) => Self::Set(keys),
            Content::Map(entries) => Self::Map(entries),
            Content::Counter(sum) => Self::Counter(sum),
        }
    }
}

impl Fields {
    fn new(kind: &'static str, id: &str) -> Self {
        Self { kind, id: id.to_owned(), contents: BTreeMap::new(), left: BTreeSet::new() }
    }

    /// Makes the struct of a view.
    pub(crate) fn read<T: Entity>(id: &str, view: View) -> Result<T, Error> {
        let content = |shown| match shown {
            Shown::Value(value) => Content::Value(value),
            Shown::Set(keys) => Content::Set(keys),
            Shown::Map(entries) => Content::Map(entries),
            Shown::Counter(sum) => Content::Counter(sum),
        };
        let contents = view.fields.into_iter().map(|(name, shown)| (name, content(shown))).collect();
        T::read(id.to_owned(), &mut Self { contents, ..Self::new(T::KIND, id) })
    }

    /// Takes the struct apart.
    pub(crate) fn of<T: Entity>(entity: &T) -> Result<Self, Error> {
        let mut fields = Self::new(T::KIND, entity.id());
        entity.write(&mut fields)?;
        Ok(fields)
    }

    /// Takes a field out. One that is not there is the type's default, and so is null where the type has no null:
    /// the entity may come from a writer that did not know the field yet.
    ///
    /// # Errors
    /// [`Error::Field`] if it does not fit the type.
    pub fn take<T: DeserializeOwned + Default>(&mut self, name: &str) -> Result<T, Error> {
        let value = match self.contents.remove(name) {
            None => return Ok(T::default()),
            Some(Content::Value(value)) => value,
            Some(Content::Multi(list)) => Value::List(list),
            Some(Content::Set(keys)) => Value::List(keys.into_iter().map(Value::Text).collect()),
            Some(Content::Map(entries)) => Value::Map(entries),
            Some(Content::Counter(sum)) => {
                let sum =
                    i64::try_from(sum).map_err(|_| self.wrong(name, ValueError::Integer(sum.to_string())))?;
                Value::Int(sum)
            }
        };
        let is_null = value == Value::Null;
        match from_value(value) {
            Err(_) if is_null => Ok(T::default()),
            read => read.map_err(|error| self.wrong(name, error)),
        }
    }

    /// Takes a counter out; 0 if it is not there.
    ///
    /// # Errors
    /// [`Error::Field`] if the sum does not fit the integer type.
    pub fn take_counter<T: TryFrom<i128> + DeserializeOwned + Default>(
        &mut self,
        name: &str,
    ) -> Result<T, Error> {
        match self.contents.get(name) {
            Some(Content::Counter(sum)) => {
                T::try_from(*sum).map_err(|_| self.wrong(name, ValueError::Integer(sum.to_string())))
            }
            _ => self.take(name),
        }
    }

    /// Hands over a field that is one value.
    ///
    /// # Errors
    /// [`Error::Field`] if it has no form as a value, for example a number beyond 64 bits.
    pub fn put<T: Serialize + ?Sized>(&mut self, name: &str, field: &T) -> Result<(), Error> {
        let value = self.value(name, field)?;
        self.insert(name, Content::Value(value))
    }

    /// Hands over the concurrent values of a multi field. An edit that changes them must leave exactly one: it
    /// replaces all that were there.
    ///
    /// # Errors
    /// [`Error::Field`] if it is not a list of values.
    pub fn put_multi<T: Serialize + ?Sized>(&mut self, name: &str, field: &T) -> Result<(), Error> {
        match self.value(name, field)? {
            Value::List(list) => self.insert(name, Content::Multi(list)),
            _ => Err(self.mismatch(name, "a multi field is a list of values, such as a `Vec`")),
        }
    }

    /// Hands over a set.
    ///
    /// # Errors
    /// [`Error::Field`] if it is not a list of texts.
    pub fn put_set<T: Serialize + ?Sized>(&mut self, name: &str, field: &T) -> Result<(), Error> {
        let refused = "a set is a list of texts, such as a `BTreeSet<String>`";
        let Value::List(list) = self.value(name, field)? else { return Err(self.mismatch(name, refused)) };
        let key = |value| match value {
            Value::Text(key) => Ok(key),
            _ => Err(self.mismatch(name, refused)),
        };
        let keys = list.into_iter().map(key).collect::<Result<_, _>>()?;
        self.insert(name, Content::Set(keys))
    }

    /// Hands over a map.
    ///
    /// # Errors
    /// [`Error::Field`] if it is not a map with keys that can be text.
    pub fn put_map<T: Serialize + ?Sized>(&mut self, name: &str, field: &T) -> Result<(), Error> {
        match self.value(name, field)? {
            Value::Map(entries) => self.insert(name, Content::Map(entries)),
            _ => Err(self.mismatch(name, "a map has text keys, such as a `BTreeMap<String, _>`")),
        }
    }

    /// Hands over a counter.
    ///
    /// # Errors
    /// [`Error::Field`] if the number is beyond 128 bits.
    pub fn put_counter<T: TryInto<i128>>(&mut self, name: &str, field: T) -> Result<(), Error> {
        let sum = field.try_into().map_err(|_| self.mismatch(name, "a counter is at most 2^127 - 1"))?;
        self.insert(name, Content::Counter(sum))
    }

    /// Has an insert leave out a field that holds its type's default, which `put_default` hands over: one that not
    /// everybody may write.
    ///
    /// # Errors
    /// Those of `put_default`.
    pub fn leave_default(
        &mut self,
        name: &str,
        put_default: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut default = Self::new(self.kind, &self.id);
        put_default(&mut default)?;
        if default.contents.get(name) == self.contents.get(name) {
            self.left.insert(name.to_owned());
        }
        Ok(())
    }

    /// What an edit must do to create an entity with these fields.
    pub(crate) fn creation(mut self) -> Result<Vec<Action>, Error> {
        let left = std::mem::take(&mut self.left);
        self.contents.retain(|name, _| !left.contains(name));
        let nothing = Self::new(self.kind, &self.id);
        let mut actions = self.changes_since(&nothing)?;
        if !matches!(actions.first(), Some(Action::Put(_))) {
            actions.insert(0, Action::Put(Vec::new()));
        }
        Ok(actions)
    }

    /// What an edit must do to turn `before` into these fields.
    pub(crate) fn changes_since(mut self, before: &Self) -> Result<Vec<Action>, Error> {
        let (mut put, mut actions) = (Vec::new(), Vec::new());
        for (field, now) in std::mem::take(&mut self.contents) {
            let then = before.contents.get(&field);
            if then == Some(&now) {
                continue;
            }
            match (now, then) {
                (Content::Value(value), _) => put.push((field, value)),
                (Content::Multi(list), then) => put.extend(self.one_of(field, list, then.is_none())?),
                (Content::Set(now), Some(Content::Set(then))) => {
                    set_changes(&field, &now, then, &mut actions)
                }
                (Content::Set(now), _) => set_changes(&field, &now, &BTreeSet::new(), &mut actions),
                (Content::Map(now), Some(Content::Map(then))) => map_changes(&field, now, then, &mut actions),
                (Content::Map(now), _) => map_changes(&field, now, &BTreeMap::new(), &mut actions),
                (Content::Counter(now), then) => {
                    let then = if let Some(Content::Counter(then)) = then { *then } else { 0 };
                    let by = now.checked_sub(then).and_then(|by| i64::try_from(by).ok());
                    let by = by.ok_or_else(|| self.mismatch(&field, "a counter moves by at most 64 bits"))?;
                    if by != 0 {
                        actions.push(Action::Inc { field, by });
                    }
                }
            }
        }
        if !put.is_empty() {
            actions.insert(0, Action::Put(put));
        }
        Ok(actions)
    }

    /// The fields that hold something else than they did in `then`.
    pub(crate) fn changed_since(self, then: &Self) -> Vec<Changed> {
        let differs = |(field, now): (String, Content)| {
            let then = then.contents.get(&field)?;
            (*then != now).then(|| Changed { field, loaded: then.clone().into(), now: now.into() })
        };
        self.contents.into_iter().filter_map(differs).collect()
    }

    /// The one value that a multi field is written as; none if it is new and empty.
    fn one_of(
        &self,
        field: String,
        mut list: Vec<Value>,
        is_new: bool,
    ) -> Result<Option<(String, Value)>, Error> {
        match (list.pop(), list.is_empty()) {
            (None, _) if is_new => Ok(None),
            (Some(value), true) => Ok(Some((field, value))),
            _ => {
                Err(self
                    .mismatch(&field, "a multi field is written as one value that replaces all: leave one"))
            }
        }
    }

    fn value<T: Serialize + ?Sized>(&self, name: &str, field: &T) -> Result<Value, Error> {
        to_value(field).map_err(|error| self.wrong(name, error))
    }

    fn insert(&mut self, name: &str, content: Content) -> Result<(), Error> {
        self.contents.insert(name.to_owned(), content);
        Ok(())
    }

    fn mismatch(&self, field: &str, what: &str) -> Error {
        self.wrong(field, ValueError::Mismatch(what.to_owned()))
    }

    fn wrong(&self, field: &str, source: ValueError) -> Error {
        Error::Field {
            kind: self.kind.to_owned(),
            id: self.id.clone(),
            field: field.to_owned(),
            source: Box::new(source),
        }
    }
}

fn set_changes(field: &str, now: &BTreeSet<String>, then: &BTreeSet<String>, actions: &mut Vec<Action>) {
    let field = || field.to_owned();
    actions.extend(now.difference(then).map(|key| Action::Add { field: field(), key: key.clone() }));
    actions.extend(then.difference(now).map(|key| Action::Remove { field: field(), key: key.clone() }));
}

fn map_changes(
    field: &str,
    now: BTreeMap<String, Value>,
    then: &BTreeMap<String, Value>,
    actions: &mut Vec<Action>,
) {
    let field = || field.to_owned();
    let gone = then.keys().filter(|key| !now.contains_key(*key));
    actions.extend(gone.map(|key| Action::Remove { field: field(), key: key.clone() }));
    for (key, value) in now {
        if then.get(&key) != Some(&value) {
            actions.push(Action::SetKey { field: field(), key, value });
        }
    }
}
