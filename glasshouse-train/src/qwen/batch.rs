//! What one forward pass reads.

use super::error::QwenError;

/// `rows` packed sequences of `length` tokens, row-major; everything of a batch lives on the host as u32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sequences.
    pub rows: usize,
    /// Tokens of each.
    pub length: usize,
    /// Token ids, `rows * length`.
    pub tokens: Vec<u32>,
    /// Position of each token within its document (RoPE); attention never crosses documents.
    pub positions: Vec<u32>,
    /// Id of the document within its row, non-decreasing along the row; padding has its own id.
    pub documents: Vec<u32>,
    /// The token to predict at each place, or [`IGNORE`].
    pub labels: Vec<u32>,
}

/// A label that is not counted.
pub const IGNORE: u32 = u32::MAX;

impl Batch {
    /// One document a row, predicted everywhere but at each row's end: what a plain causal language model trains on.
    ///
    /// # Errors
    /// [`QwenError::Batch`] unless `tokens` holds `rows * length` ids.
    pub fn plain(tokens: Vec<u32>, rows: usize, length: usize) -> Result<Self, QwenError> {
        if Some(tokens.len()) != rows.checked_mul(length) || tokens.is_empty() {
            let why = format!("{} tokens are not {rows} rows of {length}", tokens.len());
            return Err(QwenError::Batch { why });
        }
        let next = tokens.iter().skip(1).copied().chain([IGNORE]).enumerate();
        let labels = next.map(|(place, token)| if (place + 1) % length == 0 { IGNORE } else { token }).collect();
        let positions = (0..rows).flat_map(|_| 0..length).map(|position| position as u32).collect();
        Ok(Self { rows, length, positions, documents: vec![0; tokens.len()], labels, tokens })
    }

    /// Places whose label counts.
    pub fn targets(&self) -> usize {
        self.labels.iter().filter(|label| **label != IGNORE).count()
    }

    /// Checks every size and value against a vocabulary and the longest sequence of a model.
    ///
    /// # Errors
    /// [`QwenError::Batch`] and [`QwenError::TooLong`].
    pub(crate) fn validate(&self, vocabulary: usize, longest: usize) -> Result<(), QwenError> {
        let count = self.rows.saturating_mul(self.length);
        let refuse = |why: String| Err(QwenError::Batch { why });
        if count == 0 {
            return refuse("there are no tokens in it".to_owned());
        }
        for (what, values) in [
            ("tokens", &self.tokens),
            ("positions", &self.positions),
            ("documents", &self.documents),
            ("labels", &self.labels),
        ] {
            if values.len() != count {
                return refuse(format!("{} {what} for {} rows of {}", values.len(), self.rows, self.length));
            }
        }
        if let Some(token) = self.tokens.iter().find(|token| **token as usize >= vocabulary) {
            return refuse(format!("token {token} is outside the vocabulary of {vocabulary}"));
        }
        if let Some(label) = self.labels.iter().find(|label| **label != IGNORE && **label as usize >= vocabulary) {
            return refuse(format!("label {label} is outside the vocabulary of {vocabulary}"));
        }
        if let Some(position) = self.positions.iter().find(|position| **position as usize >= longest) {
            return Err(QwenError::TooLong { length: *position as usize + 1, longest });
        }
        for row in self.documents.chunks(self.length) {
            if row.iter().zip(row.iter().skip(1)).any(|(before, after)| before > after) {
                return refuse("document ids decrease along a row".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_rows_predict_the_next_token_within_the_row() {
        let batch = Batch::plain(vec![1, 2, 3, 4, 5, 6], 2, 3).unwrap();
        assert_eq!(batch.labels, [2, 3, IGNORE, 5, 6, IGNORE]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1, 2]);
        assert_eq!(batch.targets(), 4);
        assert!(batch.validate(7, 3).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Batch::plain(vec![1, 2, 3], 2, 2).is_err());
        let good = Batch::plain(vec![1, 2, 3, 4], 2, 2).unwrap();
        assert!(matches!(good.validate(4, 2), Err(QwenError::Batch { .. })));
        assert!(matches!(good.validate(9, 1), Err(QwenError::TooLong { length: 2, longest: 1 })));
        let short = Batch { labels: vec![0; 3], ..good.clone() };
        assert!(matches!(short.validate(9, 2), Err(QwenError::Batch { .. })));
        let backwards = Batch { documents: vec![1, 0, 0, 0], ..good };
        assert!(matches!(backwards.validate(9, 2), Err(QwenError::Batch { .. })));
    }
}
