//! Edits that the authority refused, and those that wait for one of them.

use std::collections::BTreeMap;

use rivus_core::clock::Stamp;
use rivus_core::code::Code;
use rivus_core::edit::{Action, Op};
use rivus_core::replica::{self, Edited, Replica};
use rivus_core::store::{Store, StoreError};
use rivus_core::value::Json;
use serde::{Serialize, Serializer};

use crate::net::Control;
use crate::{Db, Error};

/// An edit that the authority refused. It was taken back when the answer came; this is what is left of it.
///
/// ```
/// # use rivus::{Db, Schema};
/// # let db = Db::memory(Schema::open())?;
/// for rejection in db.rejections()? {
///     println!("{}: {} {:?}: {}", rejection.code, rejection.kind, rejection.field, rejection.reason);
/// }
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Rejection {
    /// Its key, which stays its own.
    pub key: u64,
    /// Why.
    pub code: Code,
    /// Why, in words, and what to do.
    pub reason: String,
    /// The kind of the entity that the refusal is about; the first of the edit if the authority did not say.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The field, if it is about one.
    pub field: Option<String>,
    /// What it was to do.
    pub ops: Vec<Op>,
}

/// An edit that no hub has accepted yet; see [`Db::pending`].
///
/// ```
/// # use std::collections::BTreeSet;
/// # use rivus::{Db, Schema};
/// # let db = Db::memory(Schema::open())?;
/// let edits = db.pending()?;
/// let unsynced: BTreeSet<_> = edits.iter().flat_map(|edit| &edit.ops).map(|op| (&op.kind, &op.id)).collect();
/// assert!(unsynced.is_empty());
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PendingEdit {
    /// Its key, which stays its own, also if it is refused.
    pub key: u64,
    /// When it was made.
    pub stamp: Stamp,
    /// Whether it is on its way to the hub.
    pub sent: bool,
    /// What it is to do.
    pub ops: Vec<Op>,
}

/// Reads the pending edits.
fn pending_edits<S: Store>(replica: &Replica<S>, control: &Control) -> Result<Vec<PendingEdit>, Error> {
    let (mut pending, mut failed) = (Vec::new(), false);
    replica.pending(0, &mut |key, edit| {
        match edit.ops() {
            Ok(ops) => {
                let sent = control.was_sent(key);
                pending.push(PendingEdit { key, stamp: edit.header.stamp, sent, ops });
            }
            Err(_) => failed = true,
        }
        std::ops::ControlFlow::Continue(())
    })?;
    if failed {
        return Err(StoreError::Damaged("a pending edit is unreadable".to_owned()).into());
    }
    Ok(pending)
}

impl Rejection {
    fn of(rejected: replica::Rejected) -> Self {
        let replica::Rejected { key, code, message, spot, ops } = rejected;
        let (kind, id, field) = match spot {
            Some(spot) => (spot.kind, spot.id, spot.field),
            None => {
                let (kind, id) = ops.first().map(|op| (op.kind.clone(), op.id.clone())).unwrap_or_default();
                (kind, id, only_field(&ops).map(str::to_owned))
            }
        };
        Self { key, code, reason: message, kind, id, field, ops }
    }
}

/// A pending edit that is not sent, because it refers to an entity whose creation was refused.
///
/// It goes by itself once that entity is there: after [`Db::retry_rejected`], or a new edit that creates it.
///
/// ```
/// # use rivus::{Db, Schema};
/// # let db = Db::memory(Schema::open())?;
/// for blocked in db.blocked()? {
///     println!("edit {} waits for {} `{}`", blocked.key, blocked.root_kind, blocked.root_id);
/// }
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Blocked {
    /// Its key.
    pub key: u64,
    /// The kind of the entity that it waits for.
    pub root_kind: String,
    /// The id of the entity that it waits for.
    pub root_id: String,
    /// What it is to do.
    pub ops: Vec<Op>,
}

