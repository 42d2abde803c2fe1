//! Counts of one core: plain additions, without a lock and without sharing a cache line with another core.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::payment::reason::Reason;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Passed without a price.
    Free,
    /// Passed free on a route that only observes.
    Observed,
    /// Answered with an offer.
    Offered,
    /// Paid, and charged.
    Paid,
    /// A payment was good, and the origin's answer is not charged.
    Uncharged,
    /// Refused: what was asked or paid does not hold.
    Refused,
    /// The gateway or the origin could not.
    Failed,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 7] = [
        Verdict::Free,
        Verdict::Observed,
        Verdict::Offered,
        Verdict::Paid,
        Verdict::Uncharged,
        Verdict::Refused,
        Verdict::Failed,
    ];

    /// `free`, `observed`, `offered`, `paid`, `uncharged`, `refused`, `failed`.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Free => "free",
            Verdict::Observed => "observed",
            Verdict::Offered => "offered",
            Verdict::Paid => "paid",
            Verdict::Uncharged => "uncharged",
            Verdict::Refused => "refused",
            Verdict::Failed => "failed",
        }
    }
}

/// What would have become of an observed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Would {
    /// Asked for a payment: it carried none.
    Ask,
    /// Paid.
    Pay,
    /// Refused: its payment does not hold.
    Refuse(Reason),
    /// Nobody knows: no verdict came in time.
    Unjudged,
}

impl Would {
    /// `asked`, `paid`, `refused`, `unjudged`: in the order of their places.
    pub const NAMES: [&'static str; 4] = ["asked", "paid", "refused", "unjudged"];

    const fn place(self) -> usize {
        match self {
            Would::Ask => 0,
            Would::Pay => 1,
            Would::Refuse(_) => 2,
            Would::Unjudged => 3,
        }
    }
}

/// Upper bounds of the times that are told apart, microseconds.
pub const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

const VERDICTS: usize = Verdict::ALL.len();
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// What one core counts while it serves by one configuration.
#[derive(Debug)]
pub struct Tally {
    /// By route, the last for requests that no route matched; by verdict in each.
    requests: Box<[[AtomicU64; VERDICTS]]>,
    /// By [`Reason::ALL`].
    reasons: Box<[AtomicU64]>,
    /// By verdict.
    times: [Times; VERDICTS],
    /// By route, in millionths of its price's currency.
    charged: Box<[AtomicU64]>,
    /// By route, then by [`Would::NAMES`]: how many, and millionths of its price's currency.
    observed: Box<[[[AtomicU64; 2]; Would::NAMES.len()]]>,
    /// By [`Reason::ALL`]: why observed requests would have been refused.
    observed_reasons: Box<[AtomicU64]>,
}

#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Tally {
    fn new(routes: usize) -> Tally {
        Tally {
            requests: (0..=routes).map(|_| Default::default()).collect(),
            reasons: Reason::ALL.iter().map(|_| AtomicU64::default()).collect(),
            times: Default::default(),
            charged: (0..routes).map(|_| AtomicU64::default()).collect(),
            observed: (0..routes).map(|_| Default::default()).collect(),
            observed_reasons: Reason::ALL.iter().map(|_| AtomicU64::default()).collect(),
        }
    }

    /// A request has its answer's head: on which route, what became of it, and after which time.
    pub fn answered(&self, route: Option<usize>, verdict: Verdict, took: Duration) {
        let place = route.unwrap_or(usize::MAX).min(self.requests.len() - 1);
        add(&self.requests[place][verdict as usize], 1);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let times = &self.times[verdict as usize];
        add(&times.buckets[BOUNDS_US.partition_point(|bound| *bound < us)], 1);
        add(&times.sum_us, us);
    }

    /// A request was refused.
    pub fn refused(&self, reason: Reason) {
        // Its place in the table is that of its variant.
        if let Some(count) = self.reasons.get(reason as usize) {
            add(count, 1);
        }
    }

    /// A route has sold for so many millionths of its price's currency.
    pub fn charged(&self, route: usize, micros: u64) {
        if let Some(sum) = self.charged.get(route) {
            add(sum, micros);
        }
    }
}

impl Tally {
    /// An observed request has its verdict, and would have earned so many millionths of its route's currency.
    pub fn observed(&self, route: usize, would: Would, micros: u64) {
        if let Some(counts) = self.observed.get(route) {
            let [requests, earned] = &counts[would.place()];
            add(requests, 1);
            add(earned, micros);
        }
        if let Would::Refuse(reason) = would
            && let Some(count) = self.observed_reasons.get(reason as usize)
        {
            add(count, 1);
        }
    }
}

/// Only its own core writes.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// A number that one core sets and others read.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    /// What it is now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it; for its own core.
    pub fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A route as it is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteName {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Of its price; none without one.
    pub currency: Option<Arc<str>>,
}

/// The gauges of a core.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Open connections.
    pub connections: Gauge,
    /// Requests being served.
    pub in_flight: Gauge,
    /// Paid requests whose exchange has not ended.
    pub exchanges: Gauge,
}

/// The tallies of all cores and of all configurations that there were.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    live: Vec<(Arc<[RouteName]>, Arc<Tally>)>,
    /// What those counted that nobody writes to any more.
    past: Totals,
    cores: Vec<Gauges>,
}

