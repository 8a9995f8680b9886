//! What a supervisor may spend in all, and what it has promised already.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::SupervisorError;

/// US dollars for so long at a price by the hour: the worst case, for a time limit. What is billed by volume, traffic above
/// all, is not in it.
pub fn dollars_for(price_per_hour: f64, time: Duration) -> f64 {
    const HOUR: Duration = Duration::from_secs(3600);
    price_per_hour * time.div_duration_f64(HOUR)
}

/// The ledger. What runs counts with the most that it can come to; what has ended, with what it came to.
pub(super) struct Ledger {
    budget: Option<f64>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    spent: f64,
    running: BTreeMap<String, Promise>,
}

struct Promise {
    price: f64,
    since: Instant,
    worst: f64,
}

impl Inner {
    /// Everything but `name`.
    fn others(&self, name: &str) -> f64 {
        let running = self.running.iter().filter(|(other, _)| *other != name);
        self.spent + running.map(|(_, promise)| promise.worst).sum::<f64>()
    }
}

impl Ledger {
    pub(super) fn new(budget: Option<f64>) -> Self {
        Self { budget, inner: Mutex::default() }
    }

    /// Promises the worst case of an allocation, or refuses it. Also when its price turns out to be another one.
    pub(super) fn promise(&self, name: &str, price: f64, limit: Option<Duration>) -> Result<(), SupervisorError> {
        let price = if price.is_finite() { price.max(0.0) } else { f64::INFINITY };
        let worst = match (limit, self.budget) {
            (Some(limit), _) => dollars_for(price, limit),
            (None, Some(_)) if price > 0.0 => return Err(SupervisorError::NoTimeLimit),
            (None, _) => 0.0,
        };
        let mut inner = self.lock();
        let others = inner.others(name);
        if let Some(budget) = self.budget
            && others + worst > budget
        {
            return Err(SupervisorError::OverBudget { worst, left: (budget - others).max(0.0), budget });
        }
        let since = inner.running.get(name).map_or_else(Instant::now, |promise| promise.since);
        inner.running.insert(name.to_owned(), Promise { price, since, worst });
        Ok(())
    }

    /// It ended: what it came to is spent. `billed` is the provider's own figure, which may be late and so too low.
    pub(super) fn settle(&self, name: &str, billed: Option<f64>) {
        let mut inner = self.lock();
        if let Some(promise) = inner.running.remove(name) {
            let ran = dollars_for(promise.price, promise.since.elapsed());
            inner.spent += ran.max(billed.unwrap_or(0.0));
        }
    }

    /// It was never made.
    pub(super) fn forget(&self, name: &str) {
        self.lock().running.remove(name);
    }

    pub(super) fn spent(&self) -> f64 {
        let inner = self.lock();
        let running = inner.running.values().map(|promise| dollars_for(promise.price, promise.since.elapsed()));
        inner.spent + running.sum::<f64>()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // One insert, removal or sum at a time: a panic elsewhere leaves no half state behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn the_worst_case_is_promised_and_the_rest_comes_back() {
        let ledger = Ledger::new(Some(10.0));
        ledger.promise("a", 2.0, Some(3 * HOUR)).unwrap();
        let error = ledger.promise("b", 2.0, Some(3 * HOUR)).unwrap_err();
        assert!(matches!(error, SupervisorError::OverBudget { left, .. } if (left - 4.0).abs() < 1e-9), "{error}");
        // The price of one that runs goes up: what it may come to is promised anew, or it has to go.
        ledger.promise("a", 3.0, Some(3 * HOUR)).unwrap();
        assert!(matches!(ledger.promise("a", 4.0, Some(3 * HOUR)), Err(SupervisorError::OverBudget { .. })));
        tokio::time::advance(HOUR / 2).await;
        assert!((ledger.spent() - 1.5).abs() < 1e-9);
        ledger.settle("a", Some(1.0));
        assert!((ledger.spent() - 1.5).abs() < 1e-9);
        ledger.promise("b", 2.0, Some(4 * HOUR)).unwrap();
        ledger.forget("b");
        ledger.promise("c", 8.5, Some(HOUR)).unwrap();
        ledger.settle("c", Some(9.0));
        assert!((ledger.spent() - 10.5).abs() < 1e-9, "a bill above the worst case is a bill all the same");
    }

    #[test]
    fn a_price_is_a_number_and_a_budget_needs_an_end() {
        let ledger = Ledger::new(Some(1.0));
        assert!(matches!(ledger.promise("a", 1.0, None), Err(SupervisorError::NoTimeLimit)));
        ledger.promise("free", 0.0, None).unwrap();
        for price in [f64::NAN, f64::INFINITY] {
            assert!(matches!(ledger.promise("a", price, Some(HOUR)), Err(SupervisorError::OverBudget { .. })));
        }
        Ledger::new(None).promise("a", 1e9, None).unwrap();
    }
}
