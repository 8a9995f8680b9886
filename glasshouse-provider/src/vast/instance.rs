//! What an instance's JSON says. Only its id must be there; everything else is taken where it makes sense.

use std::net::{IpAddr, SocketAddr};

use glasshouse_core::claims::ContainerId;
use glasshouse_core::traits::{Allocation, AllocationId, AllocationState, Endpoint, Observation};
use serde_json::Value;

use crate::rest::printable;

pub(super) struct Instance {
    pub(super) allocation: Allocation,
    status: Option<String>,
    gpus: Option<u32>,
    address: Option<IpAddr>,
    ports: Value,
}

impl Instance {
    pub(super) fn read(value: &Value) -> Option<Self> {
        let id = value.pointer("/id")?.as_u64()?;
        let text = |at: &str| value.pointer(at).and_then(Value::as_str);
        let price = value.pointer("/dph_total").and_then(Value::as_f64).filter(|price| price.is_finite());
        Some(Self {
            allocation: Allocation {
                id: AllocationId(id.to_string()),
                name: text("/label").unwrap_or_default().to_owned(),
                price_per_hour: price.unwrap_or(0.0).max(0.0),
            },
            status: text("/actual_status").filter(|status| !status.is_empty()).map(str::to_owned),
            gpus: value.pointer("/num_gpus").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()),
            address: text("/public_ipaddr").and_then(|address| address.trim().parse().ok()),
            ports: value.pointer("/ports").cloned().unwrap_or_default(),
        })
    }

    pub(super) fn observation(self, port: u16) -> Observation {
        let state = self.state();
        let outside = self.address.filter(|_| state == AllocationState::Running).zip(self.outside(port));
        let endpoint = outside.map(|(address, port)| Endpoint::Direct(SocketAddr::new(address, port)));
        let container = ContainerId { source: super::CONTAINER_SOURCE.to_owned(), value: self.allocation.id.0.clone() };
        Observation {
            allocation: self.allocation,
            state,
            endpoints: endpoint.into_iter().collect(),
            container: Some(container),
            gpu_count: self.gpus,
        }
    }

    /// `ports["9443/tcp"][0].HostPort`, which is text.
    fn outside(&self, port: u16) -> Option<u16> {
        let host = self.ports.get(format!("{port}/tcp"))?.get(0)?.get("HostPort")?;
        let host = host.as_str().map_or_else(|| host.as_u64(), |text| text.parse().ok());
        u16::try_from(host?).ok().filter(|port| *port != 0)
    }

    fn state(&self) -> AllocationState {
        match self.status.as_deref() {
            None | Some("created" | "scheduling") => AllocationState::Scheduling,
            Some("loading") => AllocationState::Pulling,
            Some("connecting" | "starting") => AllocationState::Starting,
            Some("running") => AllocationState::Running,
            // The document: "it will never reach running -- destroy and retry".
            Some("exited" | "unknown" | "offline" | "stopped") => AllocationState::Exited(None),
            Some(other) => AllocationState::Unknown(printable(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn observe(value: &Value) -> Observation {
        Instance::read(value).unwrap().observation(9443)
    }

    #[test]
    fn the_real_port_is_the_hosts() {
        let mut value = json!({
            "id": 7, "label": "gh-1", "actual_status": "running", "public_ipaddr": "192.0.2.1 ", "num_gpus": 1,
            "dph_total": 0.4, "ports": { "9443/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "41234" }] },
        });
        assert_eq!(observe(&value).endpoints, [Endpoint::Direct("192.0.2.1:41234".parse().unwrap())]);
        value["actual_status"] = "loading".into();
        assert!(observe(&value).endpoints.is_empty());
        for (status, state) in [
            (Value::Null, AllocationState::Scheduling),
            ("offline".into(), AllocationState::Exited(None)),
            ("frozen".into(), AllocationState::Unknown("frozen".into())),
        ] {
            value["actual_status"] = status;
            assert_eq!(observe(&value).state, state);
        }
        assert!(Instance::read(&json!({ "id": "7" })).is_none());
    }

    proptest! {
        #[test]
        fn nothing_a_provider_says_panics(status in ".*", address in ".*", port in ".*", price in any::<f64>()) {
            let value = json!({
                "id": 7, "label": null, "actual_status": status, "public_ipaddr": address, "num_gpus": -1,
                "dph_total": price, "ports": { "9443/tcp": [{ "HostPort": port }] },
            });
            prop_assert!(observe(&value).allocation.price_per_hour >= 0.0);
        }
    }
}
