//! Whose an allocation is, in its name.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::OnceLock;

use glasshouse_core::fixed::Fixed;
use sha2::{Digest as _, Sha256};

use super::SupervisorError;
use crate::roles::note;

/// Under the user's home.
const FOLDER: &str = ".glasshouse";
const FILE: &str = "owner";
/// Longer than any tag with its line break.
const MAX_FILE: u64 = 64;

/// Marks an owner's allocations: their names begin with `gh-OWNER-`. [`Supervisor::reap`](super::Supervisor::reap) ends
/// what bears the mark, so two people on one account of a provider need two of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerTag(String);

/// Why something is no owner's tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no owner's tag: use 1 to 20 of a-z and 0-9")]
pub struct BadOwnerTag {
    /// What was given.
    pub given: String,
}

/// Why an owner's tag cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerTagError {
    /// The file cannot be made or read.
    #[error("the owner's tag cannot be kept in {path}: {why}; make the folder writable, or name an owner")]
    Unusable {
        /// The file.
        path: String,
        /// What happened.
        why: String,
    },
    /// The file holds something else.
    #[error("{path} holds no owner's tag: write 1 to 20 of a-z and 0-9 into it, or remove it when nothing is rented")]
    NoTag {
        /// The file.
        path: String,
    },
}

impl OwnerTag {
    /// A tag of 1 to 20 letters and digits, lower case: providers restrict what may be in a name.
    ///
    /// # Errors
    /// [`BadOwnerTag`] when it is anything else.
    pub fn new(tag: &str) -> Result<Self, BadOwnerTag> {
        let is_plain = tag.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        match is_plain && (1..=20).contains(&tag.len()) {
            true => Ok(Self(tag.to_owned())),
            false => Err(BadOwnerTag { given: tag.to_owned() }),
        }
    }

    /// The tag in `~/.glasshouse/owner`: random, made when it is first asked for, and the same from then on for whoever has
    /// that home, wherever it is mounted. Where it cannot be kept there, that is said on standard error, and the tag is made
    /// of this machine's id, host name and user instead: a container that is started anew then is another owner, and cloned
    /// machines are the same one. A copied home is the same owner too; name each one's then.
    pub fn of_this_user() -> Self {
        static OWN: OnceLock<OwnerTag> = OnceLock::new();
        let kept = || match std::env::home_dir().filter(|home| home.is_absolute()) {
            Some(home) => Self::kept_in(&home.join(FOLDER)).map_err(|error| error.to_string()),
            None => Err("there is no home folder to keep the owner's tag in; set HOME, or name an owner".to_owned()),
        };
        let fallen_back = |why| {
            note(format_args!(
                "warning: {why}; until then this owner is known by this machine's id, host name and user"
            ));
            Self::of_this_machine()
        };
        OWN.get_or_init(|| kept().unwrap_or_else(fallen_back)).clone()
    }

    /// The tag in the file `owner` of a folder, of which both are made when they are not there.
    ///
    /// # Errors
    /// [`OwnerTagError`]. What is there already is never replaced: allocations may bear it.
    pub fn kept_in(folder: &Path) -> Result<Self, OwnerTagError> {
        let path = folder.join(FILE);
        let unusable =
            |error: io::Error| OwnerTagError::Unusable { path: path.display().to_string(), why: error.to_string() };
        match Self::read(&path) {
            Ok(Some(tag)) => return Ok(tag),
            Ok(None) => return Err(OwnerTagError::NoTag { path: path.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(error)),
        }
        make(folder).map_err(unusable)?;
        // Made by another process meanwhile, or by this one just now.
        Self::read(&path).map_err(unusable)?.ok_or_else(|| OwnerTagError::NoTag { path: path.display().to_string() })
    }

    /// `None` when what is there is no tag.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
        Ok(std::str::from_utf8(&text).ok().and_then(|text| Self::new(text.trim_end()).ok()))
    }

    /// As good as it gets without a file, and nothing that tells a provider who it is.
    fn of_this_machine() -> Self {
        let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
        let host = rustix::system::uname();
        let digest = Sha256::new()
            .chain_update(b"glasshouse owner")
            .chain_update(machine)
            .chain_update(host.nodename().to_bytes())
            .chain_update(rustix::process::getuid().as_raw().to_be_bytes())
            .finalize();
        Self(hex::encode(digest.get(..4).unwrap_or_default()))
    }

