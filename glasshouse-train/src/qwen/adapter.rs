//! Adapters as PEFT writes and reads them: `adapter_config.json` and `adapter_model.safetensors`.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

use super::error::QwenError;
use super::lora::{LoraConfig, Target};
use super::model::Qwen2;

/// Name of the settings' file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the tensors' file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The two files of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFiles {
    /// `adapter_config.json`.
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`, f32.
    pub weights: Vec<u8>,
}

/// The model's adapters as files. `base` is what `base_model_name_or_path` will say: a hub id or a directory, if known.
///
/// # Errors
/// [`QwenError::Device`] when the adapters cannot be read back.
pub fn export(model: &Qwen2, base: Option<&str>) -> Result<AdapterFiles, QwenError> {
    let mut tensors = Vec::with_capacity(model.trainable().len());
    for (name, variable) in model.trainable() {
        let values = variable.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
        let values = values.map_err(|error| QwenError::candle(&format!("reading {name} back"), &error))?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((name.clone(), variable.dims().to_vec(), bytes));
    }
    let failed = |error: safetensors::SafeTensorError| QwenError::Device {
        what: format!("writing {WEIGHTS_FILE}"),
        why: error.to_string(),
    };
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?)))
        .collect::<Result<Vec<_>, QwenError>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let weights = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
    Ok(AdapterFiles { config: config_json(model.lora(), base).into_bytes(), weights })
}

/// Writes both files to a directory, which it makes.
///
/// # Errors
/// [`QwenError::File`], [`QwenError::Device`].
pub fn save(model: &Qwen2, base: Option<&str>, directory: &Path) -> Result<(), QwenError> {
    let files = export(model, base)?;
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).map_err(|source| QwenError::File { path: path.to_owned(), source })
    };
    std::fs::create_dir_all(directory).map_err(|source| QwenError::File { path: directory.to_owned(), source })?;
    write(&directory.join(WEIGHTS_FILE), &files.weights)?;
    write(&directory.join(CONFIG_FILE), &files.config)
}

/// Reads both files of a directory.
///
/// # Errors
/// [`QwenError::File`].
pub fn read(directory: &Path) -> Result<AdapterFiles, QwenError> {
    let file = |name: &str| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|source| QwenError::File { path, source })
    };
    Ok(AdapterFiles { config: file(CONFIG_FILE)?, weights: file(WEIGHTS_FILE)? })
}

/// Sets the model's adapters to those of the files, to continue from them. Nothing is changed unless all fits.
///
/// # Errors
/// [`QwenError::AdapterMismatch`] when rank, scale, targets or a shape differ from the model's, or when the adapter is of
/// a kind that is not trained here; [`QwenError::Json`], [`QwenError::Header`], [`QwenError::MissingTensor`].
pub fn import(model: &Qwen2, files: &AdapterFiles) -> Result<(), QwenError> {
    let (found, expected) = (lora_config(&files.config)?, model.lora());
    let mismatch = |what: &str, expected: String, found: String| {
        Err(QwenError::AdapterMismatch { what: what.to_owned(), expected, found })
    };
    if found.rank != expected.rank {
        return mismatch("rank", expected.rank.to_string(), found.rank.to_string());
    }
    let sorted = |lora: &LoraConfig| {
        let mut targets = lora.targets.clone();
        targets.sort();
        targets.iter().map(|target| target.name()).collect::<Vec<_>>().join(",")
    };
    if sorted(&found) != sorted(expected) {
        return mismatch("targets", sorted(expected), sorted(&found));
    }
    if (found.scale() - expected.scale()).abs() > 1e-9 * expected.scale() {
        return mismatch("scale (from alpha, rank, rsLoRA)", expected.scale().to_string(), found.scale().to_string());
    }
    let header = |why: String| QwenError::Header { path: WEIGHTS_FILE.into(), why };
    let tensors = SafeTensors::deserialize(&files.weights).map_err(|error| header(error.to_string()))?;
    let mut values = Vec::with_capacity(model.trainable().len());
    for (name, variable) in model.trainable() {
        let view = tensors.tensor(name).map_err(|_| QwenError::MissingTensor { name: name.clone() })?;
        if view.shape() != variable.dims() {
            return mismatch(name, format!("{:?}", variable.dims()), format!("{:?}", view.shape()));
        }
        values.push(tensor(name, &view, model.device())?);
    }
    if let Some(other) = tensors.names().into_iter().find(|name| !model.trainable().iter().any(|(own, _)| own == name))
    {
        return mismatch("set of tensors", "those of its targets alone".to_owned(), format!("also {other}"));
    }
    for ((name, variable), value) in model.trainable().iter().zip(values) {
        variable.set(&value).map_err(|error| QwenError::candle(&format!("setting {name}"), &error))?;
    }
    Ok(())
}

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
fn config_json(lora: &LoraConfig, base: Option<&str>) -> String {
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

fn tensor(name: &str, view: &TensorView<'_>, device: &Device) -> Result<Tensor, QwenError> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => return Err(QwenError::TensorType { name: name.to_owned(), found: format!("{other:?}") }),
    };
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), device)
        .and_then(|tensor| tensor.to_dtype(DType::F32))
        .map_err(|error| QwenError::candle(&format!("reading {name}"), &error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::qwen::QwenConfig;

    fn model(lora: &LoraConfig, seed: u64) -> Qwen2 {
        let config = QwenConfig { layers: 2, ..QwenConfig::tiny() };
        Qwen2::random(&config, lora, &Device::Cpu, DType::F32, seed).unwrap()
    }

    fn values(model: &Qwen2) -> Vec<f32> {
        let of = |(_, variable): &(String, candle_core::Var)| variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        model.trainable().iter().flat_map(of).collect()
    }

    #[test]
    fn what_is_exported_is_imported() {
        let lora = LoraConfig { alpha: 2.5, targets: Target::ALL.to_vec(), ..LoraConfig::default() };
        let (from, to) = (model(&lora, 1), model(&lora, 2));
        let directory = tempfile::tempdir().unwrap();
        save(&from, Some("Qwen/Qwen2.5-0.5B"), directory.path()).unwrap();
        let files = read(directory.path()).unwrap();
        assert_eq!(files, export(&from, Some("Qwen/Qwen2.5-0.5B")).unwrap());
        assert_eq!(lora_config(&files.config).unwrap(), lora);
        assert_ne!(values(&from), values(&to));
        import(&to, &files).unwrap();
        assert_eq!(values(&from), values(&to));
    }

    #[test]
    fn another_rank_scale_or_set_of_targets_is_refused_and_changes_nothing() {
        let lora = LoraConfig::default();
        let to = model(&lora, 2);
        let before = values(&to);
        for (what, other) in [
            ("rank", LoraConfig { rank: 8, alpha: 16.0, ..lora.clone() }),
            ("targets", LoraConfig { targets: vec![Target::Query, Target::Key], ..lora.clone() }),
            ("scale (from alpha, rank, rsLoRA)", LoraConfig { rslora: true, ..lora.clone() }),
        ] {
            let files = export(&model(&other, 1), None).unwrap();
            let Err(QwenError::AdapterMismatch { what: found, .. }) = import(&to, &files) else { panic!("{what}") };
            assert_eq!(found, what);
        }
        let mut deeper = export(&model(&lora, 1), None).unwrap();
        deeper.weights.truncate(100);
        assert!(matches!(import(&to, &deeper), Err(QwenError::Header { .. })));
        assert_eq!(values(&to), before);
    }

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
