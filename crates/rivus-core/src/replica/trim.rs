//! Trimming: what is dead in an entity that lives.
//!
//! A key that was taken out of a set or map is a register of its own, which goes as whole entities go: under a mark. What
//! else wears registers out, writes that were seen to be replaced and candidates that show nothing, goes by raising the
//! register's floor, which is a change that joins like any other. Owns what may go, at an authority.

use super::marks::{Marked, marks_of, removed};
use super::{Meanwhile, Origin, Replica, STALE_RETRIES_MAX};
use crate::address::{LIFE, Parts, class};
use crate::clock::Millis;
use crate::id::StoreId;
use crate::register::{Reach, Register};
use crate::row::{Change, Confirmed, Corrupt, Entry, Row, decode_register, encode_register};
use crate::schema::{FieldType, Kind, Life, SetWins, Slot};
use crate::store::{CommitError, Store};
use crate::value::ABSENT;
use crate::view::{FALSE, TRUE, chosen, is_dead, reach};
use crate::work::{Scratch, Work, damaged};

/// How many registers are trimmed in one commit.
const REGISTERS_AT_ONCE: usize = 4096;

/// Registers of an entity: its kind, its id, and their addresses.
pub type Keys = (String, String, Vec<Vec<u8>>);

/// Up to when nothing may have happened to what goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    /// The stable cut: everybody has what is not above it.
    pub(super) cut: u64,
    /// The latest time of a write.
    pub(super) latest: u64,
}

/// What may go of a register.
enum Worn {
    /// All of it: it says that a key was taken out.
    Key,
    /// What is not in this one, as bytes.
    Below(Vec<u8>),
}

/// What was trimmed.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Trimmed {
    /// How many of the names that were given are done with, from the first on.
    pub(super) entities: usize,
    pub(super) keys: usize,
    pub(super) registers: usize,
}

impl Quiet {
    /// Whether anything may go of the registers of a row.
    pub(super) fn wears(self, kind: &Kind, row: Row<'_>) -> Result<bool, Corrupt> {
        let mut entries = row.entries();
        entries.try_fold(false, |found, entry| Ok(found || self.worn(kind, &entry?)?.is_some()))
    }

    fn worn(self, kind: &Kind, entry: &Entry<'_>) -> Result<Option<Worn>, Corrupt> {
        let shown = entry.shown()?;
        if entry.address.first() != Some(&class::KEY) && shown.as_plain().is_some() {
            return Ok(None);
        }
        let is_late = shown.alive.iter().any(|candidate| candidate.stamp.time > self.latest);
        if is_late {
            return Ok(None);
        }
        let state = entry.state()?;
        if state.seq > self.cut || state.confirmed != Confirmed::Same {
            return Ok(None);
        }
        let parts = Parts::parse(entry.address).ok_or(Corrupt)?;
        if is_out(kind, parts, &shown) {
            return Ok(Some(Worn::Key));
        }
        let Some(needless) = needless(kind, parts, &shown)? else { return Ok(None) };
        let raised = shown.raised(needless);
        // The floor alone is not worth telling everybody.
        if (raised.alive.len(), raised.seen.len()) == (shown.alive.len(), shown.seen.len()) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        encode_register(&raised, &mut bytes);
        Ok(Some(Worn::Below(bytes)))
    }

