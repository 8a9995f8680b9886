//! A data set: tokenized, and split into what is trained on and what is held out.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::stream::shuffle;
use super::{DataError, Document, Encoder, parse_jsonl};
use crate::rng::Stream;

/// Which random numbers choose the documents that are held out; passes over the data use their own number.
const SPLIT: u64 = u64::MAX;

/// Documents to train on and documents held out.
pub struct Dataset {
    /// To train on.
    pub train: Arc<Vec<Document>>,
    /// Held out, in the order of the data; empty when nothing is.
    pub held_out: Vec<Document>,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// Documents to train on.
    pub train_documents: usize,
    /// Their tokens.
    pub train_tokens: usize,
    /// Their tokens that have a loss.
    pub train_targets: usize,
    /// Documents held out.
    pub held_out_documents: usize,
    /// Their tokens that have a loss.
    pub held_out_targets: usize,
}

impl Dataset {
    /// Reads JSONL and holds out `fraction` of the documents, chosen by `seed`: at least one, and never all.
    ///
    /// # Errors
    /// [`DataError`], with the number of the line where it is one line's; [`DataError::Nothing`] when there is nothing
    /// to learn, or too little to hold anything out.
    pub fn read(jsonl: &[u8], encoder: &Encoder, fraction: f64, seed: u64) -> Result<Self, DataError> {
        let examples = parse_jsonl(jsonl)?;
        let encoded: Vec<Result<Document, DataError>> = examples.par_iter().map(|e| encoder.encode(e)).collect();
        let numbered = encoded.into_iter().zip(1_usize..);
        let documents: Vec<Document> =
            numbered.map(|(document, line)| document.map_err(|e| in_line(line, e))).collect::<Result<_, _>>()?;
        Self::split(documents, fraction, seed)
    }

    /// How much there is of everything.
    pub fn summary(&self) -> DatasetSummary {
        let targets = |documents: &[Document]| documents.iter().map(Document::targets).sum();
        DatasetSummary {
            train_documents: self.train.len(),
            train_tokens: self.train.iter().map(|document| document.tokens.len()).sum(),
            train_targets: targets(&self.train),
            held_out_documents: self.held_out.len(),
            held_out_targets: targets(&self.held_out),
        }
    }

    fn split(documents: Vec<Document>, fraction: f64, seed: u64) -> Result<Self, DataError> {
        let total = documents.len();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        // the configuration keeps the fraction between 0 and 1
        let held = match fraction > 0.0 {
            true if total < 2 => {
                let why = "one document is too few to hold some out; give more, or an evaluation fraction of 0";
                return Err(DataError::Nothing { why: why.to_owned() });
            }
            true => ((total as f64 * fraction).round() as usize).clamp(1, total.saturating_sub(1)),
            false => 0,
        };
        let mut order: Vec<usize> = (0..total).collect();
        shuffle(&mut order, Stream::new(seed, SPLIT));
        let mut is_held = vec![false; total];
        for index in order.into_iter().take(held) {
            if let Some(flag) = is_held.get_mut(index) {
                *flag = true;
            }
        }
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for (document, held) in documents.into_iter().zip(is_held) {
            if held { held_out.push(document) } else { train.push(document) }
        }
        if !train.iter().any(|document| document.targets() > 0) {
            return Err(DataError::Nothing { why: "no document has a token to learn".to_owned() });
        }
        Ok(Self { train: Arc::new(train), held_out })
    }
}

fn in_line(line: usize, error: DataError) -> DataError {
    match error {
        DataError::Line { why, .. } => DataError::Line { line, why },
        other => DataError::Line { line, why: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: usize, fraction: f64, seed: u64) -> Result<Dataset, DataError> {
        let jsonl: String = (0..lines).map(|line| format!("{{\"text\":\"{line:04}\"}}\n")).collect();
        Dataset::read(jsonl.as_bytes(), &Encoder::bytes()?, fraction, seed)
    }

    #[test]
    fn what_is_held_out_depends_on_the_seed_alone() {
        let texts = |documents: &[Document]| documents.iter().map(|d| d.tokens.clone()).collect::<Vec<_>>();
        let (a, b, other) = (read(100, 0.1, 1).unwrap(), read(100, 0.1, 1).unwrap(), read(100, 0.1, 2).unwrap());
        assert_eq!(texts(&a.held_out), texts(&b.held_out));
        assert_ne!(texts(&a.held_out), texts(&other.held_out));
        assert_eq!((a.train.len(), a.held_out.len()), (90, 10));
        let mut all = [texts(&a.train), texts(&a.held_out)].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 100);
        let summary = DatasetSummary {
            train_documents: 90,
            train_tokens: 450,
            train_targets: 360,
            held_out_documents: 10,
            held_out_targets: 40,
        };
        assert_eq!(a.summary(), summary);
    }

    #[test]
    fn something_always_stays_to_train_on() {
        let sizes = |lines, fraction| read(lines, fraction, 0).map(|d| (d.train.len(), d.held_out.len()));
        assert_eq!(sizes(2, 0.99), Ok((1, 1)));
        assert_eq!(sizes(10, 0.001), Ok((9, 1)));
        assert_eq!(sizes(1, 0.0), Ok((1, 0)));
        assert!(matches!(sizes(1, 0.5), Err(DataError::Nothing { .. })));
    }

    #[test]
    fn a_line_that_the_template_refuses_is_named() {
        let jsonl = "{\"text\":\"a\"}\n{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[1]}]}\n";
        let error = Dataset::read(jsonl.as_bytes(), &Encoder::bytes().unwrap(), 0.0, 0).err().unwrap();
        assert!(matches!(&error, DataError::Line { line: 2, .. }), "{error}");
    }
}
