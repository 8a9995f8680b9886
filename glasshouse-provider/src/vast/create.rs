//! Accepting an ask. Vast.ai's errors can name what they made, and then it exists.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use glasshouse_core::traits::{Allocation, AllocationId, CreateOutcome, LaunchSpec, Offer, ProviderError};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{CONTAINER_SOURCE, VastProvider, is_bad_key};
use crate::image;
use crate::rest::{Answer, Call, message};
use crate::roles::{Hold, Launch, launch_environment};

impl VastProvider {
    pub(super) fn create_call(&self, offer: &Offer, spec: &LaunchSpec) -> Result<Call, ProviderError> {
        let (ask, disk) = parse(&offer.id).unwrap_or_default();
        // Not idempotent: nothing ties a second request to the first one.
        let path = ["api", "v0", "asks", &ask.to_string()];
        let call = self.call("create", "PUT asks/id", Method::PUT, &path, 4500).once();
        let refused = |why: String| self.api.refused(&call, why);
        if ask == 0 {
            return Err(refused(format!("{:?} is no offer of it", offer.id)));
        }
        let image = image::pinned(spec).map_err(refused)?;
        let bind = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.settings.port));
        // "Per-instance API key", with which an instance may destroy itself: Vast.ai's "Docker Execution Environment".
        let own_end = self.api.own_end(&["api", "v0", "instances"], "CONTAINER_ID", "CONTAINER_API_KEY");
        let launch = Launch { own_end, ..Launch::new(spec, bind, Hold::Linger) };
        let env = launch_environment(spec, &launch, Some(CONTAINER_SOURCE));
        if let Some((name, _)) = env.iter().find(|(_, value)| self.api.is_in(value)) {
            return Err(refused(format!("{name} holds the account's API key; it must not leave the owner")));
        }
        let body = json!({
            "image": image,
            "label": spec.name,
            "disk": spec.disk_gib.unwrap_or(self.settings.disk_gib).max(disk),
            // The image's own entry point; Vast.ai's other modes start an SSH server or Jupyter instead.
            "runtype": "args",
            "target_state": "running",
            "cancel_unavail": true,
            "env": flags(&env, self.settings.port).map_err(refused)?,
        });
        Ok(call.json(body))
    }

    pub(super) fn created(
        &self,
        call: &Call,
        answer: &Answer,
        offer: &Offer,
        name: &str,
    ) -> Result<CreateOutcome, ProviderError> {
        let value = answer.value().unwrap_or_default();
        let named = value.pointer("/new_contract").and_then(Value::as_u64).map(|id| AllocationId(id.to_string()));
        let succeeded = answer.status.is_success() && value.pointer("/success") != Some(&Value::Bool(false));
        match (named, answer.status) {
            (Some(id), _) if succeeded => Ok(CreateOutcome::Created(Allocation {
                id,
                name: name.to_owned(),
                // The answer tells no price; each look at the instance does.
                price_per_hour: offer.price_per_hour,
            })),
            (None, StatusCode::NOT_FOUND | StatusCode::GONE) if !is_bad_key(answer) => Ok(CreateOutcome::NoCapacity),
            (None, status) if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
                Err(if is_bad_key(answer) { self.api.unauthorized(answer) } else { self.api.failure(call, answer) })
            }
            (named, status) => {
                let why = format!("status {}: {}", status.as_u16(), message(answer));
                Err(self.api.ambiguous(call, why, named))
            }
        }
    }
}

/// The ask and the disk of an offer's id.
fn parse(id: &str) -> Option<(u64, u32)> {
    let (ask, disk) = id.split_once(':')?;
    Some((ask.parse().ok()?, disk.parse().ok()?))
}

/// Environment and ports as flags of `docker run`, which is how Vast.ai takes them.
fn flags(env: &BTreeMap<String, String>, port: u16) -> Result<String, String> {
    let mut text = format!("-p {port}:{port}");
    for (name, value) in env {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        // What splits this text again is not documented, so nothing goes in that splitters read differently.
        if !is_name || value.chars().any(|c| c.is_control() || matches!(c, '\'' | '"' | '\\' | '`' | '$')) {
            return Err(format!(
                "the environment variable {name:?} has quotes, backslashes, $ or control characters, which cannot be \
                 handed to it as flags"
            ));
        }
        let is_plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./:=@,+".contains(&byte));
        let value = if is_plain && !value.is_empty() { value.clone() } else { format!("'{value}'") };
        text = format!("{text} -e {name}={value}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_cannot_be_broken_out_of() {
        let env = |value: &str| BTreeMap::from([("A".to_owned(), value.to_owned())]);
        assert_eq!(flags(&env("b-1"), 9443).unwrap(), "-p 9443:9443 -e A=b-1");
        assert_eq!(flags(&env("b c"), 1).unwrap(), "-p 1:1 -e A='b c'");
        assert_eq!(flags(&env(""), 1).unwrap(), "-p 1:1 -e A=''");
        for bad in ["b' --privileged '", "\"", "a\\", "a\nb", "$HOME", "`id`"] {
            assert!(flags(&env(bad), 1).is_err(), "{bad}");
        }
        assert!(flags(&BTreeMap::from([("A -v /:/h".to_owned(), String::new())]), 1).is_err());
    }
}
