//! What a database says of itself.

use rivus_core::clock::Millis;
use std::collections::{BTreeMap, BTreeSet};

use rivus_core::replica::Replica;
use rivus_core::store::{Store, StoreError};
use serde::Serialize;

use crate::any_store::AnyStore;

/// Where a database stands; see [`Db::status`](crate::Db::status). Ids and digests are in hexadecimal.
///
/// ```
/// # use rivus::{Db, Schema};
/// let db = Db::memory(Schema::open())?;
/// db.put("task", "t1", [("title", "write".into())])?;
/// let status = db.status()?;
/// assert_eq!((status.seq, status.entities, status.pending), (1, 1, 0));
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The store's id.
    pub store: String,
    /// The id under which this handle writes.
    pub replica: String,
    /// The number of the last change.
    pub seq: u64,
    /// The digest of all that shows: equal where the same data is.
    pub digest: String,
    /// How many registers are confirmed, evicted ones among them: without an authority, all.
    pub registers: u64,
    /// How many entities are held, deleted ones among them.
    pub entities: usize,
    /// How many entities are evicted: the hub alone has them whole.
    pub evicted: usize,
    /// How many registers of theirs are at the hub alone.
    pub evicted_registers: u64,
    /// The scopes that are held here or followed, sorted; none if no kind has a scope.
    pub scopes: Vec<ScopeStatus>,
    /// How many edits wait for the authority's verdict.
    pub pending: usize,
    /// When the oldest of them was made, in ms since 1970.
    pub pending_since_ms: Option<i64>,
    /// How many of them are not sent because they refer to what was refused.
    pub blocked: usize,
    /// How many edits the authority refused.
    pub rejected: usize,
    /// How many writes from the future are set aside.
    pub quarantined: usize,
    /// Why rules are not evaluated here, if they are not.
    pub unresolved: Option<String>,
    /// How many fields, and lives of kinds, other programs have declared for this store and this one has not: it may
    /// show them otherwise.
    pub undeclared: usize,
    /// Whether this store is an authority itself.
    pub is_authority: bool,
    /// The authority that judges this store's edits.
    pub authority: Option<AuthorityStatus>,
    /// Of an authority: for whom it waits before it forgets what is deleted.
    pub leases: Option<LeaseStatus>,
}

/// For how many databases a hub waits before it forgets what is deleted; [`Db::leases`](crate::Db::leases) has them all.
///
/// ```
/// # use rivus::{Db, Schema};
/// let db = Db::memory(Schema::open())?;
/// assert_eq!(db.status()?.leases, None);
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct LeaseStatus {
    /// How many leases run.
    pub running: usize,
    /// How many have run out.
    pub ended: usize,
    /// Up to which change every database with a running lease has everything.
    pub cut: u64,
    /// The store id of one that has no more than that, unless all have everything.
    pub held_by: Option<String>,
}

/// One scope of a database; see [`Db::scopes`](crate::Db::scopes).
///
/// ```
/// # use rivus::{Db, Schema};
/// let schema = Schema::builder().kind("note", |k| k.value("list").scope("list")).build()?;
/// let db = Db::memory(schema)?;
/// db.put("note", "n1", [("list", "home".into())])?;
/// let scopes = db.scopes()?;
/// assert_eq!((scopes[0].name.as_str(), scopes[0].registers), ("home", 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct ScopeStatus {
    /// Its name; empty for the default scope.
    pub name: String,
    /// How many registers of it are confirmed here.
    pub registers: u64,
    /// The digest of those, in hexadecimal.
    pub digest: String,
    /// Whether it is followed by name.
    pub followed: bool,
}

/// The scopes that are held or followed.
pub(crate) fn scopes_of(replica: &Replica<AnyStore>) -> Result<Vec<ScopeStatus>, StoreError> {
    let held = replica.scopes()?.into_iter().map(|(name, _)| name);
    let followed = match replica.identity().authority {
        Some(authority) => replica.cursors_in(authority.store)?,
        None => BTreeMap::new(),
    };
    let names: BTreeSet<String> = held.chain(followed.keys().cloned()).collect();
    let status = |name: String| {
        let digest = replica.digest_of(&name)?;
        let followed = followed.contains_key(&name);
        let (registers, digest) = (digest.count, format!("{:032x}", digest.confirmed));
        Ok(ScopeStatus { name, registers, digest, followed })
    };
    names.into_iter().map(status).collect()
}

/// What a database knows of its authority.
///
/// ```
/// # use rivus::{Db, Schema};
/// let db = Db::memory(Schema::open())?;
/// assert_eq!(db.status()?.authority, None);
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct AuthorityStatus {
    /// Its store id.
    pub store: String,
    /// The rank that it granted.
    pub rank: u8,
    /// Its greatest change number at which an edit of this store was accepted.
    pub acked: u64,
    /// What is added to this machine's clock because the authority found it wrong, in ms.
    pub correction_ms: i64,
}

impl Status {
    pub(crate) fn of(replica: &Replica<AnyStore>, now: Millis) -> Result<Self, StoreError> {
        let (head, identity) = (replica.head()?, replica.identity());
        let (pending, since) = crate::net::pending(replica)?;
        let (mut entities, evicted) = (0_usize, replica.evicted()?);
        for kind in replica.store().kinds()? {
            each_id(replica.store(), &kind, |_| {
                entities += 1;
                Ok(())
            })?;
        }
        Ok(Self {
            store: identity.store.to_string(),
            replica: replica.id().to_string(),
            seq: head.seq,
            digest: format!("{:032x}", head.digest.shown),
            registers: head.digest.count,
            entities: entities.saturating_sub(evicted.entities),
            evicted: evicted.entities,
            evicted_registers: evicted.registers,
            scopes: scopes_of(replica)?,
            pending,
            pending_since_ms: since.map(|since| since.0),
            blocked: replica.blocked()?.len(),
            rejected: replica.rejected()?.len(),
            quarantined: replica.quarantined()?,
            unresolved: replica.unresolved().map(|unresolved| unresolved.to_string()),
            undeclared: replica.undeclared()?,
            is_authority: identity.is_authority,
            authority: identity.authority.map(|authority| AuthorityStatus {
                store: authority.store.to_string(),
                rank: authority.rank,
                acked: authority.acked,
                correction_ms: authority.correction_ms,
            }),
            leases: if identity.is_authority { Some(LeaseStatus::of(replica, now)?) } else { None },
        })
    }
}

impl LeaseStatus {
    fn of(replica: &Replica<AnyStore>, now: Millis) -> Result<Self, StoreError> {
        let (leases, cut) = (replica.leases()?, replica.stable_cut(now)?);
        let running = leases.iter().filter(|lease| lease.is_running(now)).count();
        let held_by = cut.held_by.map(|store| store.to_string());
        Ok(Self { running, ended: leases.len() - running, cut: cut.seq, held_by })
    }
}

/// Visits all ids of a kind, in order.
pub(crate) fn each_id(
    store: &AnyStore,
    kind: &str,
    mut visit: impl FnMut(String) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let ids = store.ids(kind, after.as_deref(), IDS_PER_PAGE)?;
        let Some(last) = ids.last().cloned() else { return Ok(()) };
        ids.into_iter().try_for_each(&mut visit)?;
        after = Some(last);
    }
}

/// How many ids are read at once: enough that reading them costs little per id.
const IDS_PER_PAGE: usize = 1024;
