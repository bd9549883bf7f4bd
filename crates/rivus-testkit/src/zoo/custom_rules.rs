//! Rules written against the engine's trait: one that is right, and ways to get it wrong.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use proptest::prelude::*;
use rivus_core::clock::Stamp;
use rivus_core::rules::{CustomRule, Entity, Overlays};
use rivus_core::value::Value;

use super::{Exhibit, first, float};
use crate::law::Surroundings;
use crate::law::custom::{Losers, Promise, check};
use crate::strategy::entities_of;

/// At most one entry of a user has the star: the last that took it, though it be deleted or have given it back.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneStar;

impl CustomRule for OneStar {
    fn group(&self) -> Vec<&str> {
        vec!["user"]
    }

    fn reads(&self) -> Vec<&str> {
        Vec::new()
    }

    fn owns(&self) -> Vec<&str> {
        vec!["star"]
    }

    fn holds(&self, entity: &Entity) -> bool {
        *entity.value("star") == Value::Bool(true)
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        all_but(entities, entities.iter().filter_map(place).max().map(|(_, id)| id))
    }
}

impl OneStar {
    /// What the rule promises: nobody shows a second star.
    ///
    /// # Errors
    /// Who does.
    pub fn promise(entities: &[Entity]) -> Result<(), String> {
        let stars: Vec<_> =
            entities.iter().filter(|e| !e.deleted && Self.holds(e)).map(|e| e.id.as_str()).collect();
        if stars.len() > 1 { Err(format!("{stars:?} have a star")) } else { Ok(()) }
    }
}

/// Since when an entity has its place, and its id.
fn place(entity: &Entity) -> Option<(Stamp, &str)> {
    let star = entity.fields.get("star").filter(|_| OneStar.holds(entity));
    Some((entity.claim.or(star.map(|star| star.stamp))?, entity.id.as_str()))
}

/// Takes the star from everybody else.
fn all_but(entities: &[Entity], winner: Option<&str>) -> Overlays {
    let mut overlays = Overlays::default();
    for entity in holders(entities).filter(|e| Some(e.id.as_str()) != winner) {
        overlays.show(entity.id.as_str(), "star", Value::Bool(false));
    }
    overlays
}

fn holders(entities: &[Entity]) -> impl Iterator<Item = &Entity> {
    entities.iter().filter(|e| !e.deleted && OneStar.holds(e))
}

/// The rule with another evaluation.
struct Instead<F>(F);

impl<F: Fn(&[Entity]) -> Overlays + Send + Sync> CustomRule for Instead<F> {
    fn group(&self) -> Vec<&str> {
        OneStar.group()
    }

    fn reads(&self) -> Vec<&str> {
        vec!["amount"]
    }

    fn owns(&self) -> Vec<&str> {
        OneStar.owns()
    }

    fn holds(&self, entity: &Entity) -> bool {
        OneStar.holds(entity)
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        (self.0)(entities)
    }
}

/// Every other time the star fades.
fn fades(entities: &[Entity], now: u128) -> Overlays {
    let last = entities.iter().filter_map(place).max().map(|(_, id)| id);
    all_but(entities, last.filter(|_| now.is_multiple_of(2)))
}

fn wall_clock(entities: &[Entity]) -> Overlays {
    // Not by the last bit alone: a busy machine lets a test go on after an even number of milliseconds each time.
    let millis = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_millis());
    fades(entities, millis.count_ones().into())
}

fn clock_of_the_app(entities: &[Entity]) -> Overlays {
    let days = Surroundings::current().now.0 / 86_400_000;
    fades(entities, days.unsigned_abs().into())
}

fn in_the_order_of_a_map(entities: &[Entity]) -> Overlays {
    let by_id: HashMap<&str, Stamp> =
        entities.iter().filter_map(place).map(|(claim, id)| (id, claim)).collect();
    // Of equally late ones the last that the map comes to.
    let last = by_id.iter().max_by_key(|(_, claim)| **claim);
    all_but(entities, last.map(|(id, _)| *id))
}

