//! Random lives of token payments: clients that leave, an origin and a facilitator that fail at every step, a gateway that
//! is killed, retries. The facilitator keeps the chain's truth: an authorisation moves money once, whatever it answers. In
//! the end the books are held against that truth and against what clients got.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::chain::{Chain, Postings, key_of_transfer};
use crate::support::client::Connection;
use crate::support::facilitator::Facilitator;
use crate::support::gateway::tollgate;
use crate::support::random::is_long;
use crate::support::wallet::{Wallet, head, receipt, token_shop_toml};
use crate::support::*;

const PAYMENTS: usize = 8;
const LEDGER: [&str; 2] = ["--ledger", "tollgate.sqlite"];

/// One payment, and what its client got for it.
struct Life {
    head: Box<dyn Fn() -> String + Send + Sync>,
    key: String,
    nonce: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Successes with a receipt.
    served: u32,
    /// Answers of the origin without one.
    unpaid: u32,
    last: u16,
}

impl Life {
    /// Sends the payment; the client may leave at once.
    fn send(&self, gateway: SocketAddr, leaves: bool) -> Option<u16> {
        let socket = std::net::TcpStream::connect(gateway).ok()?;
        if leaves {
            let _ = (&socket).write_all((self.head)().as_bytes());
            return None;
        }
        drop(socket);
        let mut connection = std::panic::catch_unwind(|| Connection::open(gateway)).ok()?;
        connection.write((self.head)());
        let answer = connection.read(false)?;
        let mut seen = self.seen.lock().unwrap();
        seen.last = answer.status;
        if answer.status == 200 && !answer.truncated {
            match receipt(&answer) {
                Some(paid) => {
                    assert_eq!(paid["success"], true, "{answer:?}");
                    seen.served += 1;
                }
                None => seen.unpaid += 1,
            }
        }
        Some(answer.status)
    }
}

#[test]
fn no_payer_pays_twice_and_no_content_leaves_unpaid() {
    for round in 0..if is_long() { 200 } else { 6 } {
        live(round);
    }
}

fn live(round: u64) {
    let chain = Arc::new(Mutex::new(Chain::new(Random::new(100 + round))));
    let mut random = Random::new(1000 + round);
    let facilitator = Facilitator::start();
    Chain::rules(&chain, &facilitator);
    let origin_dice = Mutex::new(Random::new(2000 + round));
    let truth = chain.clone();
    let origin = Origin::scripted(move |_, socket| {
        let fails = !truth.lock().unwrap().calm && origin_dice.lock().unwrap().below(5) == 0;
        let status = if fails { "500 Oops" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\npage").is_ok()
    });
    let settle_first = if round % 3 == 2 { "settle = \"first\"\n" } else { "" };
    // One host for all lives of the gateway, whose port changes.
    let toml = token_shop_toml(&origin, &facilitator, settle_first)
        .replace("[server]", "[server]\npublic_url = \"http://shop.example\"");
    let mut gateway = Gateway::start(&toml);
    let lives: Vec<Arc<Life>> = (0..PAYMENTS).map(|i| Arc::new(life(gateway.addr, &format!("/paid/{i}")))).collect();

    for _ in 0..2 {
        std::thread::scope(|scope| {
            for life in &lives {
                let plan: Vec<bool> = (0..3).map(|_| random.below(3) == 0).collect();
                let addr = gateway.addr;
                scope.spawn(move || plan.into_iter().for_each(|leaves| _ = life.send(addr, leaves)));
            }
            // Anywhere among the settlements.
            let before = facilitator.count("/settle");
            if random.below(2) == 0 {
                facilitator.arrived("/settle", before.max(1));
            }
        });
        gateway = Gateway::start_in(gateway.kill(), &toml);
    }

    // All is well again: each payment is sent until it has an end.
    chain.lock().unwrap().calm = true;
    for life in &lives {
        let mut tries = 0;
        while !matches!(life.send(gateway.addr, false), Some(200 | 402 | 409)) {
            tries += 1;
            assert!(tries < 2000, "{} has no end: {}", life.key, life.seen.lock().unwrap().last);
            std::thread::yield_now();
        }
        // Whatever it was, it buys nothing more: counted below.
        life.send(gateway.addr, false);
    }
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &[&["ledger", "audit"][..], &LEDGER].concat());
    assert_eq!(code, 0, "{out}{err}");
    let books = Postings::of(dir.path());
    let chain = chain.lock().unwrap();
    for life in &lives {
        let of = |kind: i64| books.count(kind, &life.key);
        let (captures, intents, failures, owed, again) = (of(1), of(4), of(5), of(6), of(9));
        let moves = chain.moves(&life.nonce);
        let seen = life.seen.lock().unwrap();
        let all = format!(
            "round {round}, {}: moved {moves}, captures {captures}, intents {intents}, failures {failures}, owed {owed}, \
             again {again}, served {}, last {}",
            life.key, seen.served, seen.last
        );
        // (4) What moved is captured, what is captured moved, each after its intent.
        assert_eq!(i64::from(moves), captures, "{all}");
        assert!(captures <= intents, "{all}");
        // (5) One end for each payment.
        assert!(captures + failures <= 1 && again <= captures && owed <= captures, "{all}");
        // (6) Content only with a capture behind it, once more at most where it was owed.
        assert!(i64::from(seen.served) <= captures + again, "{all}");
        assert_eq!(seen.unpaid, 0, "{all}");
    }
    // (1) Nothing is left in between.
    assert_eq!(books.open, 0, "claims are left");
}

fn life(gateway: SocketAddr, path: &str) -> Life {
    let wallet = Wallet::new();
    let offer = exchange(gateway, format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"));
    let draft = wallet.draft_of(&offer);
    let payload: Value = wallet.sign(&draft);
    let key = key_of_transfer(&wallet, &draft);
    let nonce = payload["payload"]["authorization"]["nonce"].as_str().unwrap().to_owned();
    let text = head(gateway, "GET", path, &payload).replace(&format!("Host: {gateway}"), "Host: shop.example");
    Life { head: Box::new(move || text.clone()), key, nonce, seen: Mutex::default() }
}
