use zeroize::Zeroize;

/// A line of the data set as tokens. Wiped when dropped.
pub struct Document {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Whether each token is learnt, as long as `tokens`.
    pub learnt: Vec<bool>,
}

impl Document {
    /// How many tokens have a loss: the learnt ones but for the first of all, which nothing comes before.
    pub fn targets(&self) -> usize {
        self.learnt.iter().skip(1).filter(|learnt| **learnt).count()
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        self.tokens.zeroize();
        self.learnt.zeroize();
    }
}
