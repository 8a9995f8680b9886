use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, Url};

use super::Api;
use super::pace::Pace;

/// How often and how fast a provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// Between two requests to the same endpoint.
    pub spacing: Duration,
    /// Tries of a request that may be repeated.
    pub tries: u32,
    /// Before the second try; doubles from there, half of it by chance.
    pub first_pause: Duration,
    /// A `Retry-After` beyond this is left to the caller.
    pub longest_wait: Duration,
    /// Until an answer must be there.
    pub timeout: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            spacing: Duration::from_millis(300),
            tries: 4,
            first_pause: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
        }
    }
}

/// Why a provider could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no key.
    #[error("there is no API key; set {variable}, or give the builder one")]
    NoKey {
        /// The environment variable that is read.
        variable: &'static str,
    },
    /// The key cannot be put into a header.
    #[error("the API key in {variable} is empty or has characters that no key has; copy it again, without line breaks")]
    BadKey {
        /// The environment variable that is read.
        variable: &'static str,
    },
    /// The key would travel in the clear, or nowhere.
    #[error("{url} is no address for an API key: {why}")]
    BadAddress {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A value that the provider cannot take.
    #[error("{what} is {value:?}: {why}")]
    BadValue {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The HTTP client cannot be made.
    #[error("no HTTP client: {0}")]
    Http(String),
}

/// What a backend's builder collects to make an [`Api`].
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) provider: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) key: Option<String>,
    pub(crate) base: String,
    /// The provider's own domain, when `base` came from the environment: whoever sets a variable there must not be able to
    /// send the key elsewhere.
    pub(crate) home: Option<&'static str>,
    pub(crate) pacing: Pacing,
}

impl Connection {
    /// Takes the key from the environment, and the address where it is set.
    pub(crate) fn read_environment(&mut self, address_variable: &str, home: &'static str) {
        self.key = std::env::var(self.variable).ok();
        if let Ok(address) = std::env::var(address_variable) {
            (self.base, self.home) = (address, Some(home));
        }
    }

    pub(crate) fn open(self) -> Result<Api, ConfigError> {
        let variable = self.variable;
        let key = self.key.ok_or(ConfigError::NoKey { variable })?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::BadKey { variable });
        }
        let mut bearer =
            HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| ConfigError::BadKey { variable })?;
        bearer.set_sensitive(true);
        let bad = |why: String| ConfigError::BadAddress { url: shown(&self.base), why };
        let base = Url::parse(&self.base).map_err(|e| bad(e.to_string()))?;
        let loopback = is_loopback(&base);
        if !is_safe_for_keys(&base) {
            return Err(bad("it is not encrypted; use https://".to_owned()));
        }
        if let Some(home) = self.home
            && !loopback
            && !(base.scheme() == "https" && is_within(&base, home))
        {
            let why = format!("the environment may only name {home} or this machine; give any other to the builder");
            return Err(bad(why));
        }
        // The address travels with each launch, for an allocation to end itself: what it holds, the allocation has.
        if has_more_than_a_place(&base) || self.base.contains(&key) {
            let why =
                "it has a user, a password, a query, a fragment or the key in it; give https://HOST and a path only";
            return Err(bad(why.to_owned()));
        }
        // A redirect must not take the key elsewhere; one to another spelling of the same address may.
        let same = reqwest::redirect::Policy::custom(|attempt| {
            let from = attempt.previous().last().map(Url::origin);
            if attempt.previous().len() < 3 && from == Some(attempt.url().origin()) {
                attempt.follow()
            } else {
                attempt.stop()
            }
        });
        let mut http = Client::builder().redirect(same).tcp_nodelay(true);
        if loopback {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|e| ConfigError::Http(e.to_string()))?;
        let (provider, pacing) = (self.provider, self.pacing);
        let account = super::account::fingerprint(base.host_str().unwrap_or_default(), &key);
        Ok(Api { provider, variable, http, base, account, bearer, pacing, pace: Pace::default() })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("key", &self.key.as_ref().map(|_| "[redacted]"))
            .field("base", &shown(&self.base))
            .field("pacing", &self.pacing)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("key", &"[redacted]")
            .field("base", &self.base.as_str())
            .field("pacing", &self.pacing)
            .finish_non_exhaustive()
    }
}

