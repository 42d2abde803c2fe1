//! Prices that origins have named, for a while: the next request without a payment gets its offer without asking the origin.
//!
//! A fixed number of slots, each found by a keyed hash of host, path and query: memory is fixed, a busier resource may take
//! another one's place, and nobody can choose whose. A price that is out of date costs nobody anything: a paid request is
//! always the origin's to price, and never charged more than its bid.
//!
//! Learned is only what goes for everybody: not from requests with credentials, not where the answer varies with who asks, is
//! private or not to be kept, and not that something costs nothing.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};

use super::target::Target;
use crate::wire::amount::{Money, Units};

/// Fields of a request by which origins tell people apart.
const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// Prices by resource.
pub struct Prices {
    slots: Box<[Mutex<Option<Slot>>]>,
    hashers: [RandomState; 2],
    lifetime_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    name: [u64; 2],
    price: Money,
    until_ms: u64,
}

impl Prices {
    /// Room for so many, each for so long; none of either: nothing is kept.
    pub fn new(most: usize, lifetime: Duration) -> Prices {
        let most = if lifetime.is_zero() { 0 } else { most };
        Prices {
            slots: (0..most).map(|_| Mutex::default()).collect(),
            hashers: Default::default(),
            lifetime_ms: u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What a resource costs, as far as is known; `None` for a request to which that may not apply.
    pub fn get(&self, target: &Target, asked: &HeaderMap, now_ms: u64) -> Option<Money> {
        if self.slots.is_empty() || has_credentials(asked) {
            return None;
        }
        let name = self.name(target);
        let slot = (*self.slot(name)?.lock().unwrap_or_else(PoisonError::into_inner))?;
        (slot.name == name && now_ms < slot.until_ms).then_some(slot.price)
    }

    /// An origin has named a price, in an answer with these fields.
    pub fn learn(&self, target: &Target, price: Money, is_shared: bool, answer: &HeaderMap, now_ms: u64) {
        if self.slots.is_empty() || !is_shared || price.units == Units::ZERO {
            return;
        }
        let Some(most_ms) = kept_ms(answer).filter(|ms| *ms > 0) else { return };
        let name = self.name(target);
        let until_ms = now_ms.saturating_add(most_ms.min(self.lifetime_ms));
        if let Some(slot) = self.slot(name) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Slot { name, price, until_ms });
        }
    }

    /// The price of a resource is another one, as a payment was just told: what is known of it is no more.
    pub fn forget(&self, target: &Target) {
        if self.slots.is_empty() {
            return;
        }
        let name = self.name(target);
        if let Some(slot) = self.slot(name) {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = slot.filter(|slot| slot.name != name);
        }
    }

    fn name(&self, target: &Target) -> [u64; 2] {
        let parts = (target.authority(), target.path(), target.query().unwrap_or(""));
        [self.hashers[0].hash_one(parts), self.hashers[1].hash_one(parts)]
    }

    fn slot(&self, [name, _]: [u64; 2]) -> Option<&Mutex<Option<Slot>>> {
        self.slots.get(usize::try_from(name % self.slots.len() as u64).ok()?)
    }
}

/// Whether a request says who asks.
pub fn has_credentials(asked: &HeaderMap) -> bool {
    CREDENTIALS.iter().any(|name| asked.contains_key(name))
}

