//! The JSON Schema of preset files is what the types say.

use super::*;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::path::Path;

/// A preset file, as the schema describes it.
#[derive(JsonSchema)]
#[schemars(title = "trilut preset", deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema is made of it")]
struct Document {
    /// The version of the file format.
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    provenance: Provenance,
    machine: Machine,
    /// Sorted by (shape, phase, threads) and unique in them.
    #[serde(default)]
    record: Vec<Record>,
}

/// The words of a vocabulary, as a string with those values.
macro_rules! words {
    ($($ty:ty),*) => {$(
        impl JsonSchema for $ty {
            fn schema_name() -> Cow<'static, str> {
                stringify!($ty).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let words: Vec<&str> = Self::ALL.iter().map(|v| v.name()).collect();
                json_schema!({ "type": "string", "enum": words })
            }
        }
    )*};
}

words!(Effort, Weights, Format, Isa, Phase);

impl JsonSchema for Shape {
    fn schema_name() -> Cow<'static, str> {
        "Shape".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[1-9][0-9]*x[1-9][0-9]*$" })
    }
}

/// `TRILUT_BLESS=1 cargo test -p trilut-presets schema` writes the file.
#[test]
fn the_committed_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("preset.schema.json");
    let schema = schemars::schema_for!(Document);
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os("TRILUT_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    // Not as texts: the order of fields depends on what else is in the build.
    let values = [&committed, &text].map(|t| serde_json::from_str::<serde_json::Value>(t).unwrap());
    assert_eq!(values[0], values[1], "run with TRILUT_BLESS=1 after a change of the types");
    for field in ["evidence", "default_ns", "hypervisor", "microcode", "interval", "regret"] {
        assert!(text.contains(&format!("\"{field}\"")), "{field}");
    }
}
