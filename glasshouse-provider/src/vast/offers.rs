//! Search: what the filter says is asked of Vast.ai, and what comes back is checked again.

use glasshouse_core::traits::{Offer, OfferFilter, ProviderError, TrafficPrice};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::VastProvider;
use crate::rest::{Call, array, printable};

/// Offers to look at. Names are compared here, as parts, which Vast.ai's search cannot.
const LIMIT: u32 = 1000;

impl VastProvider {
    pub(super) async fn search(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        let Some(call) = self.search_call(filter) else { return Ok(Vec::new()) };
        let value = self.success(&call, &self.api.send(&call).await?)?;
        if value.pointer("/offers").and_then(Value::as_array).is_none() {
            return Err(self.api.unintelligible(&call, "there is no list of offers in it"));
        }
        let mut offers: Vec<Offer> = array(&value, "/offers").filter_map(|found| offer(found, filter)).collect();
        offers.sort_by(|a, b| a.price_per_hour.total_cmp(&b.price_per_hour));
        Ok(offers)
    }

    /// `None` when nothing can fit.
    pub(super) fn search_call(&self, filter: &OfferFilter) -> Option<Call> {
        let path = ["api", "v0", "bundles"];
        let query = Value::Object(self.query(filter)?);
        Some(self.call("offers", "POST bundles", Method::POST, &path, 1000).json(query))
    }

    fn query(&self, filter: &OfferFilter) -> Option<Map<String, Value>> {
        let at_least = |least: Value| json!({ "gte": least });
        let mut query = Map::new();
        let mut put = |name: &str, value: Value| drop(query.insert(name.to_owned(), value));
        put("limit", LIMIT.into());
        put("type", "ondemand".into());
        put("rentable", json!({ "eq": true }));
        put("rented", json!({ "eq": false }));
        // The document wants two entries here.
        put("order", json!([["dph_total", "asc"], ["reliability", "desc"]]));
        put("allocated_storage", filter.min_disk_gib.unwrap_or(self.settings.disk_gib).into());
        if self.settings.verified {
            put("verified", json!({ "eq": true }));
        }
        match filter.cloud.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("community") => {}
            Some("secure") => put("datacenter", json!({ "eq": true })),
            Some(_) => return None,
        }
        match filter.gpu_count.unwrap_or(1) {
            0 => return None,
            count => put("num_gpus", json!({ "eq": count })),
        }
        if let Some(cap) = filter.max_price_per_hour {
            put("dph_total", json!({ "lte": cap }));
        }
        if let Some(gib) = filter.min_memory_gib {
            put("gpu_ram", at_least(gib.saturating_mul(1000).into()));
        }
        if let Some(gib) = filter.min_disk_gib {
            put("disk_space", at_least(gib.into()));
        }
        if let Some(capability) = filter.min_compute_capability {
            // Times a hundred there: 650 is 6.5.
            put("compute_cap", at_least(capability.saturating_mul(10).into()));
        }
        if let Some(cuda) = filter.min_cuda {
            put("cuda_max_good", at_least((f64::from(cuda) / 10.0).into()));
        }
        if filter.direct_port {
            put("direct_port_count", at_least(1.into()));
        }
        Some(query)
    }
}

/// An offer that fits, as far as it can be read: one that cannot is not offered, and nothing is lost by that.
fn offer(found: &Value, filter: &OfferFilter) -> Option<Offer> {
    let number = |at: &str| found.pointer(at).and_then(Value::as_f64).filter(|number| number.is_finite());
    let at_least = |at: &str, least: Option<f64>| least.is_none_or(|least| number(at).is_some_and(|has| has >= least));
    let id = found.pointer("/ask_contract_id").or(found.pointer("/id"))?.as_u64()?;
    let gpu = found.pointer("/gpu_name")?.as_str()?;
    // `RTX_4090` on its command line, `RTX 4090` in its answers.
    let plain = |name: &str| name.to_lowercase().replace('_', " ");
    let count = u32::try_from(found.pointer("/num_gpus")?.as_u64()?).ok()?;
    let price = number("/dph_total")?;
    // "$/GB", seen from the host.
    let traffic = |at: &str| number(at).filter(|price| *price >= 0.0);
    let fits = filter.gpu.as_deref().is_none_or(|want| plain(gpu).contains(&plain(want)))
        && count == filter.gpu_count.unwrap_or(1)
        && filter.max_price_per_hour.is_none_or(|cap| price <= cap)
        && at_least("/gpu_ram", filter.min_memory_gib.map(|gib| f64::from(gib) * 1000.0))
        && at_least("/disk_space", filter.min_disk_gib.map(f64::from))
        && at_least("/compute_cap", filter.min_compute_capability.map(|capability| f64::from(capability) * 10.0))
        && at_least("/cuda_max_good", filter.min_cuda.map(|cuda| f64::from(cuda) / 10.0))
        && at_least("/direct_port_count", filter.direct_port.then_some(1.0));
    (fits && count > 0 && price > 0.0).then(|| Offer {
        id: format!("{id}:{}", filter.min_disk_gib.unwrap_or(0)),
        gpu: Some(printable(gpu)),
        gpu_count: count,
        price_per_hour: price,
        location: found.pointer("/geolocation").and_then(Value::as_str).map(printable),
        traffic: traffic("/inet_down_cost").zip(traffic("/inet_up_cost")).map(|(into, out)| TrafficPrice { into, out }),
    })
}
