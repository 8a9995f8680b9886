/// Why data cannot be trained on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// One line of the JSONL file.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong and what to do. Never what the line says, unless the model's chat template raises an error that
        /// repeats it; like every message of a workload it leaves the allocation sealed to the owner.
        why: String,
    },
    /// There is nothing to train on.
    #[error("{why}")]
    Nothing {
        /// What is missing.
        why: String,
    },
    /// The tokenizer's files.
    #[error("{file}: {why}")]
    Tokenizer {
        /// File name.
        file: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
    /// The chat template.
    #[error("the chat template {why}")]
    Template {
        /// What is wrong and what to do.
        why: String,
    },
    /// Rows cannot be this long or this many.
    #[error("rows of {length} tokens in batches of {rows}: {why}")]
    Shape {
        /// Rows of a batch.
        rows: usize,
        /// Tokens of a row.
        length: usize,
        /// What is wrong and what to do.
        why: String,
    },
    /// A place in the data that this data set does not have.
    #[error(
        "epoch {epoch}, row {row} is no place in this data; resume with the data set and the batch of the checkpoint"
    )]
    Position {
        /// The epoch.
        epoch: u64,
        /// The row within it.
        row: u64,
    },
}