/// Route, currency, and one of [`Would::NAMES`].
pub type Observed = (Arc<str>, Arc<str>, &'static str);

/// Sums over cores and configurations.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By route and verdict; the empty name for no route.
    pub requests: BTreeMap<(Arc<str>, Verdict), u64>,
    /// By the reason's code.
    pub reasons: BTreeMap<&'static str, u64>,
    /// By verdict: how many per bucket, and the sum in microseconds.
    pub times: BTreeMap<Verdict, ([u64; BUCKETS], u64)>,
    /// By route and currency, in millionths.
    pub charged: BTreeMap<(Arc<str>, Arc<str>), u64>,
    /// By route, currency and [`Would::NAMES`]: how many were observed, and millionths.
    pub observed: BTreeMap<Observed, [u64; 2]>,
    /// By the reason's code: observed requests that would have been refused.
    pub observed_reasons: BTreeMap<&'static str, u64>,
    /// Open connections, requests and exchanges.
    pub open: [usize; 3],
}

impl Tallies {
    /// A tally for a core that serves these routes from now on.
    pub fn add(&self, routes: &Arc<[RouteName]>) -> Arc<Tally> {
        let tally = Arc::new(Tally::new(routes.len()));
        let mut kept = self.lock();
        kept.fold();
        kept.live.push((routes.clone(), tally.clone()));
        tally
    }

    /// A core whose gauges count.
    pub fn add_core(&self, gauges: Gauges) {
        self.lock().cores.push(gauges);
    }

    /// Everything that was counted.
    pub fn totals(&self) -> Totals {
        let mut kept = self.lock();
        kept.fold();
        let mut totals = kept.past.clone();
        kept.live.iter().for_each(|(routes, tally)| totals.add(routes, tally));
        for gauges in &kept.cores {
            let now = [gauges.connections.get(), gauges.in_flight.get(), gauges.exchanges.get()];
            totals.open.iter_mut().zip(now).for_each(|(sum, now)| *sum += now);
        }
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Keeps only the sums of tallies that nobody else holds.
    fn fold(&mut self) {
        let past = &mut self.past;
        self.live.retain(|(routes, tally)| {
            let held = Arc::strong_count(tally) > 1;
            if !held {
                past.add(routes, tally);
            }
            held
        });
    }
}

impl Totals {
    fn add(&mut self, routes: &[RouteName], tally: &Tally) {
        let nameless = RouteName { name: Arc::from(""), currency: None };
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        for (route, counts) in routes.iter().chain([&nameless]).zip(&tally.requests) {
            for (verdict, count) in Verdict::ALL.into_iter().zip(counts) {
                *self.requests.entry((route.name.clone(), verdict)).or_default() += read(count);
            }
        }
        for (reason, count) in Reason::ALL.iter().zip(&tally.reasons) {
            *self.reasons.entry(reason.code()).or_default() += read(count);
        }
        for (verdict, times) in Verdict::ALL.into_iter().zip(&tally.times) {
            let (buckets, sum) = self.times.entry(verdict).or_default();
            buckets.iter_mut().zip(&times.buckets).for_each(|(all, one)| *all += read(one));
            *sum += read(&times.sum_us);
        }
        for (route, sum) in routes.iter().zip(&tally.charged) {
            if let Some(currency) = &route.currency {
                *self.charged.entry((route.name.clone(), currency.clone())).or_default() += read(sum);
            }
        }
        for (reason, count) in Reason::ALL.iter().zip(&tally.observed_reasons) {
            *self.observed_reasons.entry(reason.code()).or_default() += read(count);
        }
        for (route, counts) in routes.iter().zip(&tally.observed) {
            let Some(currency) = &route.currency else { continue };
            for (would, [requests, earned]) in Would::NAMES.into_iter().zip(counts) {
                let sums = self.observed.entry((route.name.clone(), currency.clone(), would)).or_default();
                sums[0] += read(requests);
                sums[1] += read(earned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(names: &[&str]) -> Arc<[RouteName]> {
        let route = |name: &&str| RouteName { name: Arc::from(*name), currency: Some(Arc::from("USD")) };
        names.iter().map(route).collect()
    }

    #[test]
    fn counts_outlive_their_configuration() {
        let tallies = Tallies::default();
        let first = tallies.add(&routes(&["a", "b"]));
        first.answered(Some(0), Verdict::Paid, Duration::from_micros(700));
        first.answered(None, Verdict::Free, Duration::from_secs(60));
        first.charged(0, 7);
        first.refused(Reason::PaymentRequired);
        drop(first);
        let second = tallies.add(&routes(&["b", "a"]));
        second.answered(Some(1), Verdict::Paid, Duration::from_micros(500));
        second.charged(1, 5);
        for _ in 0..2 {
            let totals = tallies.totals();
            assert_eq!(totals.requests[&(Arc::from("a"), Verdict::Paid)], 2, "by name, whatever its place");
            assert_eq!(totals.requests[&(Arc::from(""), Verdict::Free)], 1);
            assert_eq!(totals.charged[&(Arc::from("a"), Arc::from("USD"))], 12);
            assert_eq!(totals.reasons["payment_required"], 1);
            let (buckets, sum) = totals.times[&Verdict::Paid];
            assert_eq!((buckets[0], buckets[1], sum), (1, 1, 1200), "a bound belongs to what is below it");
            assert_eq!(totals.times[&Verdict::Free].0[BUCKETS - 1], 1);
        }
    }
}
