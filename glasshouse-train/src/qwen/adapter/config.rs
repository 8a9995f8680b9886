//! `adapter_config.json`.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde_json::{Value, json};

use super::CONFIG_FILE;
use crate::qwen::error::QwenError;
use crate::qwen::lora::{LoraConfig, Target};

/// The settings that an `adapter_config.json` describes. What is not in [`LoraConfig`] and would change the result is
/// refused.
///
/// # Errors
/// [`QwenError::Json`], [`QwenError::AdapterMismatch`], [`QwenError::Lora`].
pub fn lora_config(bytes: &[u8]) -> Result<LoraConfig, QwenError> {
    let bad = |why: String| QwenError::Json { name: CONFIG_FILE.to_owned(), why };
    let json: Value = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    let field = |name: &str| json.get(name).unwrap_or(&Value::Null);
    for (name, plain) in plain_settings() {
        let found = field(name);
        let absent = found.is_null() || found == &json!(false) || found == &json!({}) || found == &json!([]);
        // A start that only the random numbers differ in; others (PiSSA, LoftQ) change the base that it belongs to.
        let gaussian = name == "init_lora_weights" && found == &json!("gaussian");
        if !absent && !gaussian && found != &plain {
            let (expected, found) = (plain.to_string(), found.to_string());
            return Err(QwenError::AdapterMismatch { what: name.to_owned(), expected, found });
        }
    }
    let Some(names) = field("target_modules").as_array() else {
        return Err(bad("target_modules is not a list of names".to_owned()));
    };
    let targets =
        names.iter().map(|name| name.as_str().unwrap_or_default().parse()).collect::<Result<Vec<Target>, _>>()?;
    let rank = field("r").as_u64().and_then(|rank| usize::try_from(rank).ok());
    let lora = LoraConfig {
        rank: rank.ok_or_else(|| bad("r is not a whole number".to_owned()))?,
        alpha: field("lora_alpha").as_f64().ok_or_else(|| bad("lora_alpha is not a number".to_owned()))?,
        dropout: field("lora_dropout").as_f64().unwrap_or(0.0),
        targets,
        rslora: field("use_rslora").as_bool().unwrap_or(false),
    };
    lora.validate()?;
    Ok(lora)
}

/// `adapter_config.json` as PEFT 0.21 writes it: sorted keys, two-space indent, no newline at the end.
pub(super) fn config_json(lora: &LoraConfig, base: Option<&str>) -> String {
    // PEFT keeps a whole alpha as the integer that people write.
    let whole = lora.alpha.fract() == 0.0 && lora.alpha < 1e15;
    let alpha = if whole { json!(lora.alpha as u64) } else { json!(lora.alpha) };
    let targets: Vec<&str> = lora.targets.iter().map(|target| target.name()).collect();
    let config = json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": {},
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {},
        "lora_alpha": alpha,
        "lora_bias": false,
        "lora_dropout": lora.dropout,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": null,
        "monteclora_config": null,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": lora.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": targets,
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": lora.rslora,
        "velora_config": null,
    });
    format!("{config:#}")
}

/// Settings that must be plain, and what plain is.
fn plain_settings() -> [(&'static str, Value); 25] {
    let none = || Value::Null;
    [
        ("peft_type", json!("LORA")),
        ("bias", json!("none")),
        ("fan_in_fan_out", none()),
        ("use_dora", none()),
        ("use_qalora", none()),
        ("lora_bias", none()),
        ("rank_pattern", none()),
        ("alpha_pattern", none()),
        ("modules_to_save", none()),
        ("layers_to_transform", none()),
        ("layer_replication", none()),
        ("target_parameters", none()),
        ("exclude_modules", none()),
        ("trainable_token_indices", none()),
        ("init_lora_weights", json!(true)),
        ("alora_invocation_tokens", none()),
        ("arrow_config", none()),
        ("corda_config", none()),
        ("eva_config", none()),
        ("kasa_config", none()),
        ("layers_pattern", none()),
        ("loftq_config", none()),
        ("lora_ga_config", none()),
        ("monteclora_config", none()),
        ("use_bdlora", none()),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_kinds_of_adapters_are_refused() {
        let plain: Value = serde_json::from_str(&config_json(&LoraConfig::default(), None)).unwrap();
        for (field, value) in [
            ("use_dora", json!(true)),
            ("peft_type", json!("IA3")),
            ("bias", json!("all")),
            ("rank_pattern", json!({"q_proj": 2})),
            ("target_modules", json!("all-linear")),
            ("target_modules", json!(["c_attn"])),
            ("r", json!(0)),
            ("init_lora_weights", json!("pissa")),
            ("alora_invocation_tokens", json!([1, 2])),
            ("eva_config", json!({"rho": 2.0})),
        ] {
            let mut json = plain.clone();
            json[field] = value;
            assert!(lora_config(json.to_string().as_bytes()).is_err(), "{field}");
        }
        for start in [json!(true), json!(false), json!("gaussian")] {
            let mut json = plain.clone();
            json["init_lora_weights"] = start;
            assert!(lora_config(json.to_string().as_bytes()).is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = lora_config(&bytes);
        }
    }
}