fn counted_in_the_thread(entities: &[Entity]) -> Overlays {
    thread_local! {
        static CALLS: Cell<usize> = const { Cell::new(0) };
    }
    let call = CALLS.replace(CALLS.get() + 1);
    let holders: Vec<_> = holders(entities).collect();
    all_but(entities, holders.get(call % holders.len().max(1)).map(|e| e.id.as_str()))
}

fn first_in_the_list(entities: &[Entity]) -> Overlays {
    all_but(entities, entities.iter().find(|e| place(e).is_some()).map(|e| e.id.as_str()))
}

fn says_so_elsewhere(entities: &[Entity]) -> Overlays {
    let mut overlays = OneStar.evaluate(entities);
    for (id, _) in overlays.0.keys().cloned().collect::<Vec<_>>() {
        overlays.show(id, "note", "the star went elsewhere".into());
    }
    overlays
}

fn ties_keep_both(entities: &[Entity]) -> Overlays {
    let last = entities.iter().filter_map(place).map(|(claim, _)| claim).max();
    let mut overlays = Overlays::default();
    for entity in holders(entities).filter(|e| place(e).map(|(claim, _)| claim) != last) {
        overlays.show(entity.id.as_str(), "star", Value::Bool(false));
    }
    overlays
}

fn two_at_most(entities: &[Entity]) -> Overlays {
    let mut holders: Vec<_> = holders(entities).filter_map(place).collect();
    holders.sort_unstable();
    let mut overlays = Overlays::default();
    if let [_, .., (_, before), _] | [(_, before), _] = holders.as_slice() {
        overlays.show(*before, "star", Value::Bool(false));
    }
    overlays
}

/// Every star dims a step whenever anybody looks.
fn dims(entities: &[Entity]) -> Overlays {
    let mut overlays = Overlays::default();
    for entity in entities {
        if let Value::Int(light) = entity.value("star") {
            overlays.show(entity.id.as_str(), "star", Value::Int(light / 2));
        }
    }
    overlays
}

fn last_change_wins(entities: &[Entity]) -> Overlays {
    let newest = |e: &Entity| e.fields.values().map(|field| field.stamp).max();
    let last = holders(entities).max_by_key(|e| (newest(e), e.id.clone()));
    all_but(entities, last.map(|e| e.id.as_str()))
}

fn only_holders_compete(entities: &[Entity]) -> Overlays {
    all_but(entities, holders(entities).filter_map(place).max().map(|(_, id)| id))
}

fn deleted_do_not_compete(entities: &[Entity]) -> Overlays {
    let there = entities.iter().filter(|e| !e.deleted);
    all_but(entities, there.filter_map(place).max().map(|(_, id)| id))
}

#[expect(clippy::expect_used, reason = "that it panics is the mistake")]
fn a_number_expected(entities: &[Entity]) -> Overlays {
    let richest = holders(entities).max_by(|a, b| {
        let amounts = (float(a.value("amount")), float(b.value("amount")));
        amounts.0.partial_cmp(&amounts.1).expect("two numbers compare").then_with(|| a.id.cmp(&b.id))
    });
    all_but(entities, richest.map(|e| e.id.as_str()))
}

fn around_the_amount(entities: &[Entity]) -> Overlays {
    let mut overlays = OneStar.evaluate(entities);
    for ((id, _), shown) in &mut overlays.0 {
        let amount = entities.iter().find(|e| e.id == *id).map_or(&Value::Null, |e| e.value("amount"));
        *shown = Value::List(vec![Value::List(vec![amount.clone()])]);
    }
    overlays
}

/// Whoever has won stays the winner, in this process.
#[derive(Default)]
struct Sticky(Mutex<BTreeMap<Value, String>>);

impl Sticky {
    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let Some(user) = entities.first().map(|e| e.value("user").clone()) else {
            return Overlays::default();
        };
        let mut winners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = entities.iter().filter_map(place).max().map(|(_, id)| id.to_owned());
        let before = winners.get(&user).filter(|id| entities.iter().any(|e| e.id == **id && !e.deleted));
        let winner = before.cloned().or(last);
        if let Some(winner) = &winner {
            winners.insert(user, winner.clone());
        }
        all_but(entities, winner.as_deref())
    }
}

