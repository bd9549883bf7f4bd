//! The schemas that runs take: time entries, projects, and rules in all combinations that go together.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rivus_core::rules::{CustomRule, Entity, Overlays};
use rivus_core::schema::{
    AtMostOne, KindBuilder, OnClash, OnGone, OrderTime, RuleType, Schema, SchemaBuilder, Side,
};
use rivus_core::value::Value;

/// One of the schemas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant {
    time: OrderTime,
    /// Start and stop are one register.
    is_interval: bool,
    /// The project is part of a timer's group.
    by_project: bool,
    on_clash: OnClash,
    project: OnGone,
    parent: OnGone,
}

const GONE: [OnGone; 3] = [OnGone::Nullify, OnGone::Cascade, OnGone::Keep];

/// A schema that was built before: every run takes one of few.
struct Built {
    variant: Variant,
    epoch: u32,
    has_rules: bool,
    schema: Arc<Schema>,
}

/// All that can be built.
pub(crate) fn variants() -> &'static [Variant] {
    static ALL: OnceLock<Vec<Variant>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Vec::new();
        for bits in 0..16 {
            for project in GONE {
                for parent in GONE {
                    let variant = Variant {
                        time: if bits & 1 == 0 { OrderTime::Any } else { OrderTime::Ms },
                        is_interval: bits & 2 != 0,
                        by_project: bits & 4 != 0,
                        on_clash: if bits & 8 == 0 { OnClash::Rename } else { OnClash::Alias },
                        project,
                        parent,
                    };
                    if variant.builder(true).build().is_ok() {
                        all.push(variant);
                    }
                }
            }
        }
        all
    })
}

impl Variant {
    /// The schema with its rules, or without.
    pub(crate) fn schema(self, epoch: u32, has_rules: bool) -> Arc<Schema> {
        static ALL: OnceLock<Mutex<Vec<Built>>> = OnceLock::new();
        let all = ALL.get_or_init(Mutex::default);
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |built: &&Built| (built.variant, built.epoch, built.has_rules) == (self, epoch, has_rules);
        if let Some(built) = all.iter().find(is_it) {
            return Arc::clone(&built.schema);
        }
        let schema = self.builder(has_rules).epoch(epoch).build();
        let schema = Arc::new(schema.unwrap_or_else(|error| unreachable!("it was built before: {error}")));
        all.push(Built { variant: self, epoch, has_rules, schema: Arc::clone(&schema) });
        schema
    }

    /// The schema as a replay script can tell it: without the custom rule.
    pub(crate) fn told(self) -> Option<Schema> {
        let kinds = Schema::builder().kind("entry", |k| self.entry(k, true));
        kinds.kind("project", |k| self.project(k, true)).build().ok()
    }

    fn builder(self, has_rules: bool) -> SchemaBuilder {
        let entry = |kind| {
            let kind = self.entry(kind, has_rules);
            if has_rules { kind.custom_rule("one star", OneStar) } else { kind }
        };
        Schema::builder().kind("entry", entry).kind("project", |kind| self.project(kind, has_rules))
    }

    fn entry(self, kind: KindBuilder, has_rules: bool) -> KindBuilder {
        let fields = ["user", "text", "start", "stop", "project", "bill", "star"];
        let mut kind = fields.into_iter().fold(kind, KindBuilder::value).set("tags").counter("edits");
        if self.is_interval {
            kind = kind.group("interval", ["start", "stop"]);
        }
        if !has_rules {
            return kind;
        }
        let group = if self.by_project { vec!["user", "project"] } else { vec!["user"] };
        let timer = AtMostOne {
            group: group.into_iter().map(str::to_owned).collect(),
            open: "stop".to_owned(),
            order: "start".to_owned(),
            time: self.time,
        };
        kind.rule("one timer", RuleType::AtMostOne(timer))
            .expr("forward", "stop", Side::AtLeast, "start")
            .bound("percent", "bill", Value::Int(0), Value::Int(100))
            .reference("a project", "project", "project", self.project)
    }

    fn project(self, kind: KindBuilder, has_rules: bool) -> KindBuilder {
        let kind = ["workspace", "name", "parent"].into_iter().fold(kind, KindBuilder::value);
        if !has_rules {
            return kind;
        }
        kind.unique_with("one name", ["workspace"], "name", self.on_clash).reference(
            "a parent",
            "parent",
            "project",
            self.parent,
        )
    }

    pub(crate) fn by_project(self) -> bool {
        self.by_project
    }
}

/// At most one entry of a user has the star: the last that took it, though it be deleted or have given it back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneStar;

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
        has_star(entity.value("star"))
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut overlays = Overlays::default();
        let place = |e: &Entity| {
            let since = || e.fields.get("star").filter(|_| self.holds(e)).map(|field| field.stamp);
            Some((e.claim.or_else(since)?, e.id.clone()))
        };
        let last = entities.iter().filter_map(place).max();
        for entity in entities.iter().filter(|e| self.holds(e) && !e.deleted) {
            if last.as_ref().is_some_and(|(_, last)| *last != entity.id) {
                overlays.show(entity.id.as_str(), "star", Value::Bool(false));
            }
        }
        overlays
    }
}

pub(crate) fn has_star(value: &Value) -> bool {
    *value == Value::Bool(true)
}
