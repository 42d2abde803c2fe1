//! Random lives of token payments: clients that leave, an origin and a facilitator that fail at every step, a gateway that
//! is killed, retries. The facilitator keeps the chain's truth: an authorisation moves money once, whatever it answers. In
//! the end the books are held against that truth and against what clients got.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tollgate::payment::key::PaymentKey;
use tollgate::wire::evm::permit2::PERMIT2;
use tollgate::wire::x402::network::Network;

use crate::support::chain::{Chain, Postings, key_of_transfer, nonce_of};
use crate::support::client::Connection;
use crate::support::facilitator::Facilitator;
use crate::support::gateway::tollgate;
use crate::support::permit::upto_shop_toml;
use crate::support::random::is_long;
use crate::support::wallet::{Wallet, head, receipt};
use crate::support::*;

const PAYMENTS: usize = 8;
/// How often the gateway starts in a round.
const PROCESSES: usize = 3;
const LEDGER: [&str; 2] = ["--ledger", "tollgate.sqlite"];

/// One payment, and what its client got for it.
struct Life {
    head: Box<dyn Fn() -> String + Send + Sync>,
    key: String,
    nonce: String,
    is_named: bool,
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
    for round in 0..if is_long() { 200 } else { 10 } {
        live(round);
    }
}

fn live(round: u64) {
    let chain = Arc::new(Mutex::new(Chain::new(Random::new(100 + round))));
    let mut random = Random::new(1000 + round);
    let facilitator = Facilitator::start();
    Chain::rules(&chain, &facilitator);
    let amounts = AtomicUsize::new(0);
    let origin_dice = Mutex::new(Random::new(2000 + round));
    let truth = chain.clone();
    let origin = Origin::scripted(move |_, socket| {
        let dice = if truth.lock().unwrap().calm { 9 } else { origin_dice.lock().unwrap().below(8) };
        let (status, body) = match dice {
            0 => ("500 Oops", "page"),
            1 => ("200 OK", "pa"),
            _ => ("200 OK", "page"),
        };
        // Another amount each time: what is settled is what was intended first.
        let amount = 1 + amounts.fetch_add(1, Ordering::Relaxed) % 10_000;
        let takes = format!("Settlement-Overrides: {{\"amount\":\"{amount}\"}}\r\n");
        write!(socket, "HTTP/1.1 {status}\r\n{takes}Content-Length: 4\r\n\r\n{body}").is_ok() && body.len() == 4
    });
    let (scheme, settle) = [
        ("exact", "on_head"),
        ("exact", "after_body"),
        ("exact", "first"),
        ("upto", "on_head"),
        ("upto", "after_body"),
    ][round as usize % 5];
    // One host for all lives of the gateway, whose port changes.
    let toml = upto_shop_toml(&origin, &facilitator, &format!("settle = \"{settle}\"\n"))
        .replace("accept = [\"upto\"]", &format!("accept = [\"{scheme}\"]"))
        .replace("[server]", "[server]\npublic_url = \"http://shop.example\"");
    let mut gateway = Gateway::start(&toml);
    let lives: Vec<Arc<Life>> = (0..PAYMENTS).map(|i| Arc::new(life(gateway.addr, scheme, i))).collect();

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
        let amount = chain.moved(&life.nonce);
        let moves = i64::from(amount.is_some());
        let seen = life.seen.lock().unwrap();
        let all = format!(
            "round {round}, {}: moved {moves}, captures {captures}, intents {intents}, failures {failures}, owed {owed}, \
             again {again}, served {}, last {}",
            life.key, seen.served, seen.last
        );
        // (4) What moved is captured, what is captured moved, each after its intent.
        assert_eq!(moves, captures, "{all}");
        assert_eq!(amount.unwrap_or_default(), books.sum(1, &life.key).1, "{all}");
        assert!(captures <= intents, "{all}");
        // (5) One end for each payment.
        assert!(captures + failures <= 1 && again <= captures && owed <= captures, "{all}");
        // (6) Content only with a capture behind it, once more at most where it was owed.
        // A named one gets the same answer as often as it asks.
        let served = if life.is_named { i64::from(seen.served).min(1) } else { i64::from(seen.served) };
        assert!(served <= captures + again, "{all}");
        assert_eq!(seen.unpaid, 0, "{all}");
    }
    // (7) A payment asks the origin three times at most in the life of a process, and three times more for what is owed.
    for (number, life) in lives.iter().enumerate() {
        let path = format!("/paid/{number}");
        let asked = |attempt: &str| {
            let calls = origin.seen().into_iter().filter(|seen| seen.path() == path);
            calls.filter(|seen| seen.header("tollgate-attempt") == Some(attempt)).count()
        };
        assert!(asked("1") <= 3 * PROCESSES && asked("2") <= 3 * PROCESSES, "round {round}, {}", life.key);
    }
    // (11) What moved is delivered, owed or unproven: nothing else became of it.
    let (code, rows, err) =
        tollgate(dir.path(), &[&["ledger", "list", "--json", "--limit", "0"][..], &LEDGER].concat());
    assert_eq!(code, 0, "{err}");
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<&str> =
        rows.iter().filter(|row| row["kind"] == "capture").map(|row| row["state"].as_str().unwrap()).collect();
    assert!(states.iter().all(|state| matches!(*state, "delivered" | "owed" | "unproven")), "{states:?}");
    let captures: i64 = lives.iter().map(|life| books.count(1, &life.key)).sum();
    assert_eq!(states.len() as i64, captures, "round {round}");
    // (1) Nothing is left in between.
    assert_eq!(books.open, 0, "claims are left");
}

fn life(gateway: SocketAddr, scheme: &str, number: usize) -> Life {
    let path = &format!("/paid/{number}");
    let wallet = Wallet::new();
    let offer = exchange(gateway, format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"));
    let (mut payload, key) = if scheme == "upto" {
        let permit = wallet.permit_of(&offer);
        let network = Network::parse("eip155:84532").unwrap();
        let key = PaymentKey::from_permit2(&network, &PERMIT2, &wallet.address, permit.authorization.nonce);
        (wallet.sign_permit(&permit), key.to_string())
    } else {
        let draft = wallet.draft_of(&offer);
        (wallet.sign(&draft), key_of_transfer(&wallet, &draft))
    };
    let nonce = nonce_of(&payload);
    let is_named = number % 2 == 1;
    if is_named {
        let info = json!({"required": false, "id": format!("storm-payment-{number:04}")});
        payload["extensions"] = json!({"payment-identifier": {"info": info}});
    }
    let text = head(gateway, "GET", path, &payload).replace(&format!("Host: {gateway}"), "Host: shop.example");
    Life { head: Box::new(move || text.clone()), key, nonce, is_named, seen: Mutex::default() }
}