/// For how long an answer goes for everybody, ms; `None` where it does not.
fn kept_ms(answer: &HeaderMap) -> Option<u64> {
    let list = |name: HeaderName| {
        let lines: Option<Vec<&str>> = answer.get_all(name).iter().map(|line| line.to_str().ok()).collect();
        lines.map(|lines| lines.into_iter().flat_map(|line| line.split(',')).map(str::trim).collect::<Vec<_>>())
    };
    if list(header::VARY)?.iter().any(|name| !name.is_empty() && !name.eq_ignore_ascii_case("accept-encoding")) {
        return None;
    }
    let mut most_ms = u64::MAX;
    for directive in list(header::CACHE_CONTROL)? {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" | "private" => return None,
            "max-age" | "s-maxage" => {
                let seconds: u64 = value.trim_matches('"').parse().ok()?;
                most_ms = most_ms.min(seconds.saturating_mul(1000));
            }
            _ => {}
        }
    }
    Some(most_ms)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const NOW_MS: u64 = 1_795_540_000_000;

    fn target(path: &str) -> Target {
        let request = Request::get(path).header("host", "shop.example").body(()).unwrap();
        Target::of(&request, false, 8192, |_| true).unwrap()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn money(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    #[test]
    fn a_price_is_known_for_its_time_and_its_resource() {
        let (prices, none) = (Prices::new(1000, Duration::from_secs(300)), HeaderMap::new());
        prices.learn(&target("/a?b"), money("0.05 USD"), true, &none, NOW_MS);
        assert_eq!(prices.get(&target("/a?b"), &none, NOW_MS + 299_999), Some(money("0.05 USD")));
        assert_eq!(prices.get(&target("/%61?b"), &none, NOW_MS), Some(money("0.05 USD")), "one resource");
        for (path, ms) in [("/a?b", 300_000), ("/a", 0), ("/a?B", 0), ("/a?b=", 0), ("/A?b", 0)] {
            assert_eq!(prices.get(&target(path), &none, NOW_MS + ms), None, "{path}");
        }
        for credentials in ["authorization", "cookie"] {
            assert_eq!(prices.get(&target("/a?b"), &headers(&[(credentials, "x")]), NOW_MS), None);
        }
        prices.forget(&target("/other"));
        assert!(prices.get(&target("/a?b"), &none, NOW_MS).is_some());
        prices.forget(&target("/a?b"));
        assert_eq!(prices.get(&target("/a?b"), &none, NOW_MS), None);
    }

    #[test]
    fn only_what_goes_for_everybody_is_learned() {
        let check = |answer: &[(&'static str, &str)], expect_ms: u64| {
            let (prices, none) = (Prices::new(10, Duration::from_secs(300)), HeaderMap::new());
            prices.learn(&target("/a"), money("0.05 USD"), true, &headers(answer), NOW_MS);
            let known = |ms: u64| prices.get(&target("/a"), &none, NOW_MS + ms).is_some();
            assert_eq!((expect_ms > 0 && known(expect_ms - 1), known(expect_ms)), (expect_ms > 0, false), "{answer:?}");
        };
        check(&[], 300_000);
        check(&[("vary", "Accept-Encoding")], 300_000);
        check(&[("cache-control", "public, max-age=60")], 60_000);
        check(&[("cache-control", "max-age=6000")], 300_000);
        check(&[("cache-control", "max-age=60, s-maxage=\"10\"")], 10_000);
        for vary in ["*", "User-Agent", "accept-encoding, Cookie"] {
            check(&[("vary", vary)], 0);
        }
        for control in ["no-store", "No-Cache", "private", "max-age=0", "max-age=soon", "private=\"x\""] {
            check(&[("cache-control", control)], 0);
        }
        let (prices, none) = (Prices::new(10, Duration::from_secs(300)), HeaderMap::new());
        prices.learn(&target("/a"), Money { units: Units::ZERO, ..money("1 USD") }, true, &none, NOW_MS);
        prices.learn(&target("/a"), money("1 USD"), false, &none, NOW_MS);
        assert_eq!(prices.get(&target("/a"), &none, NOW_MS), None);
    }

    #[test]
    fn memory_is_fixed_and_nothing_is_kept_where_it_is_off() {
        let none = HeaderMap::new();
        let prices = Prices::new(16, Duration::from_secs(300));
        let targets: Vec<Target> = (0..200).map(|i| target(&format!("/{i}"))).collect();
        targets.iter().for_each(|target| prices.learn(target, money("0.05 USD"), true, &none, NOW_MS));
        let known = targets.iter().filter(|target| prices.get(target, &none, NOW_MS).is_some()).count();
        assert!((1..=16).contains(&known), "{known}");
        for off in [Prices::new(0, Duration::from_secs(1)), Prices::new(10, Duration::ZERO)] {
            off.learn(&target("/a"), money("0.05 USD"), true, &none, NOW_MS);
            assert_eq!(off.get(&target("/a"), &none, NOW_MS), None);
            off.forget(&target("/a"));
        }
    }
}
