//! Schema files and replay scripts.

use rivus::replay::{Direct, Script, StoreChoice, run};
use rivus_core::schema::{Schema, SchemaError};

/// A schema in JSON.
pub fn schema_json(data: &[u8]) {
    schema(data, Schema::from_json_str);
}

/// A schema in TOML.
pub fn schema_toml(data: &[u8]) {
    schema(data, Schema::from_toml_str);
}

fn schema(data: &[u8], read: fn(&str) -> Result<Schema, SchemaError>) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(schema) = read(text) else { return };
    let again = Schema::from_json_str(&schema.to_json()).expect("what was written can be read");
    assert_eq!(again.fingerprint(), schema.fingerprint());
    let policies = again.policies();
    let told =
        policies.iter().map(|(kind, field, policy)| (kind.as_str(), field.as_deref(), policy.as_str()));
    assert!(schema.compare(&again).is_empty() && schema.compare_policies(told).is_empty());
}

/// A replay script: read, and run twice if it can be.
pub fn replay_script(data: &[u8]) {
    let Ok(script) = Script::parse(data) else { return };
    let once = || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = run(&script, StoreChoice::Memory, &mut Direct, &mut out, &mut err, &mut |_, _| {});
        (done.map_err(|error| error.to_string()), out, err)
    };
    assert_eq!(once(), once(), "what a script prints depends on the script alone");
}
