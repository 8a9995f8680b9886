//! What there is to rent: looked at before anything is made or sealed, so that a run that nothing fits says why at once.

use std::collections::BTreeSet;

use glasshouse_core::traits::{Offer, OfferFilter, TrafficPrice};
use glasshouse_provider::run::RunBuilder;
use serde_json::Value;

use crate::{Rental, say};

type Failure = Box<dyn std::error::Error>;

/// Models named in a sentence.
const MOST_NAMES: usize = 12;

impl Rental {
    /// Everything that fits, the cheapest first. Never empty.
    ///
    /// # Errors
    /// A provider that does not answer; or why nothing fits, in a sentence.
    pub async fn fitting(&self) -> Result<Vec<Offer>, Failure> {
        let mut offers = self.provider().offers(&self.filter).await?;
        offers.sort_by(|a, b| a.price_per_hour.total_cmp(&b.price_per_hour));
        if offers.is_empty() { Err(self.why_none().await?.into()) } else { Ok(offers) }
    }

    /// `1 x NVIDIA RTX A4000`, when everything that fits is that; what a row calls the machine.
    pub fn machine(&self, offers: &[Offer]) -> String {
        let kind = |offer: &Offer| match (&offer.gpu, &offer.location) {
            (None, Some(place)) => place.clone(),
            _ => describe(offer),
        };
        let kinds: BTreeSet<String> = offers.iter().map(kind).collect();
        let mut kinds = kinds.into_iter();
        match (kinds.next(), kinds.next()) {
            (Some(only), None) => only,
            _ => format!("a machine of {}", self.name),
        }
    }

    async fn why_none(&self) -> Result<String, Failure> {
        let (provider, name) = (self.provider(), self.name);
        let count = self.filter.gpu_count;
        let any_price = OfferFilter { max_price_per_hour: None, ..self.filter.clone() };
        let dearer = provider.offers(&any_price).await?;
        let cheapest = dearer.iter().map(|offer| offer.price_per_hour).min_by(f64::total_cmp);
        if let (Some(cheapest), Some(cap)) = (cheapest, self.filter.max_price_per_hour) {
            return Ok(format!(
                "what fits on {name} costs ${cheapest:.2} an hour and more, and the cap is ${cap:.2}; raise --max-price"
            ));
        }
        let all = provider.offers(&OfferFilter { gpu_count: count, ..OfferFilter::default() }).await?;
        if let Some(wanted) = &self.filter.gpu {
            let named = OfferFilter { gpu: Some(wanted.clone()), gpu_count: count, ..OfferFilter::default() };
            if provider.offers(&named).await?.is_empty() {
                return Ok(format!("{name} has no GPU named like {wanted:?} to rent now; it has {}", models(&all)));
            }
        }
        Ok(format!("nothing on {name} fits all that was asked for now; without that it has {}", models(&all)))
    }

    /// Shows what a run would ask of the provider, and what that can cost. The offers are really looked at; nothing else
    /// is asked.
    ///
    /// # Errors
    /// As [`fitting`](Self::fitting), and what the provider's own create would refuse.
    pub async fn dry_run<K>(&self, run: &RunBuilder<K>) -> Result<(), Failure> {
        let offers = self.fitting().await?;
        let offer = offers.first().ok_or("nothing fits")?;
        let spec = run.launch()?;
        let Some(plan) = self.plan(offer, &spec)? else {
            say("Dry run: local starts this executable as a process of this machine. No requests, worst case $0.00.");
            return Ok(());
        };
        say(format_args!("Dry run: nothing is rented. {} offers fit; this is the cheapest:", offers.len()));
        say(format_args!("  {}", line(offer)));
        say(format_args!("\nRequests to {}, in order:", self.name));
        for request in &plan.requests {
            say(format_args!("\n# {}\n{}", purpose(request.call), request.request));
            match &request.body {
                Some(Value::String(text)) => say(text.trim_end()),
                Some(body) => say(serde_json::to_string_pretty(body)?),
                None => {}
            }
        }
        if self.is_paid() {
            say(format_args!("\nEach with the header `Authorization: Bearer [{}]`.", key_variable(self.name)));
        }
        say(format_args!("\n{}", self.cost(offer, plan.worst_case_dollars)));
        Ok(())
    }

    /// What is billed and stands in no worst case.
    fn beside(&self, offer: &Offer) -> String {
        let disk =
            if self.name == "runpod" { " RunPod bills the disk beside the price in its catalogue, too." } else { "" };
        match offer.traffic {
            Some(TrafficPrice { into, out }) => format!(
                "Not in it: traffic, at ${into:.4} a GB into the allocation (image, package, base weights) and ${out:.4} a GB out \
                 of it (adapter, events).{disk}"
            ),
            None => format!("Not in it: what is billed by volume; no price of traffic is known of this offer.{disk}"),
        }
    }

    fn cost(&self, offer: &Offer, of_offer: Option<f64>) -> String {
        let (Some(worst), Some(limit), Some(of_offer)) = (self.worst_case(), self.time_limit, of_offer) else {
            return "Worst case: $0.00; no price is known of it.".to_owned();
        };
        let cap = self.filter.max_price_per_hour.unwrap_or(offer.price_per_hour);
        let limit = humantime::format_duration(limit);
        format!(
            "Worst case: ${worst:.2}, for {limit} (--time-limit) at ${cap:.2} an hour (--max-price), --budget permitting; this \
             offer comes to ${of_offer:.2}.\nNothing is asked for that could go beyond, and at the limit the run ends the \
             allocation. An owner that is killed ends nothing: `providers reap` does.\n{}",
            self.beside(offer)
        )
    }
}

/// A line of a list of offers.
pub fn line(offer: &Offer) -> String {
    let place = offer.location.as_deref().unwrap_or("somewhere");
    format!("{:>9}  {:<44} {place}", format!("${:.3}/h", offer.price_per_hour), describe(offer))
}

fn describe(offer: &Offer) -> String {
    match &offer.gpu {
        Some(gpu) => format!("{} x {gpu}", offer.gpu_count),
        None => "no GPU".to_owned(),
    }
}

fn models(offers: &[Offer]) -> String {
    let names: BTreeSet<&str> = offers.iter().filter_map(|offer| offer.gpu.as_deref()).collect();
    let more = if names.len() > MOST_NAMES { ", and more" } else { "" };
    let named: Vec<&str> = names.into_iter().take(MOST_NAMES).collect();
    if named.is_empty() { "nothing".to_owned() } else { format!("{}{more}", named.join(", ")) }
}

fn key_variable(provider: &str) -> &'static str {
    if provider == "runpod" { "RUNPOD_API_KEY" } else { "VAST_API_KEY" }
}

fn purpose(call: &str) -> &'static str {
    match call {
        "offers" => "what there is (made just now, too)",
        "create" => "rent it, once; an answer in doubt is looked up by name, never repeated",
        "observe" => "until the agent answers, and again until it is gone",
        "request_terminate" => "end it, until it is accepted",
        "find" => "whether anything of that name is left",
        "spend" => "what it cost",
        _ => "ask",
    }
}
