//! Tokens: of a model's own tokenizer, or plain bytes.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

use std::collections::BTreeSet;

use super::DataError;

/// Text to token ids.
pub struct Tokenizer {
    kind: Kind,
    vocabulary: usize,
    end: u32,
    special: BTreeSet<u32>,
}

enum Kind {
    Bytes,
    Model(Box<tokenizers::Tokenizer>),
}

/// The special tokens of [`Tokenizer::bytes`], from id 256 on.
const BYTE_SPECIALS: [(&str, u32); 3] = [("<|endoftext|>", 256), ("<|im_start|>", 257), ("<|im_end|>", 258)];

impl Tokenizer {
    /// Every byte is a token; 256 to 258 are `<|endoftext|>`, `<|im_start|>` and `<|im_end|>`.
    pub fn bytes() -> Self {
        let special = BYTE_SPECIALS.iter().map(|(_, id)| *id).collect();
        Self { kind: Kind::Bytes, vocabulary: 259, end: 256, special }
    }

    /// Reads `tokenizer.json`. `end` is the text of the token that ends a document.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] for a file that is none, or has no such token.
    pub fn from_json(bytes: &[u8], end: &str) -> Result<Self, DataError> {
        let wrong = |why: String| DataError::Tokenizer { file: "tokenizer.json", why };
        let read = tokenizers::Tokenizer::from_bytes(bytes);
        let mut tokenizer = read.map_err(|e| wrong(format!("it is no tokenizer: {}", first_line(&e.to_string()))))?;
        // What a file says about padding and cutting is for inference; rows are packed here.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| wrong(first_line(&e.to_string())))?;
        keeps_nothing(&mut tokenizer);
        let end_id = tokenizer.token_to_id(end).ok_or_else(|| wrong(format!("it has no token {end:?}")))?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let vocabulary = usize::try_from(largest).unwrap_or(usize::MAX).saturating_add(1);
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        Ok(Self { kind: Kind::Model(Box::new(tokenizer)), vocabulary, end: end_id, special })
    }

    /// One more than the largest id: the rows that an embedding needs.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The id that ends a document, and fills what of a row is left.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Whether an id is a special token, such as the end of a turn.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The ids of a text. Special tokens are read where they are written out; none is added.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when the tokenizer cannot encode it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.kind {
            Kind::Bytes => Ok(encode_bytes(text)),
            Kind::Model(tokenizer) => {
                let encoded = tokenizer.encode_fast(text, false);
                // The message could repeat the text.
                let failed =
                    |_| DataError::Tokenizer { file: "tokenizer.json", why: "it cannot encode this".to_owned() };
                Ok(encoded.map_err(failed)?.get_ids().to_vec())
            }
        }
    }

    /// The text of ids, special tokens written out; bytes that are no text become U+FFFD.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when the tokenizer cannot decode them.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        let failed = || DataError::Tokenizer { file: "tokenizer.json", why: "it cannot decode these".to_owned() };
        match &self.kind {
            Kind::Bytes => decode_bytes(ids).ok_or_else(failed),
            Kind::Model(tokenizer) => tokenizer.decode(ids, false).map_err(|_| failed()),
        }
    }
}

fn encode_bytes(text: &str) -> Vec<u32> {
    let (mut ids, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(letter) = rest.chars().next() {
        let special = BYTE_SPECIALS.iter().find_map(|(name, id)| Some((*id, rest.strip_prefix(name)?)));
        rest = match special {
            Some((id, after)) => {
                ids.push(id);
                after
            }
            None => {
                let (now, after) = rest.split_at_checked(letter.len_utf8()).unwrap_or((rest, ""));
                ids.extend(now.bytes().map(u32::from));
                after
            }
        };
    }
    ids
}

fn decode_bytes(ids: &[u32]) -> Option<String> {
    let mut bytes = Vec::with_capacity(ids.len());
    for id in ids {
        match BYTE_SPECIALS.iter().find(|(_, special)| special == id) {
            Some((name, _)) => bytes.extend_from_slice(name.as_bytes()),
            None => bytes.push(u8::try_from(*id).ok()?),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Turns its cache of words off. BPE keeps what it has seen in each thread for as long as the thread lives, which outlives
/// the tokenizer, its data set and zeroization.
fn keeps_nothing(tokenizer: &mut tokenizers::Tokenizer) {
    let mut model = tokenizer.get_model().clone();
    model.resize_cache(0);
    tokenizer.with_model(model);
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tokenizer with five tokens, as `tokenizers` writes them; it asks for texts to be cut after two.
    const SMALL: &str = include_str!("small_tokenizer.json");

    #[test]
    fn a_file_is_read_and_nothing_is_cut() {
        let tokenizer = Tokenizer::from_json(SMALL.as_bytes(), "<end>").unwrap();
        assert_eq!((tokenizer.vocabulary(), tokenizer.end()), (5, 4));
        assert_eq!(tokenizer.encode("abcab<end>a").unwrap(), [2, 3, 2, 4, 0]);
        assert!(tokenizer.is_special(4) && !tokenizer.is_special(2));
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        for bad in ["", "{}", "{\"model\":7}", &SMALL[..200]] {
            assert!(matches!(Tokenizer::from_json(bad.as_bytes(), "<end>"), Err(DataError::Tokenizer { .. })));
        }
        let error = Tokenizer::from_json(SMALL.as_bytes(), "</s>").err().unwrap().to_string();
        assert!(error.contains("no token \"</s>\""), "{error}");
    }

    proptest! {
        #[test]
        fn bytes_come_back(text in "(<\\|im_start\\|>|<\\|im_end\\|>|<\\|endoftext\\|>|[a-zäö<| ]){0,12}") {
            let tokenizer = Tokenizer::bytes();
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary()));
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }
}
