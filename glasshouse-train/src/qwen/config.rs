//! `config.json` of a Qwen2 or Qwen2.5 model, as Hugging Face publishes it.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::path::Path;

use serde_json::Value;

use super::error::QwenError;

/// Shapes and constants of a Qwen2 model.
#[derive(Clone, Debug, PartialEq)]
pub struct QwenConfig {
    /// Words of the vocabulary, padding included: rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Positions that the model was made for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// The embedding is also the output layer.
    pub tie_word_embeddings: bool,
}

impl QwenConfig {
    /// Reads `config.json` in a model's directory.
    ///
    /// # Errors
    /// [`QwenError::File`] and what [`from_json`](Self::from_json) says.
    pub fn from_dir(directory: &Path) -> Result<Self, QwenError> {
        let path = directory.join("config.json");
        let bytes = std::fs::read(&path).map_err(|source| QwenError::File { path, source })?;
        Self::from_json(&bytes)
    }

    /// Reads the text of a `config.json`. What would change the result and is not implemented (scaled RoPE, sliding
    /// windows, another activation) is refused rather than ignored.
    ///
    /// # Errors
    /// [`QwenError::Json`], [`QwenError::Architecture`], [`QwenError::MissingField`], [`QwenError::ConfigValue`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, QwenError> {
        let json: Value = serde_json::from_slice(bytes)
            .map_err(|error| QwenError::Json { name: "config.json".to_owned(), why: error.to_string() })?;
        match json.get("model_type").map(|found| found.as_str().unwrap_or_default()) {
            Some("qwen2") => {}
            Some(found) => return Err(QwenError::Architecture { found: found.to_owned() }),
            None => return Err(QwenError::MissingField { field: "model_type" }),
        }
        match json.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu") => {}
            Some(other) => return Err(value("hidden_act", other, "only silu is Qwen2's")),
        }
        if json.get("use_sliding_window").and_then(Value::as_bool) == Some(true) {
            return Err(value("use_sliding_window", "true", "sliding windows are not implemented"));
        }
        let heads = size(&json, "num_attention_heads")?;
        let hidden_size = size(&json, "hidden_size")?;
        let head_dim = match json.get("head_dim") {
            None | Some(Value::Null) => hidden_size.checked_div(heads).unwrap_or(0),
            Some(_) => size(&json, "head_dim")?,
        };
        let kv_heads = match json.get("num_key_value_heads") {
            None | Some(Value::Null) => heads,
            Some(_) => size(&json, "num_key_value_heads")?,
        };
        let config = Self {
            vocab_size: size(&json, "vocab_size")?,
            hidden_size,
            intermediate_size: size(&json, "intermediate_size")?,
            layers: size(&json, "num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            max_position_embeddings: size(&json, "max_position_embeddings")?,
            rms_norm_eps: number(&json, "rms_norm_eps")?,
            rope_theta: rope_theta(&json)?,
            tie_word_embeddings: json.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that the shapes fit each other.
    ///
    /// # Errors
    /// [`QwenError::ConfigValue`].
    pub fn validate(&self) -> Result<(), QwenError> {
        if self.heads.checked_rem(self.kv_heads) != Some(0) {
            return Err(value("num_key_value_heads", self.kv_heads, "it must divide num_attention_heads"));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return Err(value("head_dim", self.head_dim, "rotary positions need an even number"));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(value("rms_norm_eps", self.rms_norm_eps, "it must be above 0 and below 1"));
        }
        if !(self.rope_theta > 1.0 && self.rope_theta.is_finite()) {
            return Err(value("rope_theta", self.rope_theta, "it must be above 1"));
        }
        for (field, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if !(1..=LARGEST).contains(&size) {
                return Err(value(field, size, "it must be from 1 to 16777216"));
            }
        }
        if self.query_width() > LARGEST {
            return Err(value("head_dim", self.head_dim, "heads times head_dim must be at most 16777216"));
        }
        Ok(())
    }

    /// Columns of the queries: heads times head width.
    pub fn query_width(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }

    /// Columns of the keys, and of the values.
    pub fn key_width(&self) -> usize {
        self.kv_heads.saturating_mul(self.head_dim)
    }

    /// All weights of the base model, the tied embedding once.
    pub fn parameters(&self) -> u64 {
        let [hidden, inner, query, key, vocab, layers] = [
            self.hidden_size,
            self.intermediate_size,
            self.query_width(),
            self.key_width(),
            self.vocab_size,
            self.layers,
        ]
        .map(|size| size as u64);
        let attention = product(query, hidden)
            .saturating_mul(2)
            .saturating_add(product(key, hidden).saturating_mul(2))
            .saturating_add(query)
            .saturating_add(key.saturating_mul(2));
        let block =
            attention.saturating_add(product(inner, hidden).saturating_mul(3)).saturating_add(hidden.saturating_mul(2));
        let embeddings = product(vocab, hidden).saturating_mul(if self.tie_word_embeddings { 1 } else { 2 });
        block.saturating_mul(layers).saturating_add(embeddings).saturating_add(hidden)
    }

    /// The published shape of Qwen2.5-0.5B.
    pub fn qwen2_5_0_5b() -> Self {
        Self {
            vocab_size: 151_936,
            hidden_size: 896,
            intermediate_size: 4864,
            layers: 24,
            heads: 14,
            kv_heads: 2,
            head_dim: 64,
            max_position_embeddings: 32_768,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            tie_word_embeddings: true,
        }
    }

    /// The published shape of Qwen2.5-7B.
    pub fn qwen2_5_7b() -> Self {
        Self {
            vocab_size: 152_064,
            hidden_size: 3584,
            intermediate_size: 18_944,
            layers: 28,
            heads: 28,
            kv_heads: 4,
            head_dim: 128,
            max_position_embeddings: 131_072,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            tie_word_embeddings: false,
        }
    }

    /// A model for a bare machine: 4 blocks of 64, bytes and a few marks as vocabulary, random weights.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 320,
            hidden_size: 64,
            intermediate_size: 192,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            tie_word_embeddings: true,
        }
    }

    /// The `config.json` of this shape, as transformers reads it: two-space indent, sorted keys.
    pub fn to_json(&self) -> String {
        let json = serde_json::json!({
            "architectures": ["Qwen2ForCausalLM"],
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": "qwen2",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_sliding_window": false,
            "vocab_size": self.vocab_size,
        });
        format!("{json:#}\n")
    }
}

