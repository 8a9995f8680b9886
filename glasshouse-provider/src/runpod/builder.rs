use std::fmt;

use super::{Cloud, RunPodProvider};
use crate::rest::{ConfigError, Connection, Pacing};

const KEY_VARIABLE: &str = "RUNPOD_API_KEY";
/// The environment may name an address under it, or one of this machine: the key goes nowhere else.
const DOMAIN: &str = "runpod.io";
const ADDRESS_VARIABLE: &str = "RUNPOD_API_URL";
const ADDRESS: &str = "https://api.runpod.io";
/// Pods answer HTTP at `https://POD-PORT.` and this.
const PROXY_DOMAIN: &str = "proxy.runpod.net";

/// How the owner gets to the agent on a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// A direct TCP port, and RunPod's HTTP proxy where there is none.
    #[default]
    DirectThenProxy,
    /// A direct TCP port.
    Direct,
    /// RunPod's HTTP proxy, which ends TLS and cuts requests at 100 s.
    Proxy,
}

impl Reach {
    /// The `ports` of a pod.
    pub(super) fn ports(self, port: u16) -> Vec<String> {
        let (tcp, http) = (format!("{port}/tcp"), format!("{port}/http"));
        match self {
            Self::DirectThenProxy => vec![tcp, http],
            Self::Direct => vec![tcp],
            Self::Proxy => vec![http],
        }
    }
}

/// Sets a [`RunPodProvider`] up. Its `Debug` does not show the key.
#[derive(Clone, Debug)]
pub struct RunPodBuilder {
    connection: Connection,
    clouds: Option<String>,
    settings: Settings,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) tag: String,
    pub(super) port: u16,
    pub(super) reach: Reach,
    pub(super) clouds: Vec<Cloud>,
    pub(super) disk_gib: u32,
    pub(super) data_centers: Vec<String>,
    /// The domain under which pods answer; absent when the proxy is not used.
    pub(super) proxy: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("tag", &self.tag)
            .field("port", &self.port)
            .field("reach", &self.reach)
            .field("clouds", &self.clouds)
            .finish_non_exhaustive()
    }
}

impl RunPodBuilder {
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
            clouds: None,
            settings: Settings {
                tag: "gh-".to_owned(),
                port: 9443,
                reach: Reach::default(),
                clouds: vec![Cloud::Secure, Cloud::Community],
                disk_gib: 20,
                data_centers: Vec::new(),
                proxy: Some(PROXY_DOMAIN.to_owned()),
            },
        }
    }

    /// With the key in `RUNPOD_API_KEY`, and the address in `RUNPOD_API_URL` where it is set.
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

    /// Where the API is; `https://api.runpod.io` when not given.
    #[must_use]
    pub fn address(mut self, url: impl Into<String>) -> Self {
        (self.connection.base, self.connection.home) = (url.into(), None);
        self
    }

    /// Prefix of the names that `list_owned` counts as this owner's; `gh-` when not given.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.settings.tag = tag.into();
        self
    }

    /// `secure` or `community` alone; both when not given.
    #[must_use]
    pub fn cloud(mut self, cloud: impl Into<String>) -> Self {
        self.clouds = Some(cloud.into());
        self
    }

    /// Where the agent listens inside the container; 9443 when not given.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.settings.port = port;
        self
    }

    /// How the agent is reached.
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Self {
        self.settings.reach = reach;
        self
    }

    /// Container disk where neither the launch nor the filter says, GiB; 20 when not given.
    #[must_use]
    pub fn disk_gib(mut self, gib: u32) -> Self {
        self.settings.disk_gib = gib;
        self
    }

    /// Adds a data centre that pods may be placed in; anywhere when none is given.
    #[must_use]
    pub fn data_center(mut self, id: impl Into<String>) -> Self {
        self.settings.data_centers.push(id.into());
        self
    }

    /// How often and how fast the API is asked.
    #[must_use]
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.connection.pacing = pacing;
        self
    }

    /// Checks the settings; asks nothing of the network.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn build(mut self) -> Result<RunPodProvider, ConfigError> {
        if let Some(cloud) = &self.clouds {
            let why = "RunPod has secure and community";
            let known = Cloud::parse(cloud);
            let known = known.ok_or_else(|| ConfigError::BadValue { what: "the cloud", value: cloud.clone(), why })?;
            self.settings.clouds = vec![known];
        }
        if self.settings.reach == Reach::Direct {
            self.settings.proxy = None;
        }
        Ok(RunPodProvider { api: self.connection.open()?, settings: self.settings })
    }
}
