//! What goes wrong in a fine-tuning run, in the words of a workload.

use candle_core::DType;
use glasshouse_core::traits::WorkloadError;

use crate::data::DataError;
use crate::qwen::QwenError;

/// Where a model's files are named in messages.
const MODEL: &str = "model";

pub(super) fn input(name: &str, why: impl ToString) -> WorkloadError {
    WorkloadError::Input { name: name.to_owned(), why: why.to_string() }
}

pub(super) fn device(what: &str, error: impl ToString) -> WorkloadError {
    WorkloadError::Device { what: what.to_owned(), why: error.to_string() }
}

pub(super) fn data(error: DataError) -> WorkloadError {
    match error {
        DataError::Tokenizer { file, why } => input(file, why),
        DataError::Template { .. } => input("tokenizer_config.json", error),
        DataError::Shape { why, .. } => super::settings::refuse("sequence", why),
        DataError::Position { .. } => input(super::CHECKPOINT_ENTRY, error),
        other => input(super::DATA_ENTRY, other),
    }
}

/// What candle says of `what`, told apart by whether there was too little memory.
pub(super) fn tensor(what: &str, error: &candle_core::Error) -> WorkloadError {
    match QwenError::candle(what, error) {
        QwenError::OutOfMemory { .. } => {
            device(what, "out of device memory; use fewer rows, shorter ones, or recompute blocks")
        }
        _ => device(what, error),
    }
}

/// As [`model`], while the base is being loaded: what is too large then are its weights, so many in such a type.
pub(super) fn loading(error: QwenError, parameters: u64, dtype: DType) -> WorkloadError {
    match error {
        QwenError::OutOfMemory { what, .. } => {
            let gib = parameters.saturating_mul(dtype.size_in_bytes() as u64) as f64 / f64::from(1 << 30);
            let smaller = if dtype == DType::F32 { "bf16 takes half; else use " } else { "use " };
            device(&what, format!("out of device memory: the weights alone are {gib:.1} GiB; {smaller}a larger device"))
        }
        other => model(other, 1, 1),
    }
}

/// `rows` and `accumulate` of the run, to say what would fit.
pub(super) fn model(error: QwenError, rows: usize, accumulate: u32) -> WorkloadError {
    match error {
        QwenError::OutOfMemory { what, advice } => {
            let smaller = match rows > 1 {
                true => {
                    let (rows, accumulate) = (rows.div_ceil(2), accumulate.saturating_mul(2));
                    format!(
                        "a batch of {rows} with {accumulate} accumulated makes steps of about that size in half the memory; else "
                    )
                }
                false => String::new(),
            };
            device(&what, format!("out of device memory; {smaller}{advice}"))
        }
        QwenError::Device { what, why } => device(&what, why),
        QwenError::Lora { .. } => super::settings::refuse("lora", error.to_string()),
        QwenError::TooLong { .. } => super::settings::refuse("sequence", error.to_string()),
        QwenError::NoGradient { .. } => device("the first backward pass", error),
        QwenError::AdapterMismatch { .. } => input(super::ADAPTER_ENTRY, error),
        // Its variants name the file or the tensor where they can.
        other => input(MODEL, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_says_what_would_fit() {
        let full = || QwenError::OutOfMemory { what: "the forward pass".to_owned(), advice: "recompute".to_owned() };
        let many = model(full(), 7, 2).to_string();
        assert!(many.contains("a batch of 4 with 4 accumulated"), "{many}");
        let one = model(full(), 1, 1).to_string();
        assert!(one.contains("out of device memory; recompute") && !one.contains("a batch of"), "{one}");
        let base = loading(full(), 7_615_616_512, DType::F32).to_string();
        assert!(base.contains("28.4 GiB; bf16 takes half") && !base.contains("a batch of"), "{base}");
        let raw = candle_core::Error::Msg("CUBLAS_STATUS_ALLOC_FAILED".to_owned());
        assert!(tensor("the optimizer", &raw).to_string().contains("use fewer rows"));
    }

    #[test]
    fn errors_name_what_they_are_about() {
        let names = |error: WorkloadError| error.to_string();
        assert!(names(model(QwenError::TooLong { length: 9, longest: 8 }, 1, 1)).starts_with("configuration sequence"));
        assert!(names(data(DataError::Line { line: 3, why: "x".to_owned() })).starts_with("input data.jsonl: line 3"));
        assert!(names(data(DataError::Template { why: "x".to_owned() })).starts_with("input tokenizer_config.json"));
    }
}