/// Well beyond any published size, and small enough that products of two stay below 2^48.
const LARGEST: usize = 1 << 24;

fn product(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

/// Transformers 4 writes `rope_theta` and perhaps `rope_scaling`; 5 writes `rope_parameters`.
fn rope_theta(json: &Value) -> Result<f64, QwenError> {
    let parameters = ["rope_parameters", "rope_scaling"]
        .into_iter()
        .filter_map(|field| json.get(field))
        .find(|found| !found.is_null());
    let kind = parameters.and_then(|found| found.get("rope_type").or_else(|| found.get("type")));
    match kind.map(|kind| kind.as_str().unwrap_or("something that is not a string")) {
        None | Some("default") => {}
        Some(other) => return Err(value("rope_type", other, "only plain rotary positions are implemented")),
    }
    match parameters.and_then(|found| found.get("rope_theta")) {
        Some(theta) => theta.as_f64().ok_or_else(|| value("rope_theta", theta, "it must be a number")),
        None => number(json, "rope_theta"),
    }
}

fn number(json: &Value, field: &'static str) -> Result<f64, QwenError> {
    let found = json.get(field).ok_or(QwenError::MissingField { field })?;
    found.as_f64().ok_or_else(|| value(field, found, "it must be a number"))
}

fn size(json: &Value, field: &'static str) -> Result<usize, QwenError> {
    let found = json.get(field).ok_or(QwenError::MissingField { field })?;
    let size = found.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| (1..=LARGEST).contains(size));
    size.ok_or_else(|| value(field, found, "it must be a whole number from 1 to 16777216"))
}

fn value(field: &'static str, found: impl ToString, expected: &'static str) -> QwenError {
    QwenError::ConfigValue { field, value: found.to_string(), expected }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn published() -> Value {
        serde_json::from_str(&QwenConfig::qwen2_5_0_5b().to_json()).unwrap()
    }

    fn with(field: &str, new: Value) -> Result<QwenConfig, QwenError> {
        let mut json = published();
        json[field] = new;
        QwenConfig::from_json(json.to_string().as_bytes())
    }

    #[test]
    fn what_is_written_is_read() {
        for config in [QwenConfig::qwen2_5_0_5b(), QwenConfig::qwen2_5_7b(), QwenConfig::tiny()] {
            config.validate().unwrap();
            assert_eq!(QwenConfig::from_json(config.to_json().as_bytes()).unwrap(), config);
        }
    }

    #[test]
    fn weights_count_as_published() {
        assert_eq!(QwenConfig::qwen2_5_0_5b().parameters(), 494_032_768);
        assert_eq!(QwenConfig::qwen2_5_7b().parameters(), 7_615_616_512);
    }

    #[test]
    fn what_is_not_qwen2_is_refused_with_its_name() {
        let error = with("model_type", "llama".into()).unwrap_err();
        assert!(matches!(&error, QwenError::Architecture { found } if found == "llama"), "{error}");
        assert!(with("hidden_act", "gelu".into()).is_err());
        assert!(with("use_sliding_window", true.into()).is_err());
        assert!(with("rope_scaling", serde_json::json!({"type": "yarn", "factor": 4.0})).is_err());
        assert!(with("rope_scaling", Value::Null).is_ok());
        assert!(with("num_key_value_heads", 3.into()).is_err());
        assert!(with("hidden_size", 0.into()).is_err());
        assert!(with("vocab_size", "many".into()).is_err());
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut json = published();
        json.as_object_mut().unwrap().remove("intermediate_size");
        let error = QwenConfig::from_json(json.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, QwenError::MissingField { field: "intermediate_size" }));
    }

    #[test]
    fn transformers_5_keeps_theta_in_rope_parameters() {
        let config = with("rope_parameters", serde_json::json!({"rope_type": "default", "rope_theta": 5e5})).unwrap();
        assert_eq!(config.rope_theta, 5e5);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = QwenConfig::from_json(&bytes);
        }

        #[test]
        fn no_value_panics(field in 0usize..12, number: i64) {
            let fields: Vec<String> = published().as_object().unwrap().keys().cloned().collect();
            let _ = with(&fields[field], number.into());
        }
    }
}
