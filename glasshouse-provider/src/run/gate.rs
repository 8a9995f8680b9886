//! The owner's keys and the gate's memory.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::gate::{FileGateStore, GateError, GateStore, MemoryGateStore, StoredSession};
use glasshouse_core::protocol::{ResultKey, SigningSecret};
use glasshouse_core::secret::Secret;

use super::RunError;

/// Who releases keys: the signing key, the key that results are sealed to, and the memory of what was released.
#[derive(Clone)]
pub struct Gate {
    pub(super) signing: Arc<SigningSecret>,
    pub(super) result: Arc<ResultKey>,
    pub(super) store: Arc<dyn GateStore>,
}

impl Gate {
    /// Fresh keys and a memory that does not survive this process.
    ///
    /// # Errors
    /// [`RunError::NoRandomness`].
    pub fn ephemeral() -> Result<Self, RunError> {
        Ok(Self {
            signing: Arc::new(SigningSecret::random().map_err(|_| RunError::NoRandomness)?),
            result: Arc::new(ResultKey::random().map_err(|_| RunError::NoRandomness)?),
            store: Arc::new(MemoryGateStore::default()),
        })
    }

    /// Keys and a durable memory in a folder, made at the first use: `gate.key` and `result.key` (32 bytes each, read
    /// by their owner alone) and `gate.store`.
    ///
    /// # Errors
    /// [`RunError::File`], [`RunError::Gate`] when the store is damaged or in use.
    pub fn open(folder: &Path) -> Result<Self, RunError> {
        super::files::prepare_folder(folder)?;
        let store = FileGateStore::open(folder.join("gate.store")).map_err(GateError::from)?;
        let result = load_or_make(&folder.join("result.key"))?;
        let bad_key = || RunError::File {
            path: folder.join("result.key"),
            what: "used",
            why: "it holds no X25519 private key".to_owned(),
        };
        Ok(Self {
            signing: Arc::new(SigningSecret::from_seed(load_or_make(&folder.join("gate.key"))?)),
            result: Arc::new(ResultKey::from_private(result).ok_or_else(bad_key)?),
            store: Arc::new(store),
        })
    }

    /// Keys and a memory that the tool keeps in its own way, in a database say.
    pub fn from_parts(signing: SigningSecret, result: ResultKey, store: Arc<dyn GateStore>) -> Self {
        Self { signing: Arc::new(signing), result: Arc::new(result), store }
    }

    /// Every session that this gate released a key to, oldest first, with what came home of it: what a restarted owner
    /// still has of a run that was killed. [`ProtectedRun::recover`](super::ProtectedRun::recover) makes a record of
    /// them.
    ///
    /// # Errors
    /// [`RunError::Gate`] when the store cannot be read, or does not fit the keys.
    pub fn sessions(&self) -> Result<Vec<StoredSession>, RunError> {
        let sessions = self.store.sessions().map_err(GateError::from)?;
        let mut all = Vec::with_capacity(sessions.len());
        for session in &sessions {
            all.extend(StoredSession::open(&*self.store, session, &self.public(), &self.result)?);
        }
        all.sort_by_key(|stored| stored.verdict().at);
        Ok(all)
    }

    /// The key that verifies this gate's challenges, verdicts and records.
    pub fn public(&self) -> PublicKey32 {
        self.signing.public()
    }
}

fn load_or_make(path: &Path) -> Result<Secret<32>, RunError> {
    let failed = |what, why: String| RunError::File { path: path.to_owned(), what, why };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let secret = Secret::<32>::random().map_err(|_| RunError::NoRandomness)?;
            let written = file.write_all(secret.expose()).and_then(|()| file.sync_all());
            written.map_err(|e| failed("written", e.to_string()))?;
            Ok(secret)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let mut file = OpenOptions::new().read(true).open(path).map_err(|e| failed("read", e.to_string()))?;
            let length = file.metadata().map_err(|e| failed("read", e.to_string()))?.len();
            if length != 32 {
                return Err(failed("used", format!("a key has 32 bytes, not {length}")));
            }
            Secret::fill_with(|bytes| file.read_exact(bytes)).map_err(|e| failed("read", e.to_string()))
        }
        Err(e) => Err(failed("made", e.to_string())),
    }
}
