//! `#[derive(Entity)]` for Rivus: a plain struct, and the merge policy of each of its fields.
//!
//! Owns the attributes and their errors. Knows nothing of what the policies do: it writes an `impl` of
//! `rivus::Entity` in terms of `rivus`' own types. Use it as `rivus::Entity`.

mod declaration;
mod emit;
mod rule;
mod setting;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `rivus::Entity` for a struct with named fields.
///
/// On the struct: `#[rivus(...)]` with
///
/// | setting | meaning |
/// |---|---|
/// | `kind = "task"` | the kind's name; without it the struct's name in snake case |
/// | `life = "delete-wins"` | how deletes and edits merge: `delete-wins` (default), `edit-revives` or `newest` |
/// | `open` | entities may hold fields that the struct does not name; the struct passes over them |
/// | `aliases` | entities may stand for each other, see `rivus::Db::alias` |
/// | `at_most_one(group = user, while_none = stop, order = start)` | of the entities with equal `user` one at most shows none in `stop`: the last that was opened; those before it show the `start` of the next. `time = ms` where `order` is milliseconds since 1970 |
/// | `unique(group = workspace, field = name)` | no two entities of a group show the same; may stand on the field |
///
/// On one field `#[rivus(id)]`: it identifies the entity; its type is `String`, or one made `From<String>` that is
/// `AsRef<str>`. Every other field is stored; without a setting as a plain value, of which the newest wins:
///
/// | setting | type of the field | meaning |
/// |---|---|---|
/// | `margin_ms = 5000` or `margin = "inf"` | any | writes this close to the newest stay in the running |
/// | `resolver = "rank"` | any | with a margin, which of them shows: `newest`, `oldest`, `rank`, `min`, `max` |
/// | `resolver = path` | any | the same, by a pure function `fn(&[rivus::Candidate<'_>]) -> rivus::Value` |
/// | `custom = path` | any | such a function folds all concurrent values |
/// | `group = "interval"` | any | written and replaced together with the group's other members |
/// | `multi` | a list | shows all concurrent values; is written as one |
/// | `set`, `wins = "remove"` | a list or set of text | merges key by key; an add wins unless said otherwise |
/// | `map` | a map or struct | merges key by key |
/// | `counter` | an integer | the sum of everybody's increments |
/// | `max`, `min` | any | the greatest, least of concurrent values |
/// | `flag` | `bool` | true if any concurrent value is |
/// | `rename = "name"` | any | the name to store it under |
/// | `authority` | any | only the authority and replicas with a rank write it |
/// | `on_conflict = restamp` | any, with a margin | a replica whose value has lost to a concurrent one writes it again |
/// | `was = "name"` | any | the name that it was stored under before: what is held there shows until it is written |
/// | `default = 5` | any | what shows where nothing is held: a number, a text, `true` or `false` |
/// | `scope` | any | names the scope of the entity; the group of every rule has to contain it |
///
/// Rules may stand on a field too: then they decide what it shows.
///
/// | rule | meaning |
/// |---|---|
/// | `unique(group = workspace)` | the first that claimed a value keeps it; others show it with `#` and part of a hash, or with `on_clash = alias` stand for the first |
/// | `reference` | on an `Option<Ref<T>>`: shows none where what it names is deleted or absent |
/// | `reference(on_gone = cascade)` | on it or a `Ref<T>`: the entity shows as deleted then; `on_gone = keep`: what it names stays as long as it is named |
/// | `bound(min = 0, max = 100)` | shows nothing below `min` or above `max` |
/// | `at_least = start`, `at_most = end` | shows nothing on the wrong side of another field |
///
/// Rules name the struct's own fields, several in parentheses: `group = (team, user)`. A rule takes `name = "..."`;
/// without it, it is called after its type and the field that it shows otherwise, such as `at_most_one_stop`.
///
/// A function is known to peers by the last part of its path: give it another name when what it does changes.
///
/// Types of fields need serde's `Serialize` and `Deserialize`, and `Default`: a field that an older writer did not
/// know, or left null, shows as its default.
#[proc_macro_derive(Entity, attributes(rivus))]
pub fn derive_entity(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    match declaration::Declaration::of(&input) {
        Ok(declaration) => emit::entity(&declaration).into(),
        Err(error) => error.into_compile_error().into(),
    }
}
