//! Base models from the Hugging Face hub: a revision is pinned to its commit, and each file to its SHA-256, before
//! anything large moves.
//!
//! The hub states the SHA-256 of what it keeps in large-file storage (the weights); smaller files are fetched and hashed.
//! So [`Hub::resolve`] gives the public inputs of a package without the weights, and [`Hub::download`] fetches whatever is
//! missing of them, goes on where it stopped, and keeps nothing whose digest differs.
//!
//! Two endpoints of the hub's HTTP API are used: `GET /api/models/{id}/revision/{revision}?blobs=true` and
//! `GET /{id}/resolve/{commit}/{file}`. The `hf-hub` crate is not: it follows file names and panics as the server wishes.

mod error;
mod fetch;
mod listing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use glasshouse_core::manifest::PublicInput;

pub use error::HubError;
use fetch::Target;
use listing::{Listing, Sibling};

/// The hub itself.
pub const HUGGING_FACE: &str = "https://huggingface.co";

/// A hub and a folder of models from it.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
    http: reqwest::Client,
}

/// A model at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// Such as `Qwen/Qwen2.5-0.5B`.
    pub id: String,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// Its files as a package pins them.
    pub files: Vec<PublicInput>,
    /// Where its files lie, or will.
    pub folder: PathBuf,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloading<'a> {
    /// The file.
    pub file: &'a str,
    /// Bytes of it that are there.
    pub done: u64,
    /// Its bytes.
    pub total: u64,
}

/// Fetches a pinned input of any package from its source into `folder`, unless it is there: what an allocation does with
/// weights that its owner never had. Its digest is the manifest's, so it matters little who sends it; no token is used.
///
/// # Errors
/// [`HubError`]; [`HubError::Address`] for a source that is no URL.
pub async fn fetch_public(input: &PublicInput, folder: &Path) -> Result<(), HubError> {
    listing::check_name(&input.name)?;
    let hub = Hub::new(&input.source, folder)?;
    std::fs::create_dir_all(folder).map_err(|e| HubError::file(folder, &e))?;
    hub.fetch(&Target { input, path: folder.join(&input.name) }, &mut |_| {}).await
}

impl Hub {
    /// The hub at an address such as [`HUGGING_FACE`], with models in `cache`.
    ///
    /// # Errors
    /// [`HubError::Address`].
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>) -> Result<Self, HubError> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let address = |why: String| HubError::Address { endpoint: endpoint.clone(), why };
        let url = reqwest::Url::parse(&endpoint).map_err(|e| address(e.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(address("it is neither https nor http".to_owned()));
        }
        let http =
            reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).read_timeout(Duration::from_secs(60));
        let http = http.build().map_err(|e| address(e.to_string()))?;
        Ok(Self { endpoint, token: None, cache: cache.into(), http })
    }

    /// With an access token, for models that are not public. It goes to this hub only, and into no manifest.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// Finds a model's commit and the digest of each of its files. `revision` is a branch, a tag or a commit; `main` when
    /// not given. Small files are fetched.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn resolve(&self, id: &str, revision: Option<&str>) -> Result<HubModel, HubError> {
        listing::check_id(id)?;
        let revision = revision.unwrap_or("main");
        listing::check_revision(revision)?;
        let listing: Listing = self.list(id, revision).await?;
        let commit = listing.commit(id)?;
        let folder = self.cache.join(id.replace('/', "--")).join(&commit);
        let wanted = listing.wanted(id)?;
        std::fs::create_dir_all(&folder).map_err(|e| HubError::file(&folder, &e))?;
        let mut files = Vec::with_capacity(wanted.len());
        for Sibling { rfilename: name, lfs, .. } in wanted {
            let source = format!("{}/{id}/resolve/{commit}/{name}", self.endpoint);
            let (sha256, bytes) = match lfs {
                Some(stored) => (stored.sha256, stored.size),
                None => self.fetch_small(&source, &folder.join(&name)).await?,
            };
            files.push(PublicInput { name, sha256, bytes, source });
        }
        Ok(HubModel { id: id.to_owned(), commit, files, folder })
    }

    /// Fetches what is missing of a model into its folder and gives the folder. What was fetched in part goes on where it
    /// stopped; every file has the digest that was pinned, or it is not there.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn download(
        &self,
        model: &HubModel,
        mut told: impl FnMut(Downloading<'_>) + Send,
    ) -> Result<PathBuf, HubError> {
        std::fs::create_dir_all(&model.folder).map_err(|e| HubError::file(&model.folder, &e))?;
        for input in &model.files {
            listing::check_name(&input.name)?;
            let target = Target { input, path: model.folder.join(&input.name) };
            self.fetch(&target, &mut told).await?;
        }
        Ok(model.folder.clone())
    }

    /// Where its models are.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}
