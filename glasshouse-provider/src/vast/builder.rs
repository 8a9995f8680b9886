use super::VastProvider;
use crate::rest::{ConfigError, Connection, Pacing};

const KEY_VARIABLE: &str = "VAST_API_KEY";
/// The environment may name an address under it, or one of this machine: the key goes nowhere else.
const DOMAIN: &str = "vast.ai";
const ADDRESS_VARIABLE: &str = "VAST_API_URL";
const ADDRESS: &str = "https://console.vast.ai";

/// Sets a [`VastProvider`] up. Its `Debug` does not show the key.
#[derive(Clone, Debug)]
pub struct VastBuilder {
    connection: Connection,
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) tag: String,
    pub(super) port: u16,
    pub(super) disk_gib: u32,
    pub(super) verified: bool,
    /// Whether requests keep the distance that Vast.ai documents for each endpoint.
    pub(super) documented_pace: bool,
}

impl VastBuilder {
    pub(super) fn new() -> Self {
        Self {
            connection: Connection {
                provider: super::NAME,
                variable: KEY_VARIABLE,
                key: None,
                base: ADDRESS.to_owned(),
                home: None,
                pacing: Pacing::default(),
            },
            settings: Settings {
                tag: "gh-".to_owned(),
                port: 9443,
                disk_gib: 20,
                verified: true,
                documented_pace: true,
            },
        }
    }

    /// With the key in `VAST_API_KEY`, and the address in `VAST_API_URL` where it is set.
    pub fn from_env() -> Self {
        let mut builder = Self::new();
        builder.connection.read_environment(ADDRESS_VARIABLE, DOMAIN);
        builder
    }

    /// The account's key.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.connection.key = Some(key.into());
        self
    }

    /// Where the API is; `https://console.vast.ai` when not given.
    #[must_use]
    pub fn address(mut self, url: impl Into<String>) -> Self {
        (self.connection.base, self.connection.home) = (url.into(), None);
        self
    }

    /// Prefix of the labels that `list_owned` counts as this owner's; `gh-` when not given.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.settings.tag = tag.into();
        self
    }

    /// Where the agent listens inside the container; 9443 when not given.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.settings.port = port;
        self
    }

    /// Disk where neither the launch nor the filter says, GiB; 20 when not given.
    #[must_use]
    pub fn disk_gib(mut self, gib: u32) -> Self {
        self.settings.disk_gib = gib;
        self
    }

    /// Takes offers of machines too that Vast.ai has not verified.
    #[must_use]
    pub fn unverified_too(mut self) -> Self {
        self.settings.verified = false;
        self
    }

    /// How often and how fast the API is asked, instead of the distances that Vast.ai documents.
    #[must_use]
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.connection.pacing = pacing;
        self.settings.documented_pace = false;
        self
    }

    /// Checks the settings; asks nothing of the network.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn build(self) -> Result<VastProvider, ConfigError> {
        Ok(VastProvider { api: self.connection.open()?, settings: self.settings })
    }
}