    /// What the names of this owner's allocations begin with.
    pub fn prefix(&self) -> String {
        format!("gh-{}-", self.0)
    }

    /// A name that no allocation had before.
    pub(super) fn fresh_name(&self) -> Result<String, SupervisorError> {
        let unique = Fixed::<8>::random().map_err(|_| SupervisorError::NoRandomness)?;
        Ok(format!("{}{unique}", self.prefix()))
    }
}

/// A supervisor's owner: this user's tag is looked for, and made, only where no other was given.
pub(super) enum Whose {
    Given(OwnerTag),
    OfThisUser,
}

impl Whose {
    pub(super) fn prefix(&self) -> String {
        self.tag().prefix()
    }

    pub(super) fn fresh_name(&self) -> Result<String, SupervisorError> {
        self.tag().fresh_name()
    }

    fn tag(&self) -> OwnerTag {
        match self {
            Self::Given(tag) => tag.clone(),
            Self::OfThisUser => OwnerTag::of_this_user(),
        }
    }
}

/// Writes a random tag, whole and durable or not at all, unless there is one by then. Only its owner may read it.
fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let unique = Fixed::<8>::random().map_err(|_| io::Error::other("the operating system gives no randomness"))?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{unique}")?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(folder.join(FILE)) {
        Ok(_) => File::open(folder)?.sync_all(),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

impl std::str::FromStr for OwnerTag {
    type Err = BadOwnerTag;

    fn from_str(tag: &str) -> Result<Self, BadOwnerTag> {
        Self::new(tag)
    }
}

impl fmt::Display for OwnerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_plain_and_one_owner_is_no_part_of_another() {
        for bad in ["", "Alice", "a-b", "a b", "ä", "aaaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(OwnerTag::new(bad), Err(BadOwnerTag { given: bad.to_owned() }));
        }
        let (ann, anna) = (OwnerTag::new("ann").unwrap(), OwnerTag::new("anna").unwrap());
        assert!(!anna.fresh_name().unwrap().starts_with(&ann.prefix()));
        assert_ne!(ann.fresh_name().unwrap(), ann.fresh_name().unwrap());
        let own = OwnerTag::of_this_machine();
        assert_eq!(OwnerTag::new(&own.to_string()), Ok(own));
    }

    #[test]
    fn a_kept_tag_is_random_and_stays() {
        use std::os::unix::fs::PermissionsExt as _;
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = one.path().join("new/.glasshouse");
        // Many processes at once make one tag.
        let tags: Vec<OwnerTag> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..8).map(|_| scope.spawn(|| OwnerTag::kept_in(&folder).unwrap())).collect();
            running.into_iter().map(|tag| tag.join().unwrap()).collect()
        });
        assert!(tags.iter().all(|tag| *tag == tags[0] && tag.to_string().len() == 16), "{tags:?}");
        assert_eq!(OwnerTag::kept_in(&folder).unwrap(), tags[0], "whatever machine and host name this is");
        assert_ne!(OwnerTag::kept_in(other.path()).unwrap(), tags[0], "two homes on one account");
        let file = folder.join("owner");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left behind");
        // What somebody put there is taken, and what is none is left as it is.
        std::fs::write(&file, "lab7\n").unwrap();
        assert_eq!(OwnerTag::kept_in(&folder).unwrap().to_string(), "lab7");
        for bad in ["", "My Lab\n", "a-b", &"a".repeat(100)] {
            std::fs::write(&file, bad).unwrap();
            assert!(matches!(OwnerTag::kept_in(&folder), Err(OwnerTagError::NoTag { .. })), "{bad}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), bad);
        }
    }

    #[test]
    fn a_home_that_takes_no_file_is_said() {
        let home = tempfile::NamedTempFile::new().unwrap();
        let error = OwnerTag::kept_in(&home.path().join(FOLDER)).unwrap_err();
        assert!(matches!(error, OwnerTagError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains(".glasshouse/owner") && error.to_string().contains("writable"), "{error}");
    }
}
