//! What is said of a folder that cannot be run.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use altgrad_llama::{Config, Rope, RopeScaling};
use serde_json::{Value, json};

/// The configuration of a fixture, with changes.
fn config(name: &str, changes: &Value) -> Result<Config, String> {
    let text = std::fs::read_to_string(common::folder(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    Config::from_json(&config.to_string()).map_err(|error| format!("{error:#}"))
}

#[test]
fn what_the_example_does_not_have() {
    for (name, changes, expected) in [
        (
            "llama",
            json!({"model_type": "gemma3"}),
            "the model type `gemma3` is not one of llama, mistral, qwen2 and qwen3",
        ),
        ("llama", json!({"model_type": null}), "the field `model_type` is missing"),
        ("llama", json!({"hidden_act": "gelu"}), "`hidden_act` is `gelu`"),
        ("llama", json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}), "`yarn`"),
        ("llama", json!({"rope_parameters": {"rope_type": "linear"}}), "no `factor`"),
        ("llama", json!({"num_key_value_heads": 3}), "4 attention heads cannot share 3"),
        ("llama", json!({"num_key_value_heads": 0}), "4 attention heads cannot share 0"),
        ("llama", json!({"head_dim": 7}), "must be even"),
        ("llama", json!({"hidden_size": "32"}), "expected usize"),
        ("qwen2", json!({"use_sliding_window": true}), "`use_sliding_window` is true"),
    ] {
        let error = config(name, &changes).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn older_files_have_other_fields() {
    let older = json!({"rope_parameters": null, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 8.0}});
    let rope = config("llama", &older).unwrap().rope;
    assert_eq!(rope, Rope { theta: 5e5, scaling: RopeScaling::Linear { factor: 8.0 } });
    let oldest = json!({"rope_parameters": null, "num_key_value_heads": null, "head_dim": null});
    let config = config("mistral", &oldest).unwrap();
    assert_eq!((config.rope.theta, config.kv_heads, config.head_dim), (1e4, 4, 8));
}

#[test]
fn a_folder_without_a_configuration() {
    let error = format!("{:#}", Config::of_folder(Path::new("nowhere")).unwrap_err());
    assert!(error.contains("cannot read") && error.contains("nowhere"), "{error}");
}
