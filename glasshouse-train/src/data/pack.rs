//! Documents into rows of one length.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::ops::Range;

use super::{Batch, Document, IGNORE};

/// Rows that are filled at the same time. More of them leave less padding and mix the order less.
const OPEN_ROWS: usize = 32;

/// A stretch of a document that goes into a row as a document of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) document: usize,
    pub(super) tokens: Range<usize>,
}

/// The parts of a row, in order.
pub(super) type Row = Vec<Part>;

/// Cuts documents that are longer than a row. Each part begins with the last token of the part before it, so that no
/// label is lost; parts without a label are left out.
pub(super) fn parts(documents: &[Document], length: usize) -> Vec<Part> {
    let step = length.saturating_sub(1).max(1);
    let of = |(index, document): (usize, &Document)| -> Vec<Part> {
        let total = document.tokens.len();
        let starts = (0..total).step_by(step);
        let cut = starts.map(|start| Part { document: index, tokens: start..start.saturating_add(length).min(total) });
        // Labels are the tokens after the first.
        cut.filter(|part| {
            let labels = part.tokens.start.saturating_add(1)..part.tokens.end;
            document.learnt.get(labels).is_some_and(|learnt| learnt.contains(&true))
        })
        .collect()
    };
    documents.iter().enumerate().flat_map(of).collect()
}

/// First fit into up to [`OPEN_ROWS`] rows; the fullest is closed when none has room. The same parts in the same order
/// give the same rows.
pub(super) fn pack(parts: impl IntoIterator<Item = Part>, length: usize) -> Vec<Row> {
    let (mut rows, mut open) = (Vec::new(), Vec::<(usize, Row)>::new());
    for part in parts {
        let needed = part.tokens.len();
        if let Some((room, row)) = open.iter_mut().find(|(room, _)| *room >= needed) {
            *room = room.saturating_sub(needed);
            row.push(part);
        } else {
            if open.len() == OPEN_ROWS {
                let fullest = open.iter().enumerate().min_by_key(|(_, (room, _))| *room).map_or(0, |(at, _)| at);
                rows.push(open.remove(fullest).1);
            }
            open.push((length.saturating_sub(needed), vec![part]));
        }
        if let Some(full) = open.iter().position(|(room, _)| *room == 0) {
            rows.push(open.remove(full).1);
        }
    }
    rows.extend(open.into_iter().map(|(_, row)| row));
    rows
}

/// Rows as tensors take them. What of a row is left is filled with `padding`, as a document of its own without labels.
pub(super) fn batch<'a>(
    documents: &[Document],
    rows: impl IntoIterator<Item = &'a Row>,
    length: usize,
    padding: u32,
) -> Batch {
    let empty = Vec::new;
    let mut batch = Batch { rows: 0, length, tokens: empty(), positions: empty(), documents: empty(), labels: empty() };
    for row in rows {
        let end = batch.tokens.len().saturating_add(length);
        let mut number = 0_u32;
        for part in row {
            let Some(document) = documents.get(part.document) else { continue };
            let tokens = document.tokens.get(part.tokens.clone()).unwrap_or_default();
            let learnt = document.learnt.get(part.tokens.clone()).unwrap_or_default();
            let next = tokens.iter().zip(learnt).skip(1).map(|(token, learnt)| if *learnt { *token } else { IGNORE });
            batch.labels.extend(next.chain([IGNORE]).take(tokens.len()));
            batch.tokens.extend_from_slice(tokens);
            batch.positions.extend((0..).take(tokens.len()));
            batch.documents.extend(std::iter::repeat_n(number, tokens.len()));
            number = number.saturating_add(1);
        }
        let left = end.saturating_sub(batch.tokens.len());
        batch.tokens.extend(std::iter::repeat_n(padding, left));
        batch.positions.extend((0..).take(left));
        batch.documents.extend(std::iter::repeat_n(number, left));
        batch.labels.extend(std::iter::repeat_n(IGNORE, left));
        batch.rows = batch.rows.saturating_add(1);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn documents(lengths: &[usize]) -> Vec<Document> {
        let document = |(index, length): (usize, &usize)| Document {
            tokens: (0..*length).map(|at| (index * 1000 + at) as u32).collect(),
            learnt: vec![true; *length],
        };
        lengths.iter().enumerate().map(document).collect()
    }

    #[test]
    fn a_row_holds_documents_and_padding() {
        let mut documents = documents(&[3, 2]);
        documents[0].learnt = vec![false, false, true];
        let rows = pack(parts(&documents, 8), 8);
        let batch = batch(&documents, &rows, 8, 7);
        assert_eq!((batch.rows, batch.length), (1, 8));
        assert_eq!(batch.tokens, [0, 1, 2, 1000, 1001, 7, 7, 7]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1, 0, 1, 2]);
        assert_eq!(batch.documents, [0, 0, 0, 1, 1, 2, 2, 2]);
        assert_eq!(batch.labels, [IGNORE, 2, IGNORE, 1001, IGNORE, IGNORE, IGNORE, IGNORE]);
    }

    #[test]
    fn parts_without_a_label_are_left_out() {
        let mut documents = documents(&[10, 1]);
        documents[0].learnt = (0..10).map(|at| at > 7).collect();
        let found = parts(&documents, 4);
        assert_eq!(found, [Part { document: 0, tokens: 6..10 }]);
    }

    proptest! {
        #[test]
        fn every_label_is_learnt_exactly_once(lengths in prop::collection::vec(0usize..40, 0..120), length in 2usize..16) {
            let documents = documents(&lengths);
            let rows = pack(parts(&documents, length), length);
            let batch = batch(&documents, &rows, length, 0);
            prop_assert_eq!(batch.tokens.len(), batch.rows * length);
            for (index, label) in batch.labels.iter().enumerate().filter(|(_, label)| **label != IGNORE) {
                prop_assert_eq!(batch.tokens[index] + 1, *label);
                prop_assert_eq!(batch.documents[index], batch.documents[index + 1]);
            }
            let mut labels: Vec<u32> = batch.labels.iter().copied().filter(|label| *label != IGNORE).collect();
            labels.sort_unstable();
            let wanted: Vec<u32> = documents.iter().flat_map(|d| d.tokens.iter().skip(1).copied()).collect();
            prop_assert_eq!(labels, wanted);
        }

        #[test]
        fn rows_are_well_filled(lengths in prop::collection::vec(1usize..100, 200..300)) {
            let documents = documents(&lengths);
            let rows = pack(parts(&documents, 128), 128).len();
            let tokens: usize = lengths.iter().sum();
            prop_assert!(rows * 128 <= tokens * 5 / 4 + 128, "{rows} rows for {tokens} tokens");
        }
    }
}
