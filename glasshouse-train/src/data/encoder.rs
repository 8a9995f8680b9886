//! From an example to tokens, and which of them are learnt.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

use serde::Deserialize;

use super::{ChatTemplate, DataError, Date, Document, Example, Tokenizer};

/// A stretch of text that is given or learnt as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Whether there is a loss on it.
    pub learnt: bool,
}

/// A tokenizer and the chat template that goes with it.
pub struct Encoder {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl Encoder {
    /// Bytes, and conversations as `<|im_start|>role`, a line break, the content, `<|im_end|>` and a line break.
    ///
    /// # Errors
    /// None: the template is this crate's own.
    pub fn bytes() -> Result<Self, DataError> {
        let template = ChatTemplate::new(CHATML, "", "<|endoftext|>", Date { days: 0 })?;
        Ok(Self { tokenizer: Tokenizer::bytes(), template: Some(template) })
    }

    /// Out of a model's files: `tokenizer.json`, `tokenizer_config.json` and, where the template is a file of its own,
    /// `chat_template.jinja`. `today` is what `strftime_now` says.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] and [`DataError::Template`].
    pub fn from_files(tokenizer: &[u8], config: &[u8], jinja: Option<&[u8]>, today: Date) -> Result<Self, DataError> {
        let wrong = |file, why: String| DataError::Tokenizer { file, why };
        let config: TokenizerConfig = serde_json::from_slice(config)
            .map_err(|e| wrong("tokenizer_config.json", format!("cannot be read: {e}")))?;
        let end = config.eos_token.as_ref().map(SpecialToken::text);
        let end = end.ok_or_else(|| wrong("tokenizer_config.json", "it names no eos_token".to_owned()))?;
        let bos = config.bos_token.as_ref().map_or("", SpecialToken::text);
        let source = match jinja {
            Some(bytes) => {
                let text = std::str::from_utf8(bytes);
                Some(text.map_err(|_| wrong("chat_template.jinja", "it is no UTF-8".to_owned()))?.to_owned())
            }
            None => config.template(),
        };
        let template = source.map(|source| ChatTemplate::new(&source, bos, end, today)).transpose()?;
        Ok(Self { tokenizer: Tokenizer::from_json(tokenizer, end)?, template })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens of one example. Given and learnt text are tokenized apart, as they are when the model answers a prompt.
    ///
    /// # Errors
    /// [`DataError`] when the template or the tokenizer refuses it.
    pub fn encode(&self, example: &Example) -> Result<Document, DataError> {
        let (pieces, ends) = match example {
            Example::Conversation { messages, tools } => {
                let none = || DataError::Template {
                    why: "is missing: the model has none; give \"prompt\" and \"completion\", or \"text\"".to_owned(),
                };
                (self.template.as_ref().ok_or_else(none)?.pieces(messages, tools.as_ref())?, false)
            }
            Example::Completion { prompt, completion } => (
                vec![Piece { text: prompt.clone(), learnt: false }, Piece { text: completion.clone(), learnt: true }],
                true,
            ),
            Example::Text(text) => (vec![Piece { text: text.clone(), learnt: true }], true),
        };
        let mut document = Document { tokens: Vec::new(), learnt: Vec::new() };
        for piece in &pieces {
            let ids = self.tokenizer.encode(&piece.text)?;
            let learnt = match piece.learnt {
                true if ends => ids.len(),
                true => self.through_end_of_turn(&ids),
                false => 0,
            };
            document.learnt.extend((0..ids.len()).map(|index| index < learnt));
            document.tokens.extend(ids);
        }
        if ends {
            document.tokens.push(self.tokenizer.end());
            document.learnt.push(true);
        }
        Ok(document)
    }

    /// A turn is over with its last special token: the model stops there, and the line break after it is the
    /// template's. Without a special token all of it is learnt.
    fn through_end_of_turn(&self, ids: &[u32]) -> usize {
        let last = ids.iter().rposition(|id| self.tokenizer.is_special(*id));
        last.map_or(ids.len(), |at| at.saturating_add(1))
    }
}

const CHATML: &str = "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + \
                      '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- \
                      endif %}";

#[derive(Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    bos_token: Option<SpecialToken>,
    #[serde(default)]
    eos_token: Option<SpecialToken>,
    #[serde(default)]
    chat_template: Option<Templates>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Added { content: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl SpecialToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Added { content: text } => text,
        }
    }
}

impl TokenizerConfig {
    fn template(&self) -> Option<String> {
        match self.chat_template.as_ref()? {
            Templates::One(source) => Some(source.clone()),
            Templates::Named(list) => list.iter().find(|t| t.name == "default").map(|t| t.template.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Message, parse_jsonl};

    fn learnt(encoder: &Encoder, line: &str) -> (String, String) {
        let examples = parse_jsonl(line.as_bytes()).unwrap();
        let document = encoder.encode(&examples[0]).unwrap();
        let said = document.tokens.iter().zip(&document.learnt).filter(|(_, learnt)| **learnt).map(|(id, _)| *id);
        let decode = |ids: &[u32]| encoder.tokenizer().decode(ids).unwrap();
        (decode(&document.tokens), decode(&said.collect::<Vec<_>>()))
    }

    #[test]
    fn the_loss_is_on_what_is_to_be_learnt() {
        let encoder = Encoder::bytes().unwrap();
        let both = |line| learnt(&encoder, line);
        let chat = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nr<|im_end|>\n";
        assert_eq!(both(r#"{"question":"q","answer":"r"}"#), (chat.to_owned(), "r<|im_end|>".to_owned()));
        let whole = ("pc<|endoftext|>".to_owned(), "c<|endoftext|>".to_owned());
        assert_eq!(both(r#"{"prompt":"p","completion":"c"}"#), whole);
        assert_eq!(both(r#"{"text":"t"}"#), ("t<|endoftext|>".to_owned(), "t<|endoftext|>".to_owned()));
    }

    #[test]
    fn files_of_every_spelling() {
        let tokenizer = include_bytes!("small_tokenizer.json");
        let day = Date { days: 0 };
        let object = br#"{"eos_token":{"content":"<end>"},"chat_template":[{"name":"x","template":"b"},{"name":"default","template":"{% for m in messages %}{{ m.content }}{% endfor %}"}]}"#;
        let encoder = Encoder::from_files(tokenizer, object, None, day).unwrap();
        let talk = Example::Conversation { messages: vec![Message::new("assistant", "ab")], tools: None };
        assert_eq!(encoder.encode(&talk).unwrap().tokens, [2]);
        let plain = br#"{"eos_token":"<end>"}"#;
        let encoder =
            Encoder::from_files(tokenizer, plain, Some(b"c{% for m in messages %}{{ m.content }}{% endfor %}"), day)
                .unwrap();
        assert_eq!(encoder.encode(&talk).unwrap().tokens, [3, 2]);
        let without = Encoder::from_files(tokenizer, plain, None, day).unwrap().encode(&talk).err().unwrap();
        assert!(without.to_string().contains("is missing"), "{without}");
        assert!(Encoder::from_files(tokenizer, b"{}", None, day).err().unwrap().to_string().contains("eos_token"));
        assert!(Encoder::from_files(tokenizer, b"", None, day).is_err());
    }
}
