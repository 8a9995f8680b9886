use std::sync::{Arc, Mutex, PoisonError};

use super::clause;
use crate::Zeroizer;
use crate::traits::{SecretRegion, WipeTarget, ZeroizeError};

/// Checks a [`Zeroizer`] with regions that fail to be wiped, lie about it, or cannot be read back.
///
/// `make` gives a fresh one that has nothing tracked yet. A zeroizer that checks the process for secrets still held must
/// be given a ledger of its own here (`HostZeroizer::with_ledger`), because other tests hold secrets too.
///
/// # Panics
/// With the clause that does not hold.
pub fn zeroizer(make: impl Fn() -> Box<dyn Zeroizer>) {
    clause("it has a name", !make().name().is_empty(), "the name is empty");
    every_region_is_wiped_and_read_back(&mut *make());
    for fault in [Fault::WipeFails, Fault::WipeLies, Fault::ReadFails] {
        for place in 0..3 {
            one_failure_leaves_no_other_region_unwiped(&mut *make(), fault, place);
        }
    }
    nothing_tracked_is_nothing_claimed(&mut *make());
}

fn every_region_is_wiped_and_read_back(zeroizer: &mut dyn Zeroizer) {
    let regions = [("first", 1), ("second", 4096), ("third", 70_001)];
    let watches: Vec<_> = regions.iter().map(|(label, size)| track(zeroizer, label, *size, Fault::None)).collect();
    let receipt = match zeroizer.zeroize() {
        Ok(receipt) => receipt,
        Err(error) => panic!("clause `regions that can be wiped give a receipt` is broken: {error}"),
    };
    for (watch, (label, size)) in watches.iter().zip(regions) {
        watch.wiped(label);
        let read_back = watch.steps().ends_with(&[Step::ReadBack]);
        clause(
            "every tracked region is wiped, then read back",
            read_back,
            format_args!("{label}: {:?}", watch.steps()),
        );
        let line = receipt.regions.iter().find(|r| r.label == label);
        let line =
            line.unwrap_or_else(|| panic!("clause `a receipt lists every region` is broken: {label} is missing"));
        clause("a receipt gives each region's size", line.bytes == size as u64, line.bytes);
        let said = !line.method.is_empty() && !line.verification.is_empty();
        clause("a receipt says how each region was wiped and checked", said, format_args!("{line:?}"));
    }
    clause("a receipt names its zeroizer", receipt.zeroizer == zeroizer.name(), &receipt.zeroizer);
    let sentences = receipt.not_covered.iter().all(|line| !line.trim().is_empty());
    clause("what is not covered is said in words", sentences, format_args!("{:?}", receipt.not_covered));

    if let Ok(second) = zeroizer.zeroize() {
        let empty = !regions.iter().any(|(label, _)| second.regions.iter().any(|r| r.label == *label));
        clause("a second zeroize claims nothing", empty, format_args!("{:?}", second.regions));
    }
}

fn one_failure_leaves_no_other_region_unwiped(zeroizer: &mut dyn Zeroizer, fault: Fault, place: usize) {
    let labels = ["first", "second", "third"];
    let faults: Vec<_> = (0..3).map(|i| if i == place { fault } else { Fault::None }).collect();
    let watches: Vec<_> =
        labels.iter().zip(&faults).map(|(label, fault)| track(zeroizer, label, 100, *fault)).collect();
    let outcome = zeroizer.zeroize();
    for ((watch, label), fault) in watches.iter().zip(labels).zip(&faults) {
        if *fault == Fault::None {
            watch.wiped(label);
        }
    }
    match outcome {
        Ok(_) => {
            panic!("clause `it errors whenever it is not sure` is broken: {fault:?} in region {place} gave a receipt")
        }
        Err(error) => {
            let named = fault == Fault::ReadFails || error.to_string().contains(labels[place]);
            clause("an error names the region", named, error);
        }
    }
}

