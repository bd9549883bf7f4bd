//! Following the rows: the index after a commit, and whose view that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::index::{
    CLAIMS, DANGLING, ENTRIES, MEMBERS, NAMES, OPEN, REFERRERS, decode_entries, encode_entries, prefix,
    value_len,
};
use super::{Facts, Rules, Stratum, What, reference, rivals, unique};
use crate::canary::{Canary, is_on};
use crate::schema::{OnClash, OnGone};
use crate::store::{CommitError, Store, StoreError};
use crate::value::Value;
use crate::work::{At, Work};

/// What may have changed of an entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Dirt {
    /// Anything that rules read.
    pub(crate) any: bool,
    /// What the keys in the index are made of.
    pub(crate) keys: bool,
    /// Whether it is there.
    pub(crate) life: bool,
}

/// By entity, in the order in which they are staged.
type Dirty = BTreeMap<usize, Dirt>;

impl<S: Store> Work<'_, S> {
    /// Brings the index to what the staged rows say.
    pub(crate) fn settle(&mut self) -> Result<(), CommitError> {
        let Some(rules) = self.rules() else { return Ok(()) };
        for (kind, id) in std::mem::take(&mut self.repointed) {
            self.mark_way(&kind, &id)?;
        }
        let mut dirty = self.take_dirt();
        if dirty.is_empty() {
            return Ok(());
        }
        for rule in 0..rules.strata.len() {
            self.settle_rule(rules, rule, &mut dirty)?;
        }
        if self.tells() {
            self.swayed.extend(dirty.into_keys());
        }
        Ok(())
    }

    fn settle_rule(&mut self, rules: &Rules, rule: usize, dirty: &mut Dirty) -> Result<(), CommitError> {
        let stratum = rules.stratum(rule);
        let asks = self.tells() || stratum.is_read;
        let of_kind: Vec<(At, Dirt)> = self.dirty_of(dirty, &stratum.kind);
        if matches!(stratum.what, What::Bound { .. } | What::Expr { .. }) {
            if stratum.is_read {
                // What it shows may be in the key of a later rule.
                dirty.extend(of_kind.into_iter().map(|(at, dirt)| (at.index(), Dirt { keys: true, ..dirt })));
            }
            return Ok(());
        }
        let mut swayed: BTreeSet<usize> = BTreeSet::new();
        for (at, dirt) in of_kind {
            if !dirt.keys && !asks {
                continue;
            }
            let id = self.staged(at).id().to_owned();
            let facts = self.shown_at(rules, at, rule)?;
            if facts.deleted && is_on(Canary::IndexKeepsDeleted) {
                continue;
            }
            let keys = entries(rule, stratum, &id, &facts);
            let gone = if dirt.keys { self.enter(rule, &id, &keys)? } else { Vec::new() };
            if asks {
                swayed.insert(at.index());
                for key in gone.iter().chain(&keys) {
                    self.sway(stratum, rule, &id, key, &mut swayed)?;
                }
            }
        }
        if !asks {
            return Ok(());
        }
        if let What::Reference { to, on_gone, .. } = &stratum.what {
            let targets = self.dirty_of(dirty, to).into_iter().filter(|(_, dirt)| dirt.life);
            let targets = targets.map(|(at, _)| at).collect();
            self.sway_by_life(rules, rule, *on_gone, targets, &mut swayed)?;
        }
        let life = match &stratum.what {
            What::Reference { on_gone, .. } => *on_gone != OnGone::Nullify,
            What::Unique { on_clash, .. } => *on_clash == OnClash::Alias,
            _ => false,
        };
        for at in swayed {
            let dirt = dirty.entry(at).or_default();
            *dirt = Dirt { any: true, keys: true, life: dirt.life | life };
        }
        Ok(())
    }

    fn dirty_of(&self, dirty: &Dirty, kind: &str) -> Vec<(At, Dirt)> {
        let all = dirty.iter().map(|(at, dirt)| (At::new(*at), *dirt));
        all.filter(|(at, _)| self.staged(*at).kind() == kind).collect()
    }

    /// Whose view changes with the life of these.
    fn sway_by_life(
        &mut self,
        rules: &Rules,
        rule: usize,
        on_gone: OnGone,
        targets: Vec<At>,
        swayed: &mut BTreeSet<usize>,
    ) -> Result<(), CommitError> {
        let stratum = rules.stratum(rule);
        let What::Reference { to, field, .. } = &stratum.what else { return Ok(()) };
        let is_self = stratum.kind == *to;
        let mut next = targets;
        if is_self && on_gone != OnGone::Nullify {
            // What is gone, or kept, on account of another passes it on.
            next.extend(swayed.iter().map(|at| At::new(*at)));
        }
        let mut seen = BTreeSet::new();
        while let Some(at) = next.pop() {
            if !seen.insert(at.index()) {
                continue;
            }
            let further = if on_gone == OnGone::Keep {
                if !is_self {
                    continue;
                }
                match self.shown_at(rules, at, rule)?.value(*field) {
                    Value::Text(target) => vec![target.clone()],
                    _ => Vec::new(),
                }
            } else {
                self.referrers(rule, self.staged(at).id())?
            };
            for id in further {
                let at = self.entity(&stratum.kind, &id);
                swayed.insert(at.index());
                if is_self && on_gone != OnGone::Nullify {
                    next.push(at);
                }
            }
        }
        Ok(())
    }

    /// Who else shows otherwise on account of the entry of `id` at `key`, which came, went or changed.
    fn sway(
        &mut self,
        stratum: &Stratum,
        rule: usize,
        id: &str,
        key: &[u8],
        swayed: &mut BTreeSet<usize>,
    ) -> Result<(), CommitError> {
        let mut kind = &stratum.kind;
        let ids: Vec<String> = match (&stratum.what, key.get(2)) {
            (What::AtMostOne { .. }, Some(&CLAIMS)) => self.stopped_by(rule, key)?.into_iter().collect(),
            (What::Unique { .. }, Some(&NAMES)) => self.renamed_by(rule, key, id)?,
            (What::Reference { on_gone: OnGone::Keep, to, .. }, _) => {
                kind = to;
                reference::target_of(key).map(str::to_owned).into_iter().collect()
            }
            (What::Custom(_), _) => {
                let rest = key.get(3..).unwrap_or_default();
                let group = rest.get(..value_len(rest).unwrap_or(rest.len())).unwrap_or_default();
                self.members(rule, group)?
            }
            _ => Vec::new(),
        };
        for id in ids {
            swayed.insert(self.entity(kind, &id).index());
        }
        Ok(())
    }

    /// Puts an entity's keys in place of those that it had, and gives those that are gone.
    fn enter(&mut self, rule: usize, id: &str, keys: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, CommitError> {
        let own = prefix(rule, ENTRIES, &[id.as_bytes()]);
        let before = self.index().get(&own)?.unwrap_or_default();
        let list = encode_entries(keys.iter().map(Vec::as_slice));
        if list == before {
            return Ok(Vec::new());
        }
        let mut gone: BTreeSet<Vec<u8>> = decode_entries(&before)?.into_iter().collect();
        for key in keys {
            if !gone.remove(key) {
                self.entered.insert(key.clone(), Some(Vec::new()));
            }
        }
        for key in &gone {
            self.entered.insert(key.clone(), None);
        }
        self.entered.insert(own, (!list.is_empty()).then_some(list));
        Ok(gone.into_iter().collect())
    }

    /// The entities of a kind on which something may be laid, as the index tells; `None` if that may be all.
    pub(crate) fn candidates(
        &self,
        rules: &Rules,
        kind: &str,
    ) -> Result<Option<BTreeSet<String>>, StoreError> {
        let Some(watch) = rules.watch(kind) else { return Ok(Some(BTreeSet::new())) };
        let mut ids = BTreeSet::new();
        let mut parts = Vec::new();
        for rule in watch.lay.iter().copied() {
            parts.extend(match &rules.stratum(rule).what {
                What::AtMostOne { .. } => vec![(rule, OPEN)],
                What::Unique { .. } => vec![(rule, NAMES)],
                What::Reference { .. } => vec![(rule, REFERRERS), (rule, DANGLING)],
                What::Bound { .. } | What::Expr { .. } | What::Custom(_) => return Ok(None),
            });
        }
        for (rule, part) in parts {
            let keeps = matches!(&rules.stratum(rule).what, What::Reference { on_gone: OnGone::Keep, .. });
            let prefix = prefix(rule, part, &[]);
            let mut last: Vec<u8> = Vec::new();
            self.index().visit(&prefix, None, &mut |end, _| {
                // What is looked for, as long as it says where it ends, and those who are found.
                let group = match part {
                    DANGLING => 0,
                    REFERRERS => end.first_chunk().map_or(0, |len| 2 + usize::from(u16::from_be_bytes(*len))),
                    NAMES => {
                        let group = value_len(end).unwrap_or(0);
                        group + end.get(group..).and_then(value_len).unwrap_or(0)
                    }
                    _ => value_len(end).unwrap_or(0),
                };
                let (group, rest) = end.split_at_checked(group).unwrap_or((end, &[]));
                // The first to bear a name shows it.
                let is_first = last != group;
                if is_first {
                    last = group.to_vec();
                }
                let id = match part {
                    DANGLING if keeps => return Ok(ControlFlow::Break(())),
                    REFERRERS if keeps => std::str::from_utf8(group.get(2..).unwrap_or_default()),
                    REFERRERS | DANGLING => std::str::from_utf8(rest),
                    NAMES if is_first => return Ok(ControlFlow::Continue(())),
                    _ => Ok(super::index::place(rest)?.1),
                };
                ids.insert(id.map_err(|_| super::index::damaged())?.to_owned());
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(Some(ids))
    }

    /// The entities of a custom rule's group, in byte order of their ids.
    pub(super) fn members(&self, rule: usize, group: &[u8]) -> Result<Vec<String>, StoreError> {
        let mut ids = Vec::new();
        self.index().visit(&prefix(rule, MEMBERS, &[group]), None, &mut |id, _| {
            ids.push(std::str::from_utf8(id).map_err(|_| super::index::damaged())?.to_owned());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ids)
    }
}

/// Under which keys an entity is found.
fn entries(rule: usize, stratum: &Stratum, id: &str, facts: &Facts) -> Vec<Vec<u8>> {
    match &stratum.what {
        What::AtMostOne { open, .. } => rivals::entries(rule, &stratum.group, *open, id, facts),
        What::Unique { field, .. } => unique::entries(rule, &stratum.group, *field, id, facts),
        What::Reference { field, .. } => reference::entries(rule, *field, id, facts),
        What::Custom(_) => {
            let Some(group) = facts.group(&stratum.group).filter(|_| facts.held) else { return Vec::new() };
            let mut key = prefix(rule, MEMBERS, &[&group]);
            key.extend_from_slice(id.as_bytes());
            vec![key]
        }
        What::Bound { .. } | What::Expr { .. } => Vec::new(),
    }
}
