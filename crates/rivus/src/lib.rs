//! Rivus: an offline-first database that merges field by field.
//!
//! An application keeps its entities in a local [`Db`], edits them without a network, and syncs when there is one.
//! Replicas that have met the same edits, in any order, show the same; an edit that saw a value replaces it, and
//! no edit is lost silently. How two concurrent edits of a field merge is the field's own policy.
//!
//! ```
//! use std::collections::BTreeSet;
//!
//! use rivus::{Db, Entity};
//!
//! #[derive(Entity, Debug, Clone, Default, PartialEq)]
//! #[rivus(life = "edit-revives")]
//! struct Task {
//!     #[rivus(id)]
//!     id: String,
//!     title: String,
//!     #[rivus(margin_ms = 5000, resolver = "rank")]
//!     owner: Option<String>,
//!     #[rivus(group = "interval")]
//!     start: u64,
//!     #[rivus(group = "interval")]
//!     stop: Option<u64>,
//!     #[rivus(set)]
//!     tags: BTreeSet<String>,
//!     #[rivus(counter)]
//!     views: i64,
//! }
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("app.db");
//! let db = Db::builder().entity::<Task>().open(&path)?;
//! db.insert(&Task { id: "t1".into(), title: "write".into(), ..Task::default() })?;
//! db.edit::<Task>("t1", |task| {
//!     task.title = "write it down".into();
//!     task.tags.insert("today".into());
//!     task.views += 1;
//! })?;
//! assert_eq!(db.get::<Task>("t1")?.map(|task| task.views), Some(1));
//! # Ok::<(), rivus::Error>(())
//! ```
//!
//! Without structs, a database is used by kind, id and field: [`Db::put`], [`Db::apply`], [`Db::view`]. That is also
//! the way to edit one field or key of an entity of thousands: an edit by closure reads and converts all of it.
//!
//! This crate owns what touches the machine: files, the clock, randomness. The merge is `rivus_core`.

mod alias;
mod any_store;
mod builder;
mod collect;
mod conflicts;
mod db;
mod entity;
mod error;
mod evict;
mod fields;
mod journal;
mod machine;
mod net;
mod others;
mod overlays;
mod projection;
mod reference;
mod rejections;
#[cfg(feature = "replay")]
pub mod replay;
mod save;
mod shared;
mod shows;
mod status;
mod subscription;
mod transaction;
mod upkeep;

/// What the derive writes names this crate from outside; its own tests derive too.
#[cfg(test)]
extern crate self as rivus;

pub use rivus_core;
pub use rivus_core::clock::{Admission, Millis};
pub use rivus_core::edit::{Action, EditError, Op, Presence};
pub use rivus_core::journal::{Change as LogChange, Entry as LogEntry, Keep as JournalKeep, What as LogWhat};
pub use rivus_core::projection::{Column, Holds, Layout, Projection, ProjectionError};
pub use rivus_core::replica::{
    CandidateExplanation, CollectError, Edited, Event, EvictError, Evicted, Explanation, FieldExplanation,
    Kept, Origin, RegisterExplanation, Rejected, Unresolved, Verification,
};
pub use rivus_core::rules::{self, Overlay};
pub use rivus_core::schema::{
    Candidate, CustomResolver, FieldType, KindBuilder, Life, Margin, OnClash, OnGone, Resolver, RuleType,
    Schema, SchemaError, SetWins, Side,
};
pub use rivus_core::session::Progress;
pub use rivus_core::store::StoreError;
pub use rivus_core::value::{Value, ValueError};
pub use rivus_core::view::{Shown, View};
pub use rivus_derive::Entity;
pub use rivus_sqlite::{Options as SqliteOptions, Synchronous, rusqlite};

pub use crate::builder::Builder;
pub use crate::collect::{Collectable, Collected, Lease};
pub use crate::conflicts::Conflict;
pub use crate::db::Db;
pub use crate::entity::Entity;
pub use crate::error::Error;
pub use crate::evict::Fetched;
pub use crate::fields::Fields;
pub use crate::journal::{LogFilter, UndoError, Undone};
pub use crate::machine::{derived_id, new_id};
#[cfg(feature = "jwt")]
pub use crate::net::Jwt;
pub use crate::net::{
    Access, Account, Authenticator, Authorizer, Background, Budget, By, Connection, Debounce, Delivery,
    Denial, ErrorClass, FRAME_BYTES_LEAST, Grant, Grants, Hub, HubOptions, Levers, Limits, Mode, Pause,
    Phase, Proposed, ProposedEntity, Pulled, Pushed, Reaction, Refusal, Remote, Restore, Rights, Scopes,
    ScopesError, Spot, SyncError, SyncReport, SyncState, Validator, Why, Write,
};
pub use crate::projection::{QueryParams, QueryRows, QuerySubscription};
pub use crate::reference::{Ref, Refers};
pub use crate::rejections::{Blocked, PendingEdit, Rejection};
pub use crate::save::{Changed, Saved};
pub use crate::shows::{ShowsEnd, ShowsMillis, ShowsText};
pub use crate::status::{AuthorityStatus, LeaseStatus, ScopeStatus, Status};
pub use crate::subscription::{Lagged, Subscription};
pub use crate::transaction::Transaction;
pub use crate::upkeep::Damaged;

/// The examples of the README are compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