/// The domain itself, or a name under it.
fn is_within(url: &Url, domain: &str) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a key may be sent there: encrypted, or to this very machine.
pub(crate) fn is_safe_for_keys(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

/// Whether the host is an address of this machine's own loopback, 127.0.0.0/8 or ::1. No name is: names are resolved.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn has_more_than_a_place(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some()
}

/// An address for people, without what may be secret in it.
fn shown(address: &str) -> String {
    let Ok(url) = Url::parse(address) else { return "what was given".to_owned() };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let rest = if has_more_than_a_place(&url) || url.path() != "/" { "/..." } else { "" };
    format!("{}://{host}{port}{rest}", url.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(key: Option<&str>, base: &str) -> Result<Api, ConfigError> {
        open_at(key, base, None)
    }

    fn open_at(key: Option<&str>, base: &str, home: Option<&'static str>) -> Result<Api, ConfigError> {
        let (key, base) = (key.map(str::to_owned), base.to_owned());
        Connection { provider: "p", variable: "P_KEY", key, base, home, pacing: Pacing::default() }.open()
    }

    #[test]
    fn the_environment_cannot_send_a_key_elsewhere() {
        for good in ["https://api.p.io", "https://p.io/x", "http://127.0.0.1:1", "https://127.0.0.1"] {
            assert!(open_at(Some("k"), good, Some("p.io")).is_ok(), "{good}");
        }
        for bad in ["https://example.org", "https://evilp.io", "https://p.io.example.org", "https://p.io@example.org"] {
            let error = open_at(Some("k"), bad, Some("p.io")).unwrap_err();
            assert!(error.to_string().contains("may only name p.io"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_key_travels_encrypted_or_not_at_all() {
        assert!(open(Some("k"), "https://api.example").is_ok());
        assert!(open(Some("k"), "http://127.0.0.1:1").is_ok() && open(Some("k"), "http://[::1]:1").is_ok());
        for base in ["http://api.example", "http://127.0.0.1.example", "ftp://127.0.0.1", "api.example"] {
            assert!(matches!(open(Some("k"), base), Err(ConfigError::BadAddress { .. })), "{base}");
        }
    }

    #[test]
    fn an_address_is_a_place_and_nothing_secret() {
        for bad in [
            "https://u:KEY@api.example",
            "https://KEY@api.example",
            "https://:KEY@api.example",
            "https://api.example/?key=KEY",
            "https://api.example/#KEY",
            "https://api.example/v9/KEY/",
            "http://u:KEY@127.0.0.1:1",
            "http://u:KEY@api.example",
        ] {
            let error = open(Some("KEY"), bad).unwrap_err();
            assert!(matches!(error, ConfigError::BadAddress { .. }), "{bad}: {error}");
            assert!(!error.to_string().contains("KEY") && !format!("{error:?}").contains("KEY"), "{error}");
        }
        assert!(open(Some("k2"), "https://api.example/tenant/").is_ok());
        assert!(!open(Some("KEY"), "no address with KEY in it").unwrap_err().to_string().contains("KEY"));
    }

    #[test]
    fn loopback_is_all_of_it_and_no_name() {
        for (there, address) in [
            (true, "http://127.0.0.1:1"),
            (true, "http://127.8.9.10"),
            (true, "http://[::1]:1/x"),
            (false, "http://localhost"),
            (false, "http://127.0.0.1.example"),
            (false, "http://[::ffff:127.0.0.1]"),
            (false, "ftp://127.0.0.1"),
        ] {
            assert_eq!(is_safe_for_keys(&Url::parse(address).unwrap()), there, "{address}");
        }
    }

    #[test]
    fn a_key_is_there_and_is_one_and_is_never_shown() {
        assert_eq!(open(None, "https://a").unwrap_err(), ConfigError::NoKey { variable: "P_KEY" });
        for key in ["", "a b", "a\nb", "ключ"] {
            assert_eq!(open(Some(key), "https://a").unwrap_err(), ConfigError::BadKey { variable: "P_KEY" });
        }
        let api = open(Some("rpa_KEY"), "https://a").unwrap();
        assert!(!format!("{api:?}").contains("rpa_KEY"));
        assert!(api.is_in("x rpa_KEY y") && !api.is_in("rpa_KE"));
    }
}
