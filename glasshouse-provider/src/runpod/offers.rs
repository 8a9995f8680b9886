//! The catalogue: which GPUs of which cloud can be had now, and at what price.

use glasshouse_core::traits::{Offer, OfferFilter, ProviderError};
use reqwest::Method;
use serde_json::Value;

use super::RunPodProvider;
use crate::gpu_models::compute_capability;
use crate::rest::{Call, array};

/// RunPod's two clouds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cloud {
    /// RunPod's own data centres; every pod has a public address.
    Secure,
    /// Other people's machines; a public address is not promised.
    Community,
}

impl Cloud {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "secure" => Some(Self::Secure),
            "community" => Some(Self::Community),
            _ => None,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Secure => "SECURE",
            Self::Community => "COMMUNITY",
        }
    }

    /// The name of its fields in the catalogue.
    const fn field(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Community => "community",
        }
    }

    pub(super) fn fits(self, filter: &OfferFilter) -> bool {
        let wanted = filter.cloud.as_deref().is_none_or(|cloud| Self::parse(cloud) == Some(self));
        wanted && (self == Self::Secure || !filter.direct_port)
    }
}

/// What of an offer a create needs, as text in [`Offer::id`]: `SECURE:COUNT:CUDA:DISK:GPU`, `-` for what is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfferId {
    pub(super) cloud: Cloud,
    pub(super) count: u32,
    /// Major * 10 + minor.
    pub(super) min_cuda: Option<u32>,
    pub(super) min_disk: Option<u32>,
    pub(super) gpu: String,
}

impl OfferId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (cloud, rest) = text.split_once(':')?;
        let cloud = Cloud::parse(cloud)?;
        let mut parts = rest.splitn(4, ':');
        let mut number = || -> Option<Option<u32>> {
            let part = parts.next()?;
            if part == "-" { Some(None) } else { part.parse().ok().map(Some) }
        };
        let (count, min_cuda, min_disk) = (number()??, number()?, number()?);
        let gpu = parts.next().filter(|gpu| !gpu.is_empty())?.to_owned();
        Some(Self { cloud, count, min_cuda, min_disk, gpu })
    }

    fn text(&self) -> String {
        let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let (cuda, disk) = (number(self.min_cuda), number(self.min_disk));
        format!("{}:{}:{cuda}:{disk}:{}", self.cloud.text(), self.count, self.gpu)
    }
}

pub(super) fn call(cloud: Cloud, count: u32, filter: &OfferFilter) -> Call {
    let call = Call::new("offers", "GET catalog/gpus", Method::GET, &["v2", "catalog", "gpus"])
        .query("include", "AVAILABILITY")
        .query("product", "POD")
        .query("cloud", cloud.text())
        .query("count", count.to_string());
    match filter.min_cuda {
        Some(floor) => call.query("minCudaVersion", cuda_text(floor)),
        None => call,
    }
}

/// 128 as `12.8`.
pub(super) fn cuda_text(version: u32) -> String {
    format!("{}.{}", version.wrapping_div(10), version.wrapping_rem(10))
}

/// Whether a refusal is about there being none left. RunPod has no code for it, only words.
pub(super) fn is_capacity(words: &str) -> bool {
    let words = words.to_lowercase();
    let signs = ["capacity", "instances available", "no longer any", "not available", "unavailable", "out of stock"];
    signs.iter().any(|sign| words.contains(sign))
}

impl RunPodProvider {
    pub(super) async fn offers_of(&self, cloud: Cloud, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        let count = filter.gpu_count.unwrap_or(1);
        if count == 0 {
            return Ok(Vec::new());
        }
        let call = call(cloud, count, filter);
        let value = self.api.json(&call, None).await?;
        if value.pointer("/gpus").and_then(Value::as_array).is_none() {
            return Err(self.api.unintelligible(&call, "there is no list of GPUs in it"));
        }
        // What cannot be read is not offered: nothing is lost by that.
        Ok(array(&value, "/gpus").filter_map(|gpu| self.offer(gpu, cloud, count, filter)).collect())
    }

