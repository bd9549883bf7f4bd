//! The macros that expand to tests. Each makes a module with one test for each law, and `prove_all`.

/// Makes a module of tests, one for each law of a [`Join`](crate::law::join::Join).
///
/// Takes the module's name, the type, and a proptest strategy for it. The expressions see what the surrounding
/// module sees.
///
/// ```
/// use rivus_testkit::law::join::Join;
/// use rivus_testkit::proptest::prelude::*;
///
/// #[derive(Clone, PartialEq, Debug)]
/// struct Highest(u64);
///
/// impl Join for Highest {
///     fn join(&self, other: &Self) -> Self {
///         Self(self.0.max(other.0))
///     }
///     fn encode(&self) -> Vec<u8> {
///         self.0.to_be_bytes().to_vec()
///     }
///     fn decode(bytes: &[u8]) -> Option<Self> {
///         Some(Self(u64::from_be_bytes(bytes.try_into().ok()?)))
///     }
/// }
///
/// rivus_testkit::join_laws!(highest, Highest, any::<u64>().prop_map(Highest));
/// # fn main() { highest::prove_all() }
/// ```
#[macro_export]
macro_rules! join_laws {
    ($name:ident, $type:ty, $strategy:expr) => {
        $crate::law_tests! {
            $name, $crate::proptest::array::uniform3($strategy),
            |law, states: &[$type; 3]| $crate::law::join::holds(law, states),
            total: Total, reflexive: Reflexive, deterministic: Deterministic, clock_free: ClockFree,
            commutative: Commutative, associative: Associative, idempotent: Idempotent, upper_bound: UpperBound,
            round_trip: RoundTrip,
        }
    };
}

/// Makes a module of tests, one for each law of a resolver: a function from the candidates to a value.
///
/// Takes the module's name and the function, as [`KindBuilder::resolver`](rivus_core::schema::KindBuilder::resolver)
/// and `custom` take it. A third argument replaces the strategy [`candidates`](crate::strategy::candidates).
///
/// ```
/// use rivus_core::schema::Candidate;
/// use rivus_core::value::Value;
///
/// /// The greatest value; of equal ones it does not matter which.
/// fn greatest(candidates: &[Candidate<'_>]) -> Value {
///     candidates.iter().map(|c| c.value).max().cloned().unwrap_or(Value::Null)
/// }
///
/// rivus_testkit::resolver_laws!(greatest_obeys, greatest);
/// # fn main() { greatest_obeys::prove_all() }
/// ```
#[macro_export]
macro_rules! resolver_laws {
    ($name:ident, $resolver:expr) => {
        $crate::resolver_laws!($name, $resolver, $crate::strategy::candidates());
    };
    ($name:ident, $resolver:expr, $strategy:expr) => {
        $crate::law_tests! {
            $name, $strategy,
            |law, writes: &Vec<$crate::law::resolver::Write>| $crate::law::resolver::holds(law, &$resolver, writes),
            total: Total, deterministic: Deterministic, clock_free: ClockFree, order_free: OrderFree,
        }
    };
}

/// Makes a module of tests, one for each law of a [`Rule`](crate::law::rule::Rule).
///
/// Takes the module's name, an expression of the rule, and a strategy for lists of entities, such as
/// [`entities`](crate::strategy::entities).
///
/// ```
/// use rivus_testkit::{strategy, zoo};
///
/// rivus_testkit::rule_laws!(amount_in_bounds, zoo::Bound { field: "amount", least: 0, greatest: 100 }, strategy::entities());
/// # fn main() { amount_in_bounds::prove_all() }
/// ```
#[macro_export]
macro_rules! rule_laws {
    ($name:ident, $rule:expr, $strategy:expr) => {
        $crate::law_tests! {
            $name, $strategy,
            |law, entities: &Vec<$crate::law::rule::Entity>| $crate::law::rule::holds(law, &$rule, entities),
            total: Total, deterministic: Deterministic, clock_free: ClockFree, order_free: OrderFree,
            owns_its_writes: OwnsItsWrites, establishes: Establishes, idempotent: Idempotent,
            incremental: Incremental, reads_what_it_names: ReadsWhatItNames, group_only: GroupOnly,
            no_revival: NoRevival,
        }
    };
}

