//! Shows what a model's own tokenizer and chat template make of a data set: a line of JSON for each example, with its
//! token ids and which of them are learnt.
//!
//! ```text
//! cargo run -p glasshouse-train --example encode -- MODEL_FOLDER DATA.jsonl
//! ```
//!
//! `scripts/encode_reference.py` prints the same lines by way of transformers.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use glasshouse_train::data::{Date, Encoder, parse_jsonl};

fn main() -> ExitCode {
    match std::env::args().collect::<Vec<_>>().as_slice() {
        [_, model, data] => match encode(Path::new(model), Path::new(data)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "encode: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            let _ = writeln!(std::io::stderr(), "usage: encode MODEL_FOLDER DATA.jsonl");
            ExitCode::from(2)
        }
    }
}

fn encode(model: &Path, data: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let template = std::fs::read(model.join("chat_template.jinja")).ok();
    let (tokenizer, config) =
        (std::fs::read(model.join("tokenizer.json"))?, std::fs::read(model.join("tokenizer_config.json"))?);
    let encoder = Encoder::from_files(&tokenizer, &config, template.as_deref(), Date::today())?;
    let mut out = std::io::stdout().lock();
    for example in parse_jsonl(&std::fs::read(data)?)? {
        let document = encoder.encode(&example)?;
        let learnt: Vec<u8> = document.learnt.iter().map(|learnt| u8::from(*learnt)).collect();
        writeln!(out, "{{\"tokens\":{:?},\"learnt\":{learnt:?}}}", document.tokens)?;
    }
    Ok(())
}
