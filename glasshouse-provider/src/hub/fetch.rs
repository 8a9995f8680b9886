//! Bytes from the hub, hashed as they come.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::manifest::PublicInput;
use reqwest::StatusCode;
use reqwest::header::RANGE;
use sha2::{Digest as _, Sha256};

use super::listing::{Listing, MAX_LISTING};
use super::{Downloading, Hub, HubError};

/// The largest file whose digest the hub does not state.
const MAX_SMALL: u64 = 64 << 20;
/// How often in a row a download that brings nothing more is tried again.
const TRIES: u32 = 5;

/// A file and where it goes.
pub(super) struct Target<'a> {
    pub(super) input: &'a PublicInput,
    pub(super) path: PathBuf,
}

impl Target<'_> {
    /// What there is of it so far.
    fn part(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".part");
        name.into()
    }
}

impl Hub {
    pub(super) async fn list(&self, id: &str, revision: &str) -> Result<Listing, HubError> {
        let url = format!("{}/api/models/{id}/revision/{revision}?blobs=true", self.endpoint);
        let what = format!("{id} at {revision}");
        let bytes = self.whole(&url, &what, MAX_LISTING as u64).await?;
        serde_json::from_slice(&bytes).map_err(|e| HubError::Nonsense { what, why: e.to_string() })
    }

    /// A file whose digest is found by fetching it.
    pub(super) async fn fetch_small(&self, url: &str, to: &Path) -> Result<(Digest32, u64), HubError> {
        let name = to.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bytes = self.whole(url, name, MAX_SMALL).await?;
        let folder = to.parent().unwrap_or_else(|| Path::new("."));
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&bytes)?;
            file.persist(to).map_err(|e| e.error)
        };
        write().map_err(|e| HubError::file(to, &e))?;
        Ok((Fixed(Sha256::digest(&bytes).into()), u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
    }

    /// A file whose digest is known: nothing when it is there, the rest when a part of it is.
    pub(super) async fn fetch(
        &self,
        target: &Target<'_>,
        told: &mut (impl FnMut(Downloading<'_>) + Send),
    ) -> Result<(), HubError> {
        let PublicInput { name, sha256, bytes: total, .. } = target.input;
        if target.path.is_file() && hash(&target.path)?.0 == *sha256 {
            told(Downloading { file: name, done: *total, total: *total });
            return Ok(());
        }
        let part = target.part();
        let there = || std::fs::metadata(&part).map_or(0, |part| part.len());
        let mut tries = 0_u32;
        let (seen, bytes) = loop {
            let before = there();
            match self.go_on(target, &part, told).await {
                Ok(hashed) => break hashed,
                Err(HubError::Offline { .. }) if tries < TRIES => {
                    // A line that breaks every few minutes still brings a large file home.
                    tries = if there() > before { 0 } else { tries.saturating_add(1) };
                    tokio::time::sleep(Duration::from_millis(200).saturating_mul(1 << tries.min(6))).await;
                }
                Err(error) => return Err(error),
            }
        };
        if seen != *sha256 || bytes != *total {
            let _ = std::fs::remove_file(&part);
            let (expected, seen) = (sha256.to_string(), seen.to_string());
            return Err(HubError::Digest { file: name.clone(), expected, seen, bytes });
        }
        std::fs::rename(&part, &target.path).map_err(|e| HubError::file(&target.path, &e))
    }

    /// Appends to the part until it is whole. Gives what all of it hashes to.
    async fn go_on(
        &self,
        target: &Target<'_>,
        part: &Path,
        told: &mut (impl FnMut(Downloading<'_>) + Send),
    ) -> Result<(Digest32, u64), HubError> {
        let PublicInput { name, bytes: total, source, .. } = target.input;
        let local = |e: std::io::Error| HubError::file(part, &e);
        let (mut state, mut done) = match part.is_file() {
            true => hash_state(part)?,
            false => (Sha256::new(), 0),
        };
        let mut file = File::options().create(true).append(true).open(part).map_err(local)?;
        while done < *total {
            let request = self.request(source).header(RANGE, format!("bytes={done}-"));
            let response = request.send().await.map_err(|e| HubError::request(source, &e))?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT => {}
                // It sends everything again.
                StatusCode::OK => {
                    file.set_len(0).map_err(local)?;
                    (state, done) = (Sha256::new(), 0);
                }
                other => return Err(HubError::status(source, name, other)),
            }
            let before = done;
            let mut body = response.bytes_stream();
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(|e| HubError::request(source, &e))?;
                let room = usize::try_from(total.saturating_sub(done)).unwrap_or(usize::MAX);
                let piece = piece.get(..room.min(piece.len())).unwrap_or_default();
                file.write_all(piece).map_err(local)?;
                state.update(piece);
                done = done.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                told(Downloading { file: name, done, total: *total });
                if done >= *total {
                    break;
                }
            }
            if done == before {
                return Err(HubError::Offline { url: source.clone(), why: "it ends too early".to_owned() });
            }
        }
        file.sync_all().map_err(local)?;
        Ok((Fixed(state.finalize().into()), done))
    }

    async fn whole(&self, url: &str, what: &str, limit: u64) -> Result<Vec<u8>, HubError> {
        let response = self.request(url).send().await.map_err(|e| HubError::request(url, &e))?;
        if !response.status().is_success() {
            return Err(HubError::status(url, what, response.status()));
        }
        let (mut bytes, mut body) = (Vec::new(), response.bytes_stream());
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| HubError::request(url, &e))?;
            bytes.extend_from_slice(&piece);
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
                let why = format!("it has more than {limit} bytes");
                return Err(HubError::Nonsense { what: what.to_owned(), why });
            }
        }
        Ok(bytes)
    }

    /// The token goes to the hub only: reqwest drops it where a redirect leaves the host.
    fn request(&self, url: &str) -> reqwest::RequestBuilder {
        let ours = url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with('/'));
        let request = self.http.get(url);
        match self.token.as_ref().filter(|_| ours) {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

fn hash(path: &Path) -> Result<(Digest32, u64), HubError> {
    let (state, bytes) = hash_state(path)?;
    Ok((Fixed(state.finalize().into()), bytes))
}

fn hash_state(path: &Path) -> Result<(Sha256, u64), HubError> {
    let local = |e: std::io::Error| HubError::file(path, &e);
    let mut file = File::open(path).map_err(local)?;
    let (mut state, mut total, mut buffer) = (Sha256::new(), 0_u64, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer).map_err(local)?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { return Ok((state, total)) };
        state.update(piece);
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
