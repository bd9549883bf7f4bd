//! What the integration tests share.

pub mod crash;
pub mod fleet;
pub mod hostile;
pub mod random;

use rivus::Schema;

/// The schema of the process in `src/bin/writer.rs`.
///
/// # Panics
/// Never: the schema is sound.
#[must_use]
pub fn schema() -> Schema {
    let schema = Schema::builder().kind("task", |kind| kind.value("n").counter("views")).build();
    #[expect(clippy::expect_used, reason = "a constant schema, for tests")]
    schema.expect("the schema is sound")
}
