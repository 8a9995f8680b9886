/// A label that no loss is computed for.
pub const IGNORE: u32 = u32::MAX;

/// Packed rows of tokens, row-major: `rows` times `length` of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// Tokens of each row, padding included.
    pub length: usize,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Place of each token within its document, from 0.
    pub positions: Vec<u32>,
    /// Which document of its row a token belongs to, from 0 and never falling; a token attends to its own document only.
    pub documents: Vec<u32>,
    /// The token to predict at each place, or [`IGNORE`].
    pub labels: Vec<u32>,
}
