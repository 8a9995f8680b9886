//! From JSONL to batches: examples, a model's own chat template and tokenizer, which tokens are learnt, packing of
//! documents into rows, and an order that depends on nothing but a seed.
//!
//! Everything here is a function of its inputs, so that raw and protected segments and a resumed run see the same
//! batches. No message repeats what the data says: an error may be shown where the data must not be.

mod dataset;
mod document;
mod encoder;
mod error;
mod example;
mod pack;
mod stream;
mod template;
mod time;
mod tokenizer;

pub use crate::qwen::{Batch, IGNORE};
pub use dataset::{Dataset, DatasetSummary};
pub use document::Document;
pub use encoder::{Encoder, Piece};
pub use error::DataError;
pub use example::{Example, Message, parse_jsonl};
pub use stream::{BatchStream, Position};
pub use template::ChatTemplate;
pub use time::Date;
pub use tokenizer::Tokenizer;