fn nothing_tracked_is_nothing_claimed(zeroizer: &mut dyn Zeroizer) {
    if let Ok(receipt) = zeroizer.zeroize() {
        // A device zeroizer may list what it swept by itself; the labels of this suite cannot be among it.
        let claimed = receipt.regions.iter().any(|r| ["first", "second", "third"].contains(&r.label.as_str()));
        clause("a receipt lists no region that was not tracked", !claimed, format_args!("{:?}", receipt.regions));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    WipeFails,
    WipeLies,
    ReadFails,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wiped,
    ReadBack,
}

/// What happened to a region, kept by the suite while the zeroizer owns the region.
struct Watch(Arc<Mutex<(Vec<u8>, Vec<Step>)>>);

impl Watch {
    fn steps(&self) -> Vec<Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    #[track_caller]
    fn wiped(&self, label: &str) {
        let zero = self.0.lock().unwrap_or_else(PoisonError::into_inner).0.iter().all(|b| *b == 0);
        clause("one failure leaves no other region unwiped", zero, format_args!("{label} still holds data"));
    }
}

struct Target {
    state: Arc<Mutex<(Vec<u8>, Vec<Step>)>>,
    fault: Fault,
}

impl WipeTarget for Target {
    fn bytes(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.len() as u64
    }

    fn wipe(&mut self) -> Result<(), ZeroizeError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.push(Step::Wiped);
        match self.fault {
            Fault::WipeFails => Err(ZeroizeError::NotWiped { region: "target".into(), why: "told to fail".into() }),
            Fault::WipeLies => Ok(()),
            Fault::None | Fault::ReadFails => {
                state.0.fill(0);
                Ok(())
            }
        }
    }

    fn is_wiped(&self) -> Result<bool, ZeroizeError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.push(Step::ReadBack);
        match self.fault {
            Fault::ReadFails => Err(ZeroizeError::NotWiped { region: "target".into(), why: "cannot be read".into() }),
            _ => Ok(state.0.iter().all(|b| *b == 0)),
        }
    }
}

fn track(zeroizer: &mut dyn Zeroizer, label: &str, size: usize, fault: Fault) -> Watch {
    let state = Arc::new(Mutex::new((vec![0xa5; size], Vec::new())));
    let target = Target { state: Arc::clone(&state), fault };
    zeroizer.track(SecretRegion { label: label.to_owned(), target: Box::new(target) });
    Watch(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_memory::HostZeroizer;
    use crate::secret::Ledger;
    use crate::traits::{Receipt, WipedRegion};

    #[test]
    fn the_host_zeroizer_passes() {
        static LEDGER: Ledger = Ledger::new();
        zeroizer(|| Box::new(HostZeroizer::with_ledger(&LEDGER)));
    }

    /// Keeps the contract, with a switch for each way to break it.
    #[derive(Default)]
    struct Simple {
        regions: Vec<SecretRegion>,
        stops_at_failure: bool,
        trusts_wipe: bool,
        swallows_errors: bool,
        keeps_claiming: bool,
    }

    impl Zeroizer for Simple {
        fn name(&self) -> &'static str {
            "simple"
        }
        fn track(&mut self, region: SecretRegion) {
            self.regions.push(region);
        }
        fn zeroize(&mut self) -> Result<Receipt, ZeroizeError> {
            let mut failed = None;
            for region in &mut self.regions {
                if let Err(error) = region.target.wipe() {
                    failed = Some(error.of_region(&region.label));
                    if self.stops_at_failure {
                        break;
                    }
                }
            }
            let mut lines = Vec::new();
            for region in &self.regions {
                if !self.trusts_wipe && !region.target.is_wiped()? {
                    failed = failed.or(Some(ZeroizeError::StillThere { region: region.label.clone() }));
                }
                let (label, bytes) = (region.label.clone(), region.target.bytes());
                lines.push(WipedRegion { label, bytes, method: "zeros".into(), verification: "read".into() });
            }
            if !self.keeps_claiming {
                self.regions.clear();
            }
            if let (Some(error), false) = (failed, self.swallows_errors) {
                return Err(error);
            }
            Ok(Receipt {
                zeroizer: "simple".into(),
                regions: lines,
                allocator_bytes: None,
                large_blocks: None,
                small_blocks: None,
                unlocked_bytes: 0,
                key_memory: crate::secret::KeyMemory::MemfdSecret,
                swapped_bytes: None,
                not_covered: vec!["everything else".into()],
                millis: 0,
            })
        }
    }

    #[test]
    fn a_good_one_passes() {
        zeroizer(|| Box::new(Simple::default()));
    }

    #[test]
    #[should_panic(expected = "clause `one failure leaves no other region unwiped`")]
    fn stops_at_the_first_failure() {
        zeroizer(|| Box::new(Simple { stops_at_failure: true, ..Simple::default() }));
    }

    #[test]
    #[should_panic(expected = "clause `every tracked region is wiped, then read back`")]
    fn does_not_read_back() {
        zeroizer(|| Box::new(Simple { trusts_wipe: true, ..Simple::default() }));
    }

    #[test]
    #[should_panic(expected = "clause `it errors whenever it is not sure`")]
    fn swallows_a_failure() {
        zeroizer(|| Box::new(Simple { swallows_errors: true, ..Simple::default() }));
    }

    #[test]
    #[should_panic(expected = "clause `a second zeroize claims nothing`")]
    fn claims_twice() {
        zeroizer(|| Box::new(Simple { keeps_claiming: true, ..Simple::default() }));
    }
}