    /// What may go of an entity that lives, at most so many registers, ascending by address.
    fn worn_of(self, kind: &Kind, rows: &[Row<'_>], most: usize) -> Result<Vec<(Vec<u8>, Worn)>, Corrupt> {
        let mut all = Vec::new();
        let life = rows.first().map(|row| row.find(LIFE)).transpose()?.flatten();
        let lives = life.map(|life| life.shown()).transpose()?.is_some_and(|life| !is_dead(kind.life, &life));
        if !lives {
            return Ok(all);
        }
        for entry in rows.iter().flat_map(Row::entries) {
            let entry = entry?;
            if all.len() == most {
                break;
            }
            if let Some(worn) = self.worn(kind, &entry)? {
                all.push((entry.address.to_vec(), worn));
            }
        }
        Ok(all)
    }
}

/// Whether all that the register says is that a key was taken out.
fn is_out(kind: &Kind, parts: Parts<'_>, register: &Register<'_>) -> bool {
    let (class::KEY, Slot::Field(field)) = (parts.class, kind.slot(parts.name)) else { return false };
    let out = match field.ty {
        FieldType::Set { .. } => FALSE,
        FieldType::Map => ABSENT,
        _ => return false,
    };
    register.alive.iter().all(|candidate| candidate.value == out)
}

/// How many of the oldest candidates show nothing; `None` of a register that sheds by itself, or whose candidates the
/// application folds: what comes in late is worth more to it than the bytes.
fn needless(kind: &Kind, parts: Parts<'_>, register: &Register<'_>) -> Result<Option<usize>, Corrupt> {
    let alive = &register.alive;
    let last = alive.len() - 1;
    // What decides is the newest that says so, or that nobody does.
    let newest_that = |decides: &dyn Fn(&[u8]) -> bool| {
        Some(alive.iter().rposition(|candidate| decides(candidate.value)).unwrap_or(last))
    };
    Ok(match (parts.class, kind.slot(parts.name)) {
        (class::LIFE, _) => match kind.life {
            Life::DeleteWins => newest_that(&|value| value == FALSE),
            Life::EditRevives => newest_that(&|value| value != FALSE),
            Life::Newest => None,
        },
        (class::FIELD, Slot::Field(field)) if reach(field.ty.margin()) == Reach::Infinite => {
            match chosen(&field.ty, register)? {
                Some(shown) => alive.iter().position(|candidate| candidate.stamp == shown.stamp),
                None if field.ty == FieldType::Multi => Some(0),
                None => None,
            }
        }
        (class::KEY, Slot::Field(field)) => match field.ty {
            FieldType::Set { wins: SetWins::Add } => newest_that(&|value| value == TRUE),
            FieldType::Set { wins: SetWins::Remove } => newest_that(&|value| value != TRUE),
            _ => None,
        },
        _ => None,
    })
}

impl<S: Store> Replica<S> {
    /// What would go of an entity.
    pub(super) fn trimmable(&self, kind: &str, id: &str, quiet: Quiet) -> Result<Trimmed, CommitError> {
        let worn = self.worn_in(&mut Work::new(&self.store), (kind, id), quiet, usize::MAX)?;
        let keys = worn.iter().filter(|(_, worn)| matches!(worn, Worn::Key)).count();
        Ok(Trimmed { entities: 1, keys, registers: worn.len() - keys })
    }

    /// What may go of an entity, at most so many registers, ascending by address.
    fn worn_in(
        &self,
        work: &mut Work<'_, S>,
        (kind, id): (&str, &str),
        quiet: Quiet,
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Worn)>, CommitError> {
        let Some(declared) = self.schema.kind(kind) else { return Ok(Vec::new()) };
        let at = work.entity(kind, id);
        let worn = quiet.worn_of(declared, &work.rows(at)?, most);
        Ok(worn.map_err(|corrupt| damaged(kind, id, corrupt))?)
    }

    /// Trims these entities in one commit, the first ones if there is much to trim.
    pub(super) fn trim_these(
        &mut self,
        names: &[(String, String)],
        quiet: Quiet,
    ) -> Result<Trimmed, CommitError> {
        let since = self.store.head()?.seq;
        let mut done = Trimmed::default();
        let staged = self.store.together(|| {
            let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
            work.look_out(self.witness()?);
            let (mut marked, mut left) = (Vec::new(), REGISTERS_AT_ONCE);
            for (kind, id) in names {
                let worn = self.worn_in(&mut work, (kind, id), quiet, left)?;
                let at = work.entity(kind, id);
                left -= worn.len();
                let mut changes = Vec::with_capacity(worn.len());
                let mut addresses = Vec::new();
                for (address, worn) in &worn {
                    changes.push((
                        address,
                        match worn {
                            Worn::Key => Change::Forget,
                            Worn::Below(bytes) => {
                                let register =
                                    decode_register(bytes).map_err(|cut| damaged(kind, id, cut.into()))?;
                                Change::Join { register, source: None }
                            }
                        },
                    ));
                    if matches!(worn, Worn::Key) {
                        addresses.push(address.clone());
                    }
                }
                work.apply(at, &changes)?;
                (done.keys, done.registers) =
                    (done.keys + addresses.len(), done.registers + changes.len() - addresses.len());
                if !addresses.is_empty() {
                    let mut scopes = self.store.left_by(kind, id)?;
                    scopes.push(work.scope(at)?);
                    marked.push(Marked { addresses, scopes, ..Marked::of(kind, id) });
                }
                if left == 0 {
                    break;
                }
                done.entities += 1;
            }
            let finished = work.finish()?;
            let seq = since + finished.written();
            let records = if marked.is_empty() { Vec::new() } else { marks_of(seq, &marked, self.marks()?) };
            Ok::<_, CommitError>((finished, records))
        })?;
        let (finished, records) = staged?;
        if finished.written() > 0 {
            let meanwhile = Meanwhile::Nothing { since, high_water: None };
            self.commit(finished, records, meanwhile, Origin::Local)?;
            tracing::info!(
                keys = done.keys,
                registers = done.registers,
                "trimmed what is dead in what lives"
            );
        }
        Ok(done)
    }