    fn offer(&self, gpu: &Value, cloud: Cloud, count: u32, filter: &OfferFilter) -> Option<Offer> {
        let text = |at: &str| gpu.pointer(at).and_then(Value::as_str);
        let of_cloud = |what: &str| gpu.pointer(&format!("/{what}/{}", cloud.field()));
        let id = text("/id")?;
        let name = text("/name").unwrap_or(id);
        let wanted = |want: &str| {
            let want = want.to_lowercase();
            id.to_lowercase().contains(&want) || name.to_lowercase().contains(&want)
        };
        let price = of_cloud("price")?.as_f64()? * f64::from(count);
        let there = gpu.pointer(&format!("/{}", cloud.field())).and_then(Value::as_bool) == Some(true)
            && of_cloud("maxCount")?.as_u64()? >= u64::from(count)
            && text("/availability").is_some_and(|level| level != "NONE");
        let fits = filter.gpu.as_deref().is_none_or(wanted)
            && text("/manufacturer").is_none_or(|maker| maker.eq_ignore_ascii_case("nvidia"))
            && filter.max_price_per_hour.is_none_or(|cap| price <= cap)
            && filter.min_memory_gib.is_none_or(|least| {
                gpu.pointer("/memory").and_then(Value::as_u64).is_some_and(|gib| gib >= u64::from(least))
            })
            // A model that is not in the table has an unknown capability, which is not enough of one.
            && filter.min_compute_capability.is_none_or(|least| {
                compute_capability(id).is_some_and(|capability| capability >= least)
            });
        if !(there && fits && price.is_finite() && price > 0.0) {
            return None;
        }
        let (min_cuda, min_disk) = (filter.min_cuda, filter.min_disk_gib);
        let offer = OfferId { cloud, count, min_cuda, min_disk, gpu: id.to_owned() };
        let places: Vec<&str> = array(gpu, "/dataCenters")
            .filter(|place| place.pointer("/availability").and_then(Value::as_str) != Some("NONE"))
            .filter_map(|place| place.pointer("/id")?.as_str())
            .take(8)
            .collect();
        Some(Offer {
            id: offer.text(),
            gpu: Some(id.to_owned()),
            gpu_count: count,
            price_per_hour: price,
            location: (!places.is_empty()).then(|| format!("{} cloud: {}", cloud.field(), places.join(", "))),
            traffic: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_says_what_its_create_needs() {
        let id = OfferId {
            cloud: Cloud::Community,
            count: 2,
            min_cuda: Some(124),
            min_disk: None,
            gpu: "NVIDIA: odd name".into(),
        };
        assert_eq!(id.text(), "COMMUNITY:2:124:-:NVIDIA: odd name");
        assert_eq!(OfferId::parse(&id.text()), Some(id));
        for bad in ["", "SECURE", "SECURE:1:-:-:", "SECURE:-:-:-:A", "SECURE:x:-:-:A", "NONE:1:-:-:A"] {
            assert_eq!(OfferId::parse(bad), None, "{bad}");
        }
        assert_eq!((cuda_text(128), cuda_text(130)), ("12.8".into(), "13.0".into()));
    }

    #[test]
    fn a_direct_port_is_promised_by_the_secure_cloud_only() {
        let direct = OfferFilter { direct_port: true, ..OfferFilter::default() };
        assert!(Cloud::Secure.fits(&direct) && !Cloud::Community.fits(&direct));
        let named = OfferFilter { cloud: Some("Community".into()), ..OfferFilter::default() };
        assert!(!Cloud::Secure.fits(&named) && Cloud::Community.fits(&named));
        let unknown = OfferFilter { cloud: Some("private".into()), ..OfferFilter::default() };
        assert!(!Cloud::Secure.fits(&unknown) && !Cloud::Community.fits(&unknown));
    }
}
