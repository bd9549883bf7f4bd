//! Following the rows: the index after a commit, and whose view that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::index::{CLAIMS, ENTRIES, MEMBERS, NAMES, decode_entries, encode_entries, prefix, value_len};
use super::{Facts, Rules, Stratum, What, reference, rivals, unique};
use crate::schema::OnGone;
use crate::store::{CommitError, Store, StoreError};
use crate::work::Work;

/// What settling made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Settled {
    /// Entities, by kind and id, that may show otherwise though their rows are as they were.
    pub(crate) swayed: BTreeSet<(String, String)>,
}

/// What may have changed of an entity: the life of which others ask is told apart.
#[derive(Clone, Copy, Default)]
struct Dirt {
    life: bool,
}

type Dirty = BTreeMap<(String, String), Dirt>;

impl<S: Store> Work<'_, S> {
    /// Brings the index to what the staged rows say.
    pub(crate) fn settle(&mut self) -> Result<(), CommitError> {
        let Some(rules) = self.rules() else { return Ok(()) };
        let staged = self.take_swaying();
        if staged.is_empty() {
            return Ok(());
        }
        let mut dirty: Dirty = BTreeMap::new();
        for (kind, id, life) in staged {
            dirty.insert((kind, id), Dirt { life });
        }
        for rule in 0..rules.strata.len() {
            self.settle_rule(rules, rule, &mut dirty)?;
        }
        self.settled.swayed.extend(dirty.into_keys());
        Ok(())
    }

    fn settle_rule(&mut self, rules: &Rules, rule: usize, dirty: &mut Dirty) -> Result<(), CommitError> {
        let stratum = rules.stratum(rule);
        if matches!(stratum.what, What::Bound { .. } | What::Expr { .. }) {
            return Ok(());
        }
        let of_kind = |dirty: &Dirty, kind: &str| -> Vec<(String, Dirt)> {
            let from = (kind.to_owned(), String::new());
            let range = dirty.range(from..).take_while(|((k, _), _)| k == kind);
            range.map(|((_, id), dirt)| (id.clone(), *dirt)).collect()
        };
        let mut swayed: BTreeSet<String> = BTreeSet::new();
        for (id, _) in of_kind(dirty, &stratum.kind) {
            let (facts, _) = self.shown(rules, &stratum.kind, &id, rule)?;
            let new = match &stratum.what {
                What::AtMostOne { open, order, .. } => {
                    rivals::entries(rule, &stratum.group, [*open, *order], &id, &facts)
                }
                What::Unique { field, .. } => unique::entries(rule, &stratum.group, *field, &id, &facts),
                What::Reference { field, .. } => reference::entries(rule, *field, &id, &facts),
                What::Custom(_) => member_entries(rule, stratum, &id, &facts),
                What::Bound { .. } | What::Expr { .. } => Vec::new(),
            };
            let changed = self.enter(rule, &id, new)?;
            for key in changed {
                self.sway(stratum, rule, &id, &key, &mut swayed)?;
            }
        }
        if let What::Reference { to, on_gone, .. } = &stratum.what {
            let targets = of_kind(dirty, to).into_iter().filter(|(_, dirt)| dirt.life);
            self.sway_by_life(stratum, rule, *on_gone, targets.map(|(id, _)| id).collect(), &mut swayed)?;
        }
        let (kind, life) = match &stratum.what {
            What::Reference { to, on_gone: OnGone::Keep, .. } => (to, true),
            What::Reference { on_gone: OnGone::Cascade, .. } => (&stratum.kind, true),
            What::Unique { on_clash, .. } => (&stratum.kind, *on_clash == crate::schema::OnClash::Alias),
            _ => (&stratum.kind, false),
        };
        for id in swayed {
            dirty.entry((kind.clone(), id)).or_default().life |= life;
        }
        Ok(())
    }

    /// Whose view changes with the life of these.
    fn sway_by_life(
        &mut self,
        stratum: &Stratum,
        rule: usize,
        on_gone: OnGone,
        targets: Vec<String>,
        swayed: &mut BTreeSet<String>,
    ) -> Result<(), CommitError> {
        let What::Reference { to, field, .. } = &stratum.what else { return Ok(()) };
        if !self.tells() && !stratum.is_read {
            return Ok(());
        }
        let is_self = stratum.kind == *to;
        let mut next = targets;
        if on_gone == OnGone::Keep {
            // Those that are named by what was swayed, and so on.
            let mut next: Vec<String> = swayed.iter().cloned().collect();
            let mut seen = BTreeSet::new();
            while let Some(one) = next.pop().filter(|_| is_self) {
                if !seen.insert(one.clone()) {
                    continue;
                }
                let Some(rules) = self.rules() else { break };
                let (facts, _) = self.shown(rules, to, &one, rule)?;
                if let crate::value::Value::Text(target) = facts.value(*field) {
                    swayed.insert(target.clone());
                    next.push(target.clone());
                }
            }
            return Ok(());
        }
        if on_gone == OnGone::Cascade && is_self {
            // What changed its reference may be gone now: so is what names it.
            next.extend(swayed.iter().cloned());
        }
        while let Some(target) = next.pop() {
            for (referrer, _) in self.referrers(rule, &target)? {
                if swayed.insert(referrer.clone()) && on_gone == OnGone::Cascade && is_self {
                    next.push(referrer);
                }
            }
        }
        Ok(())
    }

    /// Who else shows otherwise after the entry of `id` at `key` came, went or changed.
    fn sway(
        &mut self,
        stratum: &Stratum,
        rule: usize,
        id: &str,
        key: &[u8],
        swayed: &mut BTreeSet<String>,
    ) -> Result<(), CommitError> {
        if let What::Reference { on_gone: OnGone::Keep, .. } = &stratum.what {
            swayed.extend(reference::target_of(key).map(str::to_owned));
            return Ok(());
        }
        swayed.insert(id.to_owned());
        if !self.tells() && !stratum.is_read {
            return Ok(());
        }
        match (&stratum.what, key.get(2)) {
            (What::AtMostOne { .. }, Some(&CLAIMS)) => swayed.extend(self.stopped_by(rule, key)?),
            (What::Unique { .. }, Some(&NAMES)) => swayed.extend(self.renamed_by(rule, key, id)?),
            (What::Custom(_), _) => {
                let rest = key.get(3..).unwrap_or_default();
                let group = rest.get(..value_len(rest).unwrap_or(rest.len())).unwrap_or_default();
                swayed.extend(self.members(rule, group)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts an entity's entries in place of those that it had, and says which keys came, went or changed.
    fn enter(
        &mut self,
        rule: usize,
        id: &str,
        new: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<Vec<Vec<u8>>, CommitError> {
        let own = prefix(rule, ENTRIES, &[id.as_bytes()]);
        let before = self.index().get(&own)?;
        let old = decode_entries(before.as_deref().unwrap_or_default())?;
        let mut changed = Vec::new();
        for key in &old {
            if !new.iter().any(|(kept, _)| kept == key) {
                self.entered.insert(key.clone(), None);
                changed.push(key.clone());
            }
        }
        let list = encode_entries(new.iter().map(|(key, _)| key.as_slice()));
        if list != before.unwrap_or_default() {
            self.entered.insert(own, (!list.is_empty()).then_some(list));
        }
        for (key, value) in new {
            if !old.contains(&key) || self.index().get(&key)?.as_ref() != Some(&value) {
                self.entered.insert(key.clone(), Some(value));
                changed.push(key);
            }
        }
        Ok(changed)
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

/// Under which key an entity is found, if it is in a group. The value changes with what the rule reads, so that the
/// others of the group are known to be swayed.
fn member_entries(rule: usize, stratum: &Stratum, id: &str, facts: &Facts) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Some(group) = facts.group(&stratum.group).filter(|_| facts.held) else { return Vec::new() };
    let mut key = prefix(rule, MEMBERS, &[&group]);
    key.extend_from_slice(id.as_bytes());
    vec![(key, facts.hash().to_be_bytes().to_vec())]
}
