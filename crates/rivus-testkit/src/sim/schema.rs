//! The schemas of the simulated application: today's, an older one with other margins, and none at all.

use std::sync::{Arc, LazyLock};

use rivus_core::schema::{KindBuilder, Life, Margin, Resolver, Schema, SetWins};

/// By which schema a site reads and writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// Today's.
    New,
    /// One with other margins, without some fields and kinds.
    Old,
    /// None: everything is taken and passed on.
    Open,
}

impl Version {
    /// The schema, built once.
    #[must_use]
    pub fn schema(self) -> &'static Arc<Schema> {
        match self {
            Self::New => &NEW,
            Self::Old => &OLD,
            Self::Open => &OPEN,
        }
    }
}

static NEW: LazyLock<Arc<Schema>> = LazyLock::new(|| build(task_new, |builder| builder.kind("item", item)));
static OLD: LazyLock<Arc<Schema>> = LazyLock::new(|| build(task_old, |builder| builder));
static OPEN: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::open()));

type Builder = rivus_core::schema::SchemaBuilder;

#[expect(clippy::expect_used, reason = "the schemas are constants; a test builds them")]
fn build(task: fn(KindBuilder) -> KindBuilder, more: fn(Builder) -> Builder) -> Arc<Schema> {
    let builder = Schema::builder().kind("task", task).kind("note", note).kind("blob", blob);
    Arc::new(more(builder).build().expect("the simulator's schema is consistent"))
}

fn task_new(kind: KindBuilder) -> KindBuilder {
    kind.value("title")
        .value_with("owner", Margin::Ms(5000), Resolver::Rank)
        .value_with("due", Margin::Ms(600_000), Resolver::Oldest)
        .max("score")
        .flag("done")
        .multi("notes")
        .set("tags")
        .map("labels")
        .counter("views")
}

fn task_old(kind: KindBuilder) -> KindBuilder {
    kind.value("title")
        .value_with("owner", Margin::Ms(60_000), Resolver::Rank)
        .value("due")
        .max("score")
        .set("tags")
        .counter("views")
}

fn note(kind: KindBuilder) -> KindBuilder {
    kind.life(Life::EditRevives)
        .value("text")
        .set_with("readers", SetWins::Remove)
        .value("start")
        .value("stop")
        .group("span", ["start", "stop"])
}

fn item(kind: KindBuilder) -> KindBuilder {
    kind.life(Life::Newest).open().value("name").counter("stock")
}

fn blob(kind: KindBuilder) -> KindBuilder {
    kind.value("body").map("parts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_schema_differs_in_margins_and_lacks_a_kind() {
        let mismatches = Version::New.schema().compare(Version::Old.schema());
        let fields: Vec<_> = mismatches.iter().filter_map(|m| m.field.as_deref()).collect();
        assert_eq!(fields, ["due", "owner"]);
        assert!(Version::Old.schema().kind("item").is_none());
        assert!(Version::Open.schema().kind("item").is_some());
    }
}