/// Entities with stars, which are mostly as they should be.
fn entities() -> impl Strategy<Value = Vec<crate::law::rule::Entity>> + Clone {
    let star = prop_oneof![
        5 => Just(Value::Bool(true)),
        1 => Just(Value::Bool(false)),
        1 => (0..100_i64).prop_map(Value::Int),
    ];
    let amount = prop_oneof![2 => (0..9_i64).prop_map(Value::Int), 2 => crate::strategy::values()];
    entities_of(&["user"], vec![("star", star.boxed()), ("amount", amount.boxed())])
}

macro_rules! exhibit {
    ($name:literal, $rule:expr, $losers:ident, $what:literal, $seen:literal) => {
        Exhibit {
            name: $name,
            what: $what,
            seen: $seen,
            hunt: |effort| {
                first(effort, &entities(), |entities| {
                    let promise = Promise { rule: $rule, holds: OneStar::promise, losers: Losers::$losers };
                    check(&promise, entities)
                })
            },
        }
    };
}

pub(super) fn sound() -> Vec<Exhibit> {
    vec![exhibit!(
        "one star",
        OneStar,
        StayOut,
        "ordered by claim and id, deleted ones included",
        "favourites"
    )]
}

pub(super) fn exhibits() -> Vec<Exhibit> {
    let mut all = sources();
    all.extend(winners());
    all
}

/// What a rule must not look at.
fn sources() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "wall clock in a rule",
            Instead(wall_clock),
            StayOut,
            "asks the clock of the machine",
            "`SystemTime::now()` in what looks like a getter"
        ),
        exhibit!(
            "clock of the application",
            Instead(clock_of_the_app),
            StayOut,
            "asks a clock that somebody has set for it",
            "expiry dates"
        ),
        exhibit!(
            "order of a hash map",
            Instead(in_the_order_of_a_map),
            StayOut,
            "of equally late ones the map's last, which is another in each process",
            "`HashMap::iter().max_by_key(…)`"
        ),
        exhibit!(
            "counted in the thread",
            Instead(counted_in_the_thread),
            StayOut,
            "takes turns, in a variable of the thread",
            "round-robin"
        ),
        exhibit!(
            "sticky winner",
            {
                let sticky = Sticky::default();
                Instead(move |entities: &[Entity]| sticky.evaluate(entities))
            },
            StayOut,
            "keeps who won first, whatever arrives later",
            "caches"
        ),
        exhibit!(
            "first in the list",
            Instead(first_in_the_list),
            StayOut,
            "takes the first without saying by which order",
            "`entities[0]`"
        ),
        exhibit!(
            "numbers expected",
            Instead(a_number_expected),
            MayReturn,
            "panics at NaN",
            "`partial_cmp(…).unwrap()`"
        ),
        exhibit!(
            "wrapped too deep",
            Instead(around_the_amount),
            MayReturn,
            "shows a value in a list in a list, which may be deeper than what is stored",
            "keeping the old value beside the new"
        ),
    ]
}

/// Who wins.
fn winners() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "a note elsewhere",
            Instead(says_so_elsewhere),
            StayOut,
            "also shows a field that it does not own",
            "audit trails"
        ),
        exhibit!(
            "ties keep both",
            Instead(ties_keep_both),
            StayOut,
            "two that claimed at one time keep their star",
            "comparisons without the id"
        ),
        exhibit!(
            "two at most",
            Instead(two_at_most),
            MayReturn,
            "takes the star from one other, though there are three",
            "`previous.star = false`"
        ),
        exhibit!(
            "dims at every look",
            Instead(dims),
            MayReturn,
            "what it shows would show otherwise again, if somebody saved it",
            "discounts on discounted prices"
        ),
        exhibit!(
            "star by last change",
            Instead(last_change_wins),
            StayOut,
            "an edit of anything takes the star back",
            "`ORDER BY updated_at`"
        ),
        exhibit!(
            "only holders of a star compete",
            Instead(only_holders_compete),
            StayOut,
            "who gives the star back gives it to whoever had lost it",
            "`… WHERE star`"
        ),
        exhibit!(
            "deleted stars do not compete",
            Instead(deleted_do_not_compete),
            StayOut,
            "deleting the winner brings a loser back",
            "`… WHERE NOT deleted`"
        ),
    ]
}
