use std::path::{Path, PathBuf};

/// Why a model did not come from the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The hub's address is none.
    #[error("{endpoint} is no hub's address: {why}")]
    Address {
        /// The address.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// The hub cannot be reached.
    #[error("{url} cannot be reached: {why}; without a network, give the folder of a model that is on this machine")]
    Offline {
        /// What was asked for.
        url: String,
        /// What happened.
        why: String,
    },
    /// There is no such model or revision, or it is not public.
    #[error("the hub has no {what} for everybody; check the name, and give an access token if it is not public")]
    NotFound {
        /// The model, or a file of it.
        what: String,
    },
    /// The hub refused.
    #[error("the hub answered {status} to {url}; {advice}")]
    Status {
        /// HTTP status.
        status: u16,
        /// What was asked for.
        url: String,
        /// What to do.
        advice: &'static str,
    },
    /// The hub's answer makes no sense.
    #[error("the hub's answer about {what} is none: {why}")]
    Nonsense {
        /// What it is about.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// No model's or revision's name.
    #[error("{name:?} is no {what}; write it like {example}")]
    Name {
        /// What it should be.
        what: &'static str,
        /// The name.
        name: String,
        /// A good one.
        example: &'static str,
    },
    /// A file is not what was pinned. It was thrown away.
    #[error("{file} has SHA-256 {seen} in {bytes} bytes, and {expected} was pinned; it was thrown away, try again")]
    Digest {
        /// The file.
        file: String,
        /// What was pinned.
        expected: String,
        /// What came.
        seen: String,
        /// How much came.
        bytes: u64,
    },
    /// A local file.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        why: String,
    },
}

impl HubError {
    pub(super) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), why: error.to_string() }
    }

    /// What a request that got no whole answer is.
    pub(super) fn request(url: &str, error: &reqwest::Error) -> Self {
        // The innermost cause says what happened: refused, no such host, timed out.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self::Offline { url: url.to_owned(), why: cause.to_string() }
    }

    pub(super) fn status(url: &str, what: &str, status: reqwest::StatusCode) -> Self {
        let advice = match status.as_u16() {
            // The hub answers 401 for what does not exist, too.
            401 | 404 => return Self::NotFound { what: what.to_owned() },
            403 => "accept the model's terms on its page, and give an access token",
            429 => "it asks for patience; try again in some minutes, or give an access token",
            _ => "try again later",
        };
        Self::Status { status: status.as_u16(), url: url.to_owned(), advice }
    }
}
