//! What a pod's JSON says. Only its id and its name must be there; everything else is taken where it makes sense.

use std::net::{IpAddr, SocketAddr};

use glasshouse_core::claims::ContainerId;
use glasshouse_core::traits::{Allocation, AllocationId, AllocationState, Endpoint, Observation};
use serde_json::Value;

use crate::rest::{array, printable};

pub(super) struct Pod {
    pub(super) allocation: Allocation,
    /// Whether `cost` was a price.
    pub(super) has_price: bool,
    status: String,
    placed: bool,
    /// GPUs that the running container reports on.
    gpus: Option<u32>,
    /// Port inside, address outside.
    direct: Vec<(u64, SocketAddr)>,
    /// Ports that the proxy serves.
    http: Vec<String>,
}

impl Pod {
    pub(super) fn read(value: &Value) -> Option<Self> {
        let id = value.pointer("/id")?.as_str().filter(|id| is_id(id))?;
        let name = value.pointer("/name")?.as_str()?;
        let cost = value.pointer("/cost").and_then(Value::as_f64).filter(|cost| cost.is_finite() && *cost >= 0.0);
        let gpus = value.pointer("/runtime/gpus").and_then(Value::as_array);
        Some(Self {
            allocation: Allocation {
                id: AllocationId(id.to_owned()),
                name: name.to_owned(),
                price_per_hour: cost.unwrap_or(0.0),
            },
            has_price: cost.is_some(),
            status: value.pointer("/status").and_then(Value::as_str).unwrap_or_default().to_owned(),
            placed: value.pointer("/dataCenterId").is_some_and(Value::is_string),
            gpus: gpus.and_then(|gpus| u32::try_from(gpus.len()).ok()),
            direct: array(value, "/runtime/ports").filter_map(direct).collect(),
            http: array(value, "/ports").filter_map(|port| Some(port.as_str()?.to_owned())).collect(),
        })
    }

    /// `TERMINATED`: "pod has been permanently deleted".
    pub(super) fn is_gone(&self) -> bool {
        self.status == "TERMINATED"
    }

    pub(super) fn observation(self, port: u16, proxy: Option<&str>) -> Observation {
        let state = self.state();
        let id = &self.allocation.id.0;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        if state == AllocationState::Running {
            let direct = self.direct.iter().filter(|(inside, _)| *inside == u64::from(port));
            endpoints.extend(direct.map(|(_, outside)| Endpoint::Direct(*outside)));
            let asked = format!("{port}/http");
            let proxy = proxy.filter(|_| self.http.contains(&asked));
            endpoints.extend(proxy.map(|domain| Endpoint::Proxy(format!("https://{id}-{port}.{domain}"))));
        }
        Observation {
            container: Some(ContainerId { source: super::CONTAINER_SOURCE.to_owned(), value: id.clone() }),
            allocation: self.allocation,
            state,
            endpoints,
            gpu_count: self.gpus,
        }
    }

    fn state(&self) -> AllocationState {
        match self.status.as_str() {
            "PROVISIONING" if self.placed => AllocationState::Pulling,
            "PROVISIONING" => AllocationState::Scheduling,
            "STARTING" => AllocationState::Starting,
            "RUNNING" => AllocationState::Running,
            // RunPod tells no exit code, and an unrecoverable container will not run either.
            "EXITED" | "ERROR" => AllocationState::Exited(None),
            other => AllocationState::Unknown(printable(other)),
        }
    }
}

/// The id in an answer that is no pod: an error that names what it made all the same.
pub(super) fn id_anywhere(value: &Value) -> Option<AllocationId> {
    let id = ["/id", "/podId", "/pod/id", "/data/id"].iter().find_map(|at| value.pointer(at)?.as_str())?;
    is_id(id).then(|| AllocationId(id.to_owned()))
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// A TCP port with a public address. HTTP ports have one inside RunPod's network, which is of no use outside.
fn direct(port: &Value) -> Option<(u64, SocketAddr)> {
    if port.pointer("/type")?.as_str()? != "tcp" {
        return None;
    }
    let address: IpAddr = port.pointer("/ip")?.as_str()?.parse().ok()?;
    let outside = u16::try_from(port.pointer("/public")?.as_u64()?).ok().filter(|port| *port != 0)?;
    Some((port.pointer("/private")?.as_u64()?, SocketAddr::new(address, outside)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn observe(value: &Value) -> Option<Observation> {
        Pod::read(value).map(|pod| pod.observation(9443, Some("proxy.example")))
    }

    #[test]
    fn direct_ports_come_before_the_proxy() {
        let seen = observe(&json!({
            "id": "p1", "name": "gh-1", "status": "RUNNING", "cost": 0.4, "ports": ["9443/tcp", "9443/http"],
            "runtime": { "gpus": [{}, {}], "ports": [
                { "private": 9443, "public": 60001, "type": "http", "ip": "100.65.0.1" },
                { "private": 22, "public": 1022, "type": "tcp", "ip": "192.0.2.1" },
                { "private": 9443, "public": null, "type": "tcp", "ip": null },
                { "private": 9443, "public": 10123, "type": "tcp", "ip": "192.0.2.1" },
            ] },
        }))
        .unwrap();
        let direct = Endpoint::Direct("192.0.2.1:10123".parse().unwrap());
        assert_eq!(seen.endpoints, [direct, Endpoint::Proxy("https://p1-9443.proxy.example".into())]);
        assert_eq!((seen.gpu_count, seen.state), (Some(2), AllocationState::Running));
    }

    #[test]
    fn unknown_states_and_missing_fields_are_tolerated() {
        let seen = observe(&json!({ "id": "p1", "name": "n", "status": "MIGRATING\n", "new": [1] })).unwrap();
        assert_eq!(seen.state, AllocationState::Unknown("MIGRATING".into()));
        for bad in [json!({}), json!({ "id": "../x", "name": "n" }), json!({ "id": 1, "name": "n" }), json!(null)] {
            assert!(Pod::read(&bad).is_none(), "{bad}");
        }
        assert_eq!(id_anywhere(&json!({ "detail": "x", "podId": "p9" })), Some(AllocationId("p9".into())));
    }

    proptest! {
        #[test]
        fn nothing_a_provider_says_panics(
            status in ".*", cost in any::<f64>(), public in any::<i64>(), ip in ".*", private in any::<i64>(),
        ) {
            let value = json!({
                "id": "p", "name": "n", "status": status, "cost": cost, "ports": [1, "x"],
                "runtime": { "gpus": {}, "ports": [{ "private": private, "public": public, "type": "tcp", "ip": ip }] },
            });
            let seen = observe(&value).unwrap();
            prop_assert!(seen.allocation.price_per_hour.is_finite() && seen.allocation.price_per_hour >= 0.0);
        }
    }
}
