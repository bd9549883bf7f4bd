//! A field names an entity that is there.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::index::{DANGLING, REFERRERS, prefix};
use super::{Facts, Laid, Rules, Stratum, What};
use crate::canary::{Canary, is_on};
use crate::schema::OnGone;
use crate::store::{CommitError, Store, StoreError};
use crate::value::Value;
use crate::work::Work;

/// The beginning of the keys of those that name `target`.
fn named(rule: usize, target: &str) -> Vec<u8> {
    let len = u16::try_from(target.len()).unwrap_or(u16::MAX).to_be_bytes();
    prefix(rule, REFERRERS, &[&len, target.as_bytes()])
}

/// Under which key an entity is found, if it names another, or what is none.
pub(super) fn entries(rule: usize, field: usize, id: &str, facts: &Facts) -> Vec<Vec<u8>> {
    let value = facts.value(field);
    if !facts.held || *value == Value::Null {
        return Vec::new();
    }
    let mut key = target(value).map_or_else(|| prefix(rule, DANGLING, &[]), |target| named(rule, target));
    key.extend_from_slice(id.as_bytes());
    vec![key]
}

/// The entity that a key is about.
pub(super) fn target_of(key: &[u8]) -> Option<&str> {
    let (len, rest) = key.get(3..).filter(|_| key.get(2) == Some(&REFERRERS))?.split_first_chunk::<2>()?;
    std::str::from_utf8(rest.get(..usize::from(u16::from_be_bytes(*len)))?).ok()
}

fn target(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) if text.len() <= crate::address::ID_BYTES_MAX => Some(text),
        _ => None,
    }
}

impl<S: Store> Work<'_, S> {
    /// What shows of an entity on account of a reference: its own, or for `keep` those of others.
    pub(super) fn referring(
        &mut self,
        rules: &Rules,
        rule: usize,
        stratum: &Stratum,
        id: &str,
        facts: &Facts,
    ) -> Result<Option<Laid>, CommitError> {
        let What::Reference { field, to, on_gone } = &stratum.what else { return Ok(None) };
        let value = facts.value(*field);
        let (shown, hidden) = (Value::Bool(false), Value::Bool(true));
        match on_gone {
            OnGone::Keep => {
                let is_self = stratum.kind == *to;
                if !facts.deleted || facts.aside {
                    return Ok(None);
                }
                let by = self.kept_by(rules, rule, stratum, id, is_self)?;
                Ok(by.map(|by| Laid {
                    rule,
                    field: None,
                    shown: hidden,
                    hidden: shown,
                    rival: Some(by),
                    pins: false,
                }))
            }
            _ if *value == Value::Null => Ok(None),
            OnGone::Nullify => {
                let rival = target(value).map(str::to_owned);
                if let Some(target) = &rival {
                    let facts = self.rooted(rules, rule, to, target)?;
                    if facts.is_there() || self.is_elsewhere(&facts) {
                        return Ok(None);
                    }
                }
                Ok(Some(Laid {
                    rule,
                    field: Some(*field),
                    shown: Value::Null,
                    hidden: value.clone(),
                    rival,
                    pins: false,
                }))
            }
            OnGone::Cascade if facts.deleted => Ok(None),
            OnGone::Cascade => {
                let gone = self.gone(rules, rule, stratum, id, value)?;
                Ok(gone.map(|rival| Laid { rule, field: None, shown, hidden, rival, pins: false }))
            }
        }
    }

    /// Whether an entity may be in a scope that is not followed here: nothing is known of it.
    fn is_elsewhere(&self, facts: &Facts) -> bool {
        self.is_partial() && !facts.held
    }

    /// Whether a field that is a reference names an entity.
    pub(crate) fn is_named(&self, rules: &Rules, kind: &str, id: &str) -> Result<bool, StoreError> {
        for (rule, stratum) in rules.strata.iter().enumerate() {
            let names = matches!(&stratum.what, What::Reference { to, .. } if to == kind);
            if names && !self.referrers(rule, id)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is named, or who stands for it.
    fn rooted(&mut self, rules: &Rules, rule: usize, to: &str, target: &str) -> Result<Facts, CommitError> {
        let (mut facts, mut laid) = self.shown(rules, to, target, rule)?;
        if facts.aside {
            let root = self.alias_root(to, target)?;
            (facts, laid) = self.shown(rules, to, &root, rule)?;
        }
        // Who had the name first is there: the rule looks at nobody else.
        facts.deleted &= !laid.iter().any(|laid| laid.stands_aside(rules));
        Ok(facts)
    }

    /// Whether what is named is gone, or what that names, and so on: then what is named.
    fn gone(
        &mut self,
        rules: &Rules,
        rule: usize,
        stratum: &Stratum,
        id: &str,
        value: &Value,
    ) -> Result<Option<Option<String>>, CommitError> {
        let What::Reference { field, to, .. } = &stratum.what else { return Ok(None) };
        let rival = target(value).map(str::to_owned);
        let Some(mut next) = rival.clone() else { return Ok(Some(None)) };
        let mut seen = BTreeSet::from([id.to_owned()]);
        loop {
            let facts = self.rooted(rules, rule, to, &next)?;
            if self.is_elsewhere(&facts) {
                return Ok(None);
            }
            if !facts.is_there() {
                return Ok(Some(rival));
            }
            // Another kind's entity is there or not; one of the same kind may be gone on account of what it names.
            let is_further = stratum.kind == *to && !is_on(Canary::CascadeOnce);
            if !is_further || !seen.insert(next) || *facts.value(*field) == Value::Null {
                return Ok(None);
            }
            match target(facts.value(*field)) {
                Some(target) => next = target.to_owned(),
                None => return Ok(Some(rival)),
            }
        }
    }

    /// The first by id of those that keep an entity alive: alive themselves, or kept so.
    fn kept_by(
        &mut self,
        rules: &Rules,
        rule: usize,
        stratum: &Stratum,
        id: &str,
        is_self: bool,
    ) -> Result<Option<String>, CommitError> {
        let mut seen = BTreeSet::from([id.to_owned()]);
        for referrer in self.referrers(rule, id)? {
            let mut next = vec![referrer.clone()];
            while let Some(one) = next.pop() {
                if self.shown(rules, &stratum.kind, &one, rule)?.0.is_there() {
                    return Ok(Some(referrer));
                }
                if is_self && seen.insert(one.clone()) {
                    next.extend(self.referrers(rule, &one)?);
                }
            }
        }
        Ok(None)
    }

    /// Who names an entity, in byte order of their ids.
    pub(super) fn referrers(&self, rule: usize, target: &str) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        self.index().visit(&named(rule, target), None, &mut |id, _| {
            let id = std::str::from_utf8(id).map_err(|_| super::index::damaged())?;
            found.push(id.to_owned());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}
