//! What the hub says of a model, and which of it may be believed.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

use glasshouse_core::fixed::Digest32;
use glasshouse_core::manifest::MAX_NAME_BYTES;
use serde::Deserialize;

use super::HubError;

/// The answer of `/api/models/{id}/revision/{revision}?blobs=true`, as far as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

/// A file.
#[derive(Debug, Deserialize)]
pub(super) struct Sibling {
    pub(super) rfilename: String,
    #[serde(default)]
    pub(super) lfs: Option<Stored>,
}

/// What large-file storage knows of it.
#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    pub(super) sha256: Digest32,
    pub(super) size: u64,
}

/// The largest answer that is read.
pub(super) const MAX_LISTING: usize = 16 << 20;
const NEEDED: [&str; 3] = ["config.json", "tokenizer.json", "tokenizer_config.json"];
const WELCOME: [&str; 2] = ["chat_template.jinja", "model.safetensors.index.json"];

impl Listing {
    /// The commit, which alone names what is fetched from here on.
    pub(super) fn commit(&self, id: &str) -> Result<String, HubError> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match self.sha.len() == 40 && self.sha.bytes().all(hex) {
            true => Ok(self.sha.clone()),
            false => Err(HubError::Nonsense { what: id.to_owned(), why: "it names no commit".to_owned() }),
        }
    }

    /// The files of the model that training reads.
    pub(super) fn wanted(self, id: &str) -> Result<Vec<Sibling>, HubError> {
        let weights = |name: &str| name.starts_with("model") && name.ends_with(".safetensors");
        let is_wanted = |name: &str| NEEDED.contains(&name) || WELCOME.contains(&name) || weights(name);
        let files: Vec<Sibling> = self.siblings.into_iter().filter(|file| is_wanted(&file.rfilename)).collect();
        let lacks = |what: &str| HubError::Nonsense { what: id.to_owned(), why: format!("the model has no {what}") };
        for file in &files {
            check_name(&file.rfilename)?;
        }
        if let Some(name) = NEEDED.iter().find(|name| !files.iter().any(|file| file.rfilename == **name)) {
            return Err(lacks(name));
        }
        if !files.iter().any(|file| weights(&file.rfilename)) {
            return Err(lacks("safetensors"));
        }
        Ok(files)
    }
}

/// `owner/name`.
pub(super) fn check_id(id: &str) -> Result<(), HubError> {
    let good = id.split('/').count() == 2 && id.split('/').all(is_plain);
    let name = || HubError::Name { what: "model of the hub", name: short(id), example: "Qwen/Qwen2.5-0.5B" };
    if good { Ok(()) } else { Err(name()) }
}

/// A branch, a tag or a commit.
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    let name = || HubError::Name { what: "revision", name: short(revision), example: "main, v1.0 or a commit" };
    if is_plain(revision) { Ok(()) } else { Err(name()) }
}

/// A file name, and no path: it becomes one below a folder of ours.
pub(super) fn check_name(file: &str) -> Result<(), HubError> {
    let name = || HubError::Name { what: "file of a model", name: short(file), example: "model.safetensors" };
    if is_plain(file) { Ok(()) } else { Err(name()) }
}

fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[&str]) -> Listing {
        let siblings: Vec<_> = files.iter().map(|name| format!("{{\"rfilename\":{name:?},\"size\":7}}")).collect();
        let json = format!("{{\"sha\":\"{}\",\"siblings\":[{}],\"tags\":[]}}", "a1".repeat(20), siblings.join(","));
        serde_json::from_str(&json).unwrap()
    }

    const GOOD: [&str; 6] = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model-1.safetensors",
        "README.md",
        "pytorch_model.bin",
    ];

    #[test]
    fn what_training_reads_is_wanted_and_no_more() {
        let names: Vec<String> = listing(&GOOD).wanted("a/b").unwrap().into_iter().map(|file| file.rfilename).collect();
        assert_eq!(names, GOOD[..4]);
        for lacking in [&GOOD[1..], &GOOD[..3]] {
            assert!(matches!(listing(lacking).wanted("a/b"), Err(HubError::Nonsense { .. })));
        }
    }

    #[test]
    fn names_are_names() {
        let escape = [GOOD.as_slice(), &["model/../../x.safetensors"]].concat();
        assert!(matches!(listing(&escape).wanted("a/b"), Err(HubError::Name { .. })));
        for bad in ["", "a", "a/b/c", "../b", "a/..", "a/b?c", "a/ b", "a//b"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        assert!(check_id("Qwen/Qwen2.5-0.5B").is_ok() && check_revision("v1.0").is_ok());
        assert!(check_revision("../x").is_err() && check_revision("a/b").is_err());
    }

    #[test]
    fn a_commit_is_one() {
        assert_eq!(listing(&GOOD).commit("a/b").unwrap(), "a1".repeat(20));
        for bad in ["", "main", "../../../../../../../../../../../../etc"] {
            assert!(Listing { sha: bad.to_owned(), siblings: Vec::new() }.commit("a/b").is_err());
        }
    }
}