/// Makes a module of tests, one for each law of a rule of your own, a
/// [`CustomRule`](rivus_core::rules::CustomRule).
///
/// Takes the module's name, an expression of the rule, and what it promises of the entities of one group as they show.
/// `losers: StayOut` adds that who lost does not come back when the winner lets go or is deleted. Entities are made of
/// the fields that the rule names, with values of all kinds; `entities: …` gives a strategy for better ones, such as
/// [`entities_of`](crate::strategy::entities_of).
///
/// ```
/// use rivus_core::rules::{CustomRule, Entity, Overlays};
/// use rivus_core::value::Value;
///
/// /// No line of an invoice costs less than nothing.
/// struct NotNegative;
///
/// impl CustomRule for NotNegative {
///     fn group(&self) -> Vec<&str> {
///         vec!["invoice"]
///     }
///     fn reads(&self) -> Vec<&str> {
///         vec![]
///     }
///     fn owns(&self) -> Vec<&str> {
///         vec!["price"]
///     }
///     fn evaluate(&self, lines: &[Entity]) -> Overlays {
///         let mut overlays = Overlays::default();
///         for line in lines {
///             if matches!(line.value("price"), Value::Int(price) if *price < 0) {
///                 overlays.show(line.id.as_str(), "price", Value::Int(0));
///             }
///         }
///         overlays
///     }
/// }
///
/// fn promise(lines: &[Entity]) -> Result<(), String> {
///     let below = |line: &&Entity| matches!(line.value("price"), Value::Int(price) if *price < 0);
///     lines.iter().find(below).map_or(Ok(()), |line| Err(format!("{} costs less than nothing", line.id)))
/// }
///
/// rivus_testkit::custom_rule_laws!(not_negative_obeys, NotNegative, promise);
/// # fn main() { not_negative_obeys::prove_all() }
/// ```
#[macro_export]
macro_rules! custom_rule_laws {
    ($name:ident, $rule:expr, $holds:expr) => {
        $crate::custom_rule_laws!($name, $rule, $holds, losers: MayReturn);
    };
    ($name:ident, $rule:expr, $holds:expr, losers: $losers:ident) => {
        $crate::custom_rule_laws!(
            $name, $rule, $holds, losers: $losers, entities: $crate::strategy::entities_for(&$rule)
        );
    };
    ($name:ident, $rule:expr, $holds:expr, losers: $losers:ident, entities: $entities:expr) => {
        $crate::law_tests! {
            $name, $entities,
            |law, entities: &Vec<$crate::law::rule::Entity>| {
                let losers = $crate::law::custom::Losers::$losers;
                let promise = $crate::law::custom::Promise { rule: $rule, holds: $holds, losers };
                $crate::law::custom::holds(law, &promise, entities)
            },
            total: Total, deterministic: Deterministic, clock_free: ClockFree, order_free: OrderFree,
            owns_its_writes: OwnsItsWrites, establishes: Establishes, idempotent: Idempotent,
            incremental: Incremental, reads_what_it_names: ReadsWhatItNames, no_revival: NoRevival,
        }
    };
}

/// Makes a module of tests, one for each law of a [`Merge`](crate::law::merge::Merge): a whole data type, with its
/// edits and deltas.
///
/// Takes the module's name and an expression of the merge. A third argument replaces the strategy
/// [`histories`](crate::strategy::histories).
///
/// ```
/// use rivus_testkit::zoo;
///
/// rivus_testkit::merge_laws!(registers, zoo::Engine::default());
/// # fn main() { registers::prove_all() }
/// ```
#[macro_export]
macro_rules! merge_laws {
    ($name:ident, $merge:expr) => {
        $crate::merge_laws!($name, $merge, $crate::strategy::histories());
    };
    ($name:ident, $merge:expr, $strategy:expr) => {
        $crate::law_tests! {
            $name, $strategy,
            |law, history: &$crate::strategy::History| $crate::law::merge::holds(law, &$merge, history),
            total: Total, converges: Converges, seen_is_replaced: SeenIsReplaced, nothing_lost: NothingLost,
        }
    };
}

/// What the other macros expand to.
#[doc(hidden)]
#[macro_export]
macro_rules! law_tests {
    ($name:ident, $strategy:expr, $check:expr, $($test:ident: $law:ident),* $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn prove(law: $crate::law::Law) {
                $crate::law::prove(stringify!($name), &$strategy, |input| ($check)(law, input));
            }

            #[allow(dead_code)]
            pub(super) fn prove_all() {
                $(prove($crate::law::Law::$law);)*
            }

            $(
                #[test]
                fn $test() {
                    prove($crate::law::Law::$law);
                }
            )*
        }
    };
}
