//! Partitions as offers: `sinfo` tells their GRES, and nothing costs.

use glasshouse_core::traits::{Offer, OfferFilter, ProviderError};

use super::SlurmProvider;
use super::job::is_plain;
use crate::gpu_models::compute_capability;
use crate::rest::printable;

/// Partition, availability, GRES, number of nodes.
pub(super) const SINFO: [&str; 2] = ["--noheader", "--format=%R|%a|%G|%D"];

/// What of an offer a submission needs, as text in [`Offer::id`]: `PARTITION:TYPE:COUNT:DISK`, `-` for no type.
pub(super) struct Wanted {
    pub(super) partition: String,
    pub(super) kind: Option<String>,
    pub(super) gpus: u32,
    pub(super) disk_gib: u32,
}

impl Wanted {
    pub(super) fn parse(id: &str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let [partition, kind, gpus, disk] = parts.as_slice() else { return None };
        Some(Self {
            partition: is_plain(partition).then(|| (*partition).to_owned())?,
            kind: if *kind == "-" { None } else { Some(is_plain(kind).then(|| (*kind).to_owned())?) },
            gpus: gpus.parse().ok()?,
            disk_gib: disk.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or("-");
        format!("{}:{kind}:{}:{}", self.partition, self.gpus, self.disk_gib)
    }
}

impl SlurmProvider {
    pub(super) async fn partitions(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        let text = self.settings.run_again("sinfo", &SINFO).await.map_err(|f| f.into_error("offers"))?;
        let mut offers: Vec<Offer> = text.lines().flat_map(|line| self.of_line(line, filter)).collect();
        offers.dedup_by(|a, b| a.id == b.id);
        Ok(offers)
    }

    fn of_line(&self, line: &str, filter: &OfferFilter) -> Vec<Offer> {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [partition, "up", gres, nodes] = fields.as_slice() else { return Vec::new() };
        let is_wanted = self.settings.partition.as_deref().is_none_or(|only| only == *partition);
        if !is_wanted || !is_plain(partition) {
            return Vec::new();
        }
        let mut kinds: Vec<(Option<String>, u32)> = gres.split(',').filter_map(gpu).collect();
        if kinds.is_empty() {
            kinds.push((None, 0));
        }
        let offer = |(kind, most): (Option<String>, u32)| {
            let gpus = filter.gpu_count.unwrap_or(u32::from(most > 0));
            let model = (gpus > 0).then(|| kind.clone().unwrap_or_else(|| "gpu".to_owned()));
            let fits = gpus <= most && self.fits(model.as_deref(), filter);
            let kind = kind.filter(|_| gpus > 0);
            let wanted =
                Wanted { partition: (*partition).to_owned(), kind, gpus, disk_gib: filter.min_disk_gib.unwrap_or(0) };
            fits.then(|| Offer {
                id: wanted.text(),
                gpu: model,
                gpu_count: gpus,
                price_per_hour: 0.0,
                location: Some(printable(&format!("partition {partition} (nodes: {nodes})"))),
                traffic: None,
            })
        };
        kinds.into_iter().filter_map(offer).collect()
    }

    /// What Slurm does not tell is not enough of anything.
    fn fits(&self, model: Option<&str>, filter: &OfferFilter) -> bool {
        let known =
            |least: Option<u32>, has: Option<u32>| least.is_none_or(|least| has.is_some_and(|has| has >= least));
        let contains = |want: &String| model.is_some_and(|model| model.to_lowercase().contains(&want.to_lowercase()));
        filter.gpu.as_ref().is_none_or(contains)
            && filter.cloud.is_none()
            && known(filter.min_compute_capability, model.and_then(compute_capability))
            && known(filter.min_memory_gib, self.settings.gpu_memory_gib)
            && known(filter.min_cuda, self.settings.cuda)
    }
}

/// `gpu:2`, `gpu:a100:4(S:0-1)`: the type and how many a node has.
fn gpu(gres: &str) -> Option<(Option<String>, u32)> {
    let gres = gres.split('(').next()?;
    let parts: Vec<&str> = gres.split(':').collect();
    match parts.as_slice() {
        ["gpu"] => Some((None, 1)),
        ["gpu", count] => Some((None, count.parse().ok()?)),
        ["gpu", kind, count] if is_plain(kind) => Some((Some((*kind).to_owned()), count.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::SlurmProvider;

    fn offers(line: &str, filter: &OfferFilter) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let provider = SlurmProvider::builder().folder(folder.path()).program("/bin/true").build().unwrap();
        provider.of_line(line, filter).into_iter().map(|offer| offer.id).collect()
    }

    #[test]
    fn partitions_are_offers() {
        let any = OfferFilter::default();
        assert_eq!(offers("gpu|up|gpu:2|1", &any), ["gpu:-:1:0"]);
        assert_eq!(offers("big|up|gpu:a100:4(S:0-1),gpu:t4:2|9", &any), ["big:a100:1:0", "big:t4:1:0"]);
        assert_eq!(offers("cpu|up|(null)|4", &any), ["cpu:-:0:0"]);
        assert!(offers("gpu|down|gpu:2|1", &any).is_empty() && offers("-x|up|gpu:2|1", &any).is_empty());
        let three = OfferFilter { gpu_count: Some(3), ..any.clone() };
        assert!(offers("gpu|up|gpu:2|1", &three).is_empty());
        let ampere = OfferFilter { min_compute_capability: Some(80), ..any.clone() };
        assert_eq!(offers("big|up|gpu:a100:4,gpu:t4:2|9", &ampere), ["big:a100:1:0"]);
        assert!(offers("gpu|up|gpu:2|1", &ampere).is_empty(), "an untyped GPU may be any");
        let named = OfferFilter { gpu: Some("A100".into()), ..any };
        assert_eq!(offers("big|up|gpu:a100:4,gpu:t4:2|9", &named), ["big:a100:1:0"]);
        assert!(offers("cpu|up|(null)|4", &named).is_empty());
    }
}