    /// Drops the keys that the authority has collected. Pending edits of them are refused, and listed. Says how many edits
    /// were.
    ///
    /// # Errors
    /// [`CommitError`]; the next call with the same keys does what is left.
    pub(crate) fn follow_trimming(
        &mut self,
        now: Millis,
        authority: StoreId,
        keys: &[Keys],
    ) -> Result<usize, CommitError> {
        self.now = now;
        let mut refused = 0;
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            refused += self.refuse_late(now, &mut |one| {
                let of = keys.iter().filter(|(kind, id, _)| one.kind == kind && one.id == id);
                let mut addresses = of.flat_map(|(_, _, addresses)| addresses);
                let late = addresses.find(|address| one.registers.iter().any(|(at, _)| at == address))?;
                Some(removed(one.kind.to_owned(), one.id.to_owned(), late))
            })?;
            let since = self.store.head()?.seq;
            let staged = self.store.together(|| {
                let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
                for (kind, id, addresses) in keys {
                    let at = work.entity(kind, id);
                    let mut held = Vec::new();
                    for address in addresses {
                        let row = work.row(at, address)?;
                        if row.lacks(address).map_err(|corrupt| damaged(kind, id, corrupt))? {
                            held.push((address, Change::Forget));
                            continue;
                        }
                        let state = row.state(address).map_err(|corrupt| damaged(kind, id, corrupt))?;
                        let Some(state) = state else { continue };
                        if state.confirmed != Confirmed::Same {
                            // Somebody has just edited it.
                            return Err(CommitError::Stale);
                        }
                        held.push((address, Change::Forget));
                    }
                    held.sort_by(|a, b| a.0.cmp(b.0));
                    held.dedup_by(|a, b| a.0 == b.0);
                    work.apply(at, &held)?;
                }
                work.finish()
            })?;
            let done = staged.and_then(|finished| {
                let meanwhile = Meanwhile::Nothing { since, high_water: None };
                self.commit(finished, Vec::new(), meanwhile, Origin::Remote(authority))
            });
            match done {
                Ok(_) => return Ok(refused),
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address;
    use crate::clock::Stamp;
    use crate::id::ReplicaId;
    use crate::register::Candidate;
    use crate::schema::{CustomResolver, Margin, Resolver, Schema};
    use crate::value::Value;

    const FOREVER: Margin = Margin::Infinite;

    fn schema() -> Schema {
        let newest =
            CustomResolver { name: "last".to_owned(), f: std::sync::Arc::new(|all| all[0].value.clone()) };
        let built_in = [Resolver::Newest, Resolver::Oldest, Resolver::Rank, Resolver::Min, Resolver::Max];
        let names = ["newest", "oldest", "rank", "least", "greatest"];
        let kind = |mut k: crate::schema::KindBuilder| {
            for (name, resolver) in names.iter().zip(built_in.clone()) {
                k = k.value_with(*name, FOREVER, resolver);
            }
            k.value("plain")
                .value_with("near", Margin::Ms(5), Resolver::Newest)
                .value_with("folded", FOREVER, Resolver::Custom(newest.clone()))
                .multi("all")
                .max("max")
                .flag("flag")
                .set("adds")
                .set_with("removes", SetWins::Remove)
                .map("map")
        };
        let revives = |k: crate::schema::KindBuilder| k.life(Life::EditRevives);
        let newest = |k: crate::schema::KindBuilder| k.life(Life::Newest);
        Schema::builder().kind("k", kind).kind("r", revives).kind("n", newest).build().unwrap()
    }

    /// A register whose candidates, oldest first, have these ranks and values.
    fn register(alive: &[(u8, &'static [u8])]) -> Register<'static> {
        let candidates = alive.iter().zip(1..).map(|((rank, value), n)| {
            let stamp = Stamp { generation: 0, time: 10 + n, replica: ReplicaId::from_u128(u128::from(n)) };
            Candidate { stamp, rank: *rank, saw: None, value }
        });
        Register { floor: Stamp::LOWEST, alive: candidates.collect::<Vec<_>>().into(), seen: Vec::new() }
    }

    #[test]
    fn the_candidates_that_go_are_those_without_which_it_shows_the_same() {
        let schema = schema();
        let one: &[u8] = &[1];
        let two: &[u8] = &[2];
        let three: &[u8] = &[3];
        let cases: [(&str, Vec<u8>, Register<'_>, Option<usize>); 24] = [
            ("k", address::field("plain"), register(&[(0, one), (0, two)]), None),
            ("k", address::field("near"), register(&[(0, one), (0, two)]), None),
            ("k", address::field("folded"), register(&[(0, one), (0, two)]), None),
            ("k", address::field("unknown"), register(&[(0, one), (0, two)]), None),
            ("unknown", address::field("all"), register(&[(0, one), (0, two)]), None),
            ("k", address::field("all"), register(&[(0, one), (0, two)]), Some(0)),
            ("k", address::field("newest"), register(&[(0, one), (0, two), (0, three)]), Some(2)),
            ("k", address::field("oldest"), register(&[(0, one), (0, two), (0, three)]), Some(0)),
            ("k", address::field("rank"), register(&[(0, one), (9, two), (0, three)]), Some(1)),
            ("k", address::field("least"), register(&[(0, two), (0, one), (0, three)]), Some(1)),
            ("k", address::field("greatest"), register(&[(0, two), (0, three), (0, one)]), Some(1)),
            ("k", address::field("max"), register(&[(0, three), (0, two), (0, one)]), Some(0)),
            ("k", address::field("max"), register(&[(0, one), (0, two), (0, three)]), Some(2)),
            ("k", address::field("flag"), register(&[(0, FALSE), (0, TRUE), (0, FALSE)]), Some(1)),
            ("k", address::key("adds", "x"), register(&[(0, FALSE), (0, TRUE), (0, FALSE)]), Some(1)),
            ("k", address::key("removes", "x"), register(&[(0, TRUE), (0, FALSE), (0, TRUE)]), Some(1)),
            ("k", address::key("removes", "x"), register(&[(0, TRUE), (0, TRUE)]), Some(1)),
            ("k", address::key("map", "x"), register(&[(0, one), (0, two)]), None),
            ("k", address::group("all"), register(&[(0, one), (0, two)]), None),
            ("k", LIFE.to_vec(), register(&[(0, TRUE), (0, FALSE), (0, TRUE)]), Some(1)),
            ("k", LIFE.to_vec(), register(&[(0, TRUE), (0, TRUE)]), Some(1)),
            ("r", LIFE.to_vec(), register(&[(0, FALSE), (0, TRUE), (0, FALSE)]), Some(1)),
            ("r", LIFE.to_vec(), register(&[(0, FALSE), (0, FALSE)]), Some(1)),
            ("n", LIFE.to_vec(), register(&[(0, FALSE), (0, TRUE)]), None),
        ];
        for (kind, address, register, expected) in cases {
            let parts = Parts::parse(&address).unwrap();
            let found = schema.kind(kind).map(|kind| needless(kind, parts, &register).unwrap());
            assert_eq!(found.flatten(), expected, "{kind} {parts:?} {register:?}");
        }
        let value = |register: &Register<'_>| Value::decode(register.newest().value);
        assert_eq!(value(&register(&[(0, three)])), Ok(Value::Int(3)), "what they are called");
    }

    #[test]
    fn only_what_says_no_more_than_that_a_key_is_out_goes_whole() {
        let schema = schema();
        let kind = schema.kind("k").unwrap();
        let null: &[u8] = crate::view::NULL;
        let cases: [(&str, Register<'_>, bool); 9] = [
            ("adds", register(&[(0, FALSE), (0, FALSE)]), true),
            ("removes", register(&[(0, FALSE)]), true),
            ("adds", register(&[(0, TRUE)]), false),
            // Who put it in has yet to be told.
            ("removes", register(&[(0, TRUE), (0, FALSE)]), false),
            ("map", register(&[(0, ABSENT)]), true),
            ("map", register(&[(0, FALSE)]), false),
            ("map", register(&[(0, null)]), false),
            ("adds", register(&[(0, ABSENT)]), false),
            ("all", register(&[(0, FALSE)]), false),
        ];
        for (field, register, expected) in cases {
            let address = address::key(field, "x");
            assert_eq!(
                is_out(kind, Parts::parse(&address).unwrap(), &register),
                expected,
                "{field} {register:?}"
            );
        }
        assert!(!is_out(kind, Parts::parse(&address::field("adds")).unwrap(), &register(&[(0, FALSE)])));
    }
}