impl Db {
    /// The edits that the authority refused and of which nobody has said yet what becomes of them, oldest first.
    ///
    /// A refused edit holds up no other. It is off the list once each of its fields is written anew, after
    /// [`Db::retry_rejected`], and after [`Db::discard_rejected`].
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// assert!(db.rejections()?.is_empty());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn rejections(&self) -> Result<Vec<Rejection>, Error> {
        Ok(self.lock()?.rejected()?.into_iter().map(Rejection::of).collect())
    }

    /// Does what a refused edit was to do once more, as a new edit: the reason may be gone. `None` if none has this key.
    ///
    /// # Errors
    /// [`Error::Edit`] or [`Error::Store`]: it is listed still.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// assert_eq!(db.retry_rejected(7)?, None);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn retry_rejected(&self, key: u64) -> Result<Option<Edited>, Error> {
        let now = self.shared.clock.now();
        Ok(self.lock()?.retry_rejected(now, key)?)
    }

    /// Takes a refused edit off the list: what shows without it is right. `false` if none has this key. What was blocked
    /// by it is sent then, whatever it refers to.
    ///
    /// # Errors
    /// [`Error::Store`]: it is listed still.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// assert!(!db.discard_rejected(7)?);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn discard_rejected(&self, key: u64) -> Result<bool, Error> {
        let discarded = self.lock()?.discard_rejected(key)?;
        if discarded {
            // What it blocked may go now.
            self.shared.changes.send_modify(|changes| *changes += 1);
        }
        Ok(discarded)
    }

    /// The pending edits that wait for a refused one, in order.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// assert!(db.blocked()?.is_empty());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn blocked(&self) -> Result<Vec<Blocked>, Error> {
        let blocked = self.lock()?.blocked()?;
        let of = |blocked: replica::Blocked| {
            let replica::Blocked { key, root: (root_kind, root_id), ops } = blocked;
            Blocked { key, root_kind, root_id, ops }
        };
        Ok(blocked.into_iter().map(of).collect())
    }

    /// The edits that no hub has accepted yet, oldest first, with what they are to do: for a mark on what is not synced. None
    /// without an authority.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// phone.sync(&served.url().into()).await?;
    /// phone.put("task", "t1", [("title", "write".into())])?;
    /// let edits = phone.pending()?;
    /// assert!(edits.len() == 1 && edits[0].ops[0].id == "t1" && !edits[0].sent);
    /// phone.sync(&served.url().into()).await?;
    /// assert!(phone.pending()?.is_empty());
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn pending(&self) -> Result<Vec<PendingEdit>, Error> {
        pending_edits(&*self.lock()?, &self.shared.sync)
    }

    /// Everything that this device has and no hub has accepted, for keeping elsewhere: pending and refused edits, what
    /// they are to do, why they were refused or what they wait for. It serialises to JSON.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// let json = serde_json::to_string(&db.export_pending()?).unwrap();
    /// assert_eq!(json, r#"{"pending":[],"rejected":[]}"#);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn export_pending(&self) -> Result<impl Serialize + use<>, Error> {
        let replica = self.lock()?;
        let mut blocked = BTreeMap::new();
        for replica::Blocked { key, root, .. } in replica.blocked()? {
            blocked.insert(key, root);
        }
        let of = |edit: PendingEdit| PendingJson {
            key: edit.key,
            stamp: edit.stamp.to_string(),
            blocked_by: blocked.remove(&edit.key),
            ops: edit.ops.into_iter().map(OpJson).collect(),
        };
        let pending = pending_edits(&replica, &self.shared.sync)?.into_iter().map(of).collect();
        let rejected = replica.rejected()?.into_iter().map(Rejection::of).map(RejectedJson::of).collect();
        Ok(ExportJson { pending, rejected })
    }
}

/// The one field that operations are about, if there is one.
fn only_field(ops: &[Op]) -> Option<&str> {
    let mut fields = ops.iter().flat_map(|op| match &op.action {
        Action::Put(fields) => fields.iter().map(|(field, _)| Some(field.as_str())).collect::<Vec<_>>(),
        Action::Add { field, .. }
        | Action::Remove { field, .. }
        | Action::SetKey { field, .. }
        | Action::Inc { field, .. } => vec![Some(field.as_str())],
        _ => vec![None],
    });
    let first = fields.next().flatten()?;
    fields.all(|field| field == Some(first)).then_some(first)
}

#[derive(Serialize)]
struct ExportJson {
    pending: Vec<PendingJson>,
    rejected: Vec<RejectedJson>,
}

#[derive(Serialize)]
struct PendingJson {
    key: u64,
    stamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_by: Option<(String, String)>,
    ops: Vec<OpJson>,
}

#[derive(Serialize)]
struct RejectedJson {
    key: u64,
    code: u16,
    reason: String,
    kind: String,
    id: String,
    field: Option<String>,
    ops: Vec<OpJson>,
}

impl RejectedJson {
    fn of(rejection: Rejection) -> Self {
        let Rejection { key, code, reason, kind, id, field, ops } = rejection;
        Self { key, code: code.0, reason, kind, id, field, ops: ops.into_iter().map(OpJson).collect() }
    }
}

struct OpJson(Op);

impl Serialize for OpJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Act<'o> {
            Put(BTreeMap<&'o str, Json<'o>>),
            Add(&'o str, &'o str),
            Remove(&'o str, &'o str),
            SetKey(&'o str, &'o str, Json<'o>),
            Inc(&'o str, i64),
            Delete,
            Revive,
            Alias(&'o str),
        }
        #[derive(Serialize)]
        struct Form<'o> {
            kind: &'o str,
            id: &'o str,
            action: Act<'o>,
        }
        let action = match &self.0.action {
            Action::Put(fields) => {
                Act::Put(fields.iter().map(|(name, value)| (name.as_str(), Json(value))).collect())
            }
            Action::Add { field, key } => Act::Add(field, key),
            Action::Remove { field, key } => Act::Remove(field, key),
            Action::SetKey { field, key, value } => Act::SetKey(field, key, Json(value)),
            Action::Inc { field, by } => Act::Inc(field, *by),
            Action::Delete => Act::Delete,
            Action::Revive => Act::Revive,
            Action::Alias { to } => Act::Alias(to),
        };
        Form { kind: &self.0.kind, id: &self.0.id, action }.serialize(serializer)
    }
}
