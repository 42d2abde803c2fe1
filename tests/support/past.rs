//! A ledger of the last days, made as a gateway of those days would have made it.

use std::path::Path;
use std::sync::Arc;

use tollgate::clock::Clock;
use tollgate::ledger::ledger_store::{LedgerOptions, LedgerStore};
use tollgate::ledger::location::Location;
use tollgate::ledger::settling::Intent;
use tollgate::ledger::store::{ClaimRequest, Delivery, Outcome, Outcomes as _, Posting, Purchase, Store};
use tollgate::payment::key::PaymentKey;
use tollgate::wire::amount::{Asset, Units};

const DAY_MS: u64 = 86_400_000;
pub const USDC: &str = "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e";

/// A day of the ledger, so many before today: `2026-11-24`.
pub fn day(before_today: u64) -> String {
    let at_ms = Clock::system().now_ms() - before_today * DAY_MS;
    jiff::Timestamp::from_millisecond(at_ms as i64).unwrap().to_string()[..10].to_owned()
}

struct Past {
    runtime: tokio::runtime::Runtime,
    store: Arc<LedgerStore>,
    clock: Clock,
}

impl Past {
    fn request(&self, account: &str, asset: &str, units: i64) -> ClaimRequest {
        let name = format!("{account} {units} {}", self.clock.now_ms());
        ClaimRequest {
            within: None,
            key: PaymentKey::from_signature(&[name.as_bytes()]),
            paid_at_ms: self.clock.now_ms(),
            account: account.into(),
            amount: Units::new(units).unwrap(),
            asset: Asset::parse(asset).unwrap(),
            limit: Units::MAX,
            period: 0,
            purchase: None,
            payer: None,
        }
    }

    fn buy(&self, account: &str, route: &str, units: i64) -> i64 {
        self.clock.advance(1000);
        let request = self.request(account, "USD", units);
        let claim = self.runtime.block_on(self.store.claim(request)).unwrap();
        let receipt = self.runtime.block_on(self.store.capture(claim, posting(route, "deferred", units))).unwrap();
        self.store.outcome(Outcome { n: receipt.n, delivery: Delivery::Complete, void: false, ms: 1, bytes: 1 });
        receipt.n
    }

    fn transfer(&self, units: i64) {
        let purchase = Purchase { payer: "eip155:84532:0xaa".into(), what: "GET https://shop.example/t".into() };
        let request = ClaimRequest { purchase: Some(purchase), ..self.request("wallets", USDC, units) };
        let claim = self.runtime.block_on(self.store.claim(request)).unwrap();
        let posting = posting("tokens", "exact", units);
        let intent = Intent {
            posting: posting.clone(),
            facilitator: "https://facilitator.example".into(),
            payload: b"{}".to_vec(),
            hard_until_ms: self.clock.now_ms() + 1000,
        };
        let settling = self.runtime.block_on(self.store.intend(claim, intent)).unwrap();
        self.runtime.block_on(self.store.settled(settling, posting, false)).unwrap();
    }

    fn void(&self, n: i64) {
        self.store.outcome(Outcome { n, delivery: Delivery::OriginCut, void: true, ms: 1, bytes: 0 });
        // Another posting carries it.
        self.buy("other", "tail", 1);
    }
}

fn posting(route: &str, scheme: &'static str, units: i64) -> Posting {
    Posting {
        agent: "https://signer.example.com".into(),
        agent_key: None,
        route: route.into(),
        scheme,
        amount: Units::new(units).unwrap(),
        list_amount: Units::new(units).unwrap(),
        table_hash: [7; 32],
        status: 200,
        method: "GET".into(),
        target: format!("https://shop.example/{route}").into(),
        evidence: Vec::new(),
        key: None,
        grant: None,
    }
}

/// Three days of sales, `tollgate.sqlite` in `dir`, in UTC:
/// three days ago `acme` bought articles for 2.50 and 0.75 and «news <b>» for 0.10, wallets paid 1 USDC;
/// two days ago the 0.75 was void, and `acme` bought articles for 4; `other` paid for what carries the void.
pub fn ledger(dir: &Path) {
    let now_ms = Clock::system().now_ms();
    let clock = Clock::manual(now_ms - now_ms % DAY_MS - 3 * DAY_MS);
    let options = LedgerOptions::offline(Location::File(dir.join("tollgate.sqlite")), "UTC".to_owned(), clock.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let past = Past { runtime, store: LedgerStore::open(options).unwrap(), clock };
    past.buy("acme", "articles", 2_500_000);
    let cut = past.buy("acme", "articles", 750_000);
    past.buy("acme", "news <b>", 100_000);
    past.transfer(1_000_000);
    past.clock.advance(DAY_MS);
    past.void(cut);
    past.buy("acme", "articles", 4_000_000);
    past.store.close().unwrap();
}
