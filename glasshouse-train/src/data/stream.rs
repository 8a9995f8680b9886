//! Batches without end, in an order that depends on nothing but a seed.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pack::{Part, Row, batch, pack, parts};
use super::{Batch, DataError, Document};
use crate::rng::Stream;

/// The next row of a [`BatchStream`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Passes over the data that are done.
    pub epoch: u64,
    /// Rows of this pass that are done.
    pub row: u64,
}

/// Batches of packed rows. Each pass over the data shuffles and packs anew; a batch may end one pass and begin the next.
pub struct BatchStream {
    documents: Arc<Vec<Document>>,
    parts: Vec<Part>,
    rows: usize,
    length: usize,
    padding: u32,
    seed: u64,
    position: Position,
    epoch: Vec<Row>,
}

impl BatchStream {
    /// Batches of `rows` rows of `length` tokens, at the beginning.
    ///
    /// # Errors
    /// [`DataError::Shape`] for a batch without rows or rows that hold no label; [`DataError::Nothing`] when no document
    /// has a label.
    pub fn new(
        documents: Arc<Vec<Document>>,
        rows: usize,
        length: usize,
        padding: u32,
        seed: u64,
    ) -> Result<Self, DataError> {
        if rows == 0 || length < 2 {
            let why = "use at least one row of at least two tokens".to_owned();
            return Err(DataError::Shape { rows, length, why });
        }
        let parts = parts(&documents, length);
        if parts.is_empty() {
            return Err(DataError::Nothing { why: "no document has a token to learn".to_owned() });
        }
        let mut stream =
            Self { documents, parts, rows, length, padding, seed, position: Position::default(), epoch: Vec::new() };
        stream.epoch = stream.rows_of(0);
        Ok(stream)
    }

    /// The row that comes next.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Rows of the pass that it is in.
    pub fn rows_in_epoch(&self) -> usize {
        self.epoch.len()
    }

    /// Goes to a place, so that what follows is what followed there before.
    ///
    /// # Errors
    /// [`DataError::Position`] when that pass has no such row.
    pub fn seek(&mut self, to: Position) -> Result<(), DataError> {
        let rows = self.rows_of(to.epoch);
        if usize::try_from(to.row).is_ok_and(|row| row <= rows.len()) {
            self.epoch = rows;
            self.position = to;
            return Ok(());
        }
        Err(DataError::Position { epoch: to.epoch, row: to.row })
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> Batch {
        let mut taken = Vec::with_capacity(self.rows);
        while taken.len() < self.rows {
            let next = usize::try_from(self.position.row).ok().and_then(|row| self.epoch.get(row));
            match next {
                Some(row) => {
                    taken.push(row.clone());
                    self.position.row = self.position.row.saturating_add(1);
                }
                None => {
                    self.position = Position { epoch: self.position.epoch.saturating_add(1), row: 0 };
                    self.epoch = self.rows_of(self.position.epoch);
                }
            }
        }
        batch(&self.documents, &taken, self.length, self.padding)
    }

    /// One pass in the order of the data, for evaluation; the last batch may have fewer rows.
    pub fn in_order(documents: &[Document], rows: usize, length: usize, padding: u32) -> Vec<Batch> {
        let packed = pack(parts(documents, length), length);
        packed.chunks(rows.max(1)).map(|rows| batch(documents, rows, length, padding)).collect()
    }

    fn rows_of(&self, epoch: u64) -> Vec<Row> {
        let mut order: Vec<&Part> = self.parts.iter().collect();
        shuffle(&mut order, Stream::new(self.seed, epoch));
        pack(order.into_iter().cloned(), self.length)
    }
}

/// Fisher and Yates.
pub(super) fn shuffle<T>(items: &mut [T], random: Stream) {
    for last in (1..items.len()).rev() {
        let index = u64::try_from(last).unwrap_or(u64::MAX);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            clippy::arithmetic_side_effects
        )] // `uniform` is under 1 and data sets are far under 2^52 lines
        let other = (random.uniform(index) * (last + 1) as f64) as usize;
        items.swap(last, other.min(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(documents: usize, rows: usize, seed: u64) -> BatchStream {
        let document = |index: usize| Document {
            tokens: (0..2 + index % 7).map(|at| u32::try_from(index * 100 + at).unwrap()).collect(),
            learnt: vec![true; 2 + index % 7],
        };
        BatchStream::new(Arc::new((0..documents).map(document).collect()), rows, 8, 0, seed).unwrap()
    }

    #[test]
    fn one_seed_gives_one_order_and_each_pass_another() {
        let (mut a, mut b, mut other) = (stream(50, 3, 1), stream(50, 3, 1), stream(50, 3, 2));
        let first: Vec<Batch> = (0..40).map(|_| a.next_batch()).collect();
        assert!((0..40).all(|at| b.next_batch() == first[at]));
        assert!((0..40).any(|at| other.next_batch() != first[at]));
        assert!(a.position().epoch > 2);
        assert!(a.rows_of(0) != a.rows_of(1));
    }

    #[test]
    fn each_pass_has_all_of_the_data() {
        let stream = stream(50, 3, 1);
        for epoch in 0..3 {
            let rows = stream.rows_of(epoch);
            let mut seen: Vec<usize> = rows.iter().flatten().map(|part| part.document).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..50).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_to_learn_is_refused() {
        let silent = Document { tokens: vec![1, 2, 3], learnt: vec![true, false, false] };
        assert!(matches!(BatchStream::new(Arc::new(vec![silent]), 1, 8, 0, 0), Err(DataError::Nothing { .. })));
        for (rows, length) in [(0, 8), (1, 1), (1, 0)] {
            let empty = BatchStream::new(Arc::default(), rows, length, 0, 0);
            assert!(matches!(empty, Err(DataError::Shape { .. })));
        }
    }

    proptest! {
        #[test]
        fn a_stream_goes_on_from_any_place(before in 0usize..30, rows in 1usize..5) {
            let mut whole = stream(23, rows, 5);
            (0..before).for_each(|_| drop(whole.next_batch()));
            let mut resumed = stream(23, rows, 5);
            resumed.seek(whole.position()).unwrap();
            for _ in 0..20 {
                prop_assert!(whole.next_batch() == resumed.next_batch());
            }
            let nowhere = Position { epoch: 3, row: 1000 };
            prop_assert_eq!(resumed.seek(nowhere), Err(DataError::Position { epoch: 3, row: 1000 }));
        }
    }
}
