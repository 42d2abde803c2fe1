//! Random lives of paid calls, in JSON and in event streams: clients that leave at any event, servers that fail, break off
//! or ask for more, a facilitator that fails at every step, a gateway that is killed, retries. In the end the books are held
//! against what moved on the chain and what clients read.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::chain::{Chain, Postings, key_of_transfer};
use crate::support::client::Connection;
use crate::support::facilitator::Facilitator;
use crate::support::gateway::tollgate;
use crate::support::mcp::{asked, begin_events, call, head, messages, offer, paid, reply, result_of, shop_toml};
use crate::support::random::is_long;
use crate::support::wallet::Wallet;
use crate::support::*;

const CALLS: usize = 8;
const LEDGER: [&str; 2] = ["--ledger", "tollgate.sqlite"];
const RECEIPT: &str = "x402/payment-response";

/// One paid call, and what its client read.
struct Life {
    call: Value,
    key: String,
    nonce: String,
    seen: Mutex<Got>,
}

#[derive(Default)]
struct Got {
    /// Results with a receipt.
    served: u32,
    /// Results of a success without one.
    unpaid: u32,
}

/// How a call ended for its client.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Served,
    /// Refused for good.
    Spent,
    Again,
}

impl Life {
    /// Sends the call; a client that leaves does so at once, or when it has read something.
    fn send(&self, gateway: SocketAddr, id: usize, leaves: Option<bool>) -> Option<End> {
        let mut call = self.call.clone();
        call["id"] = json!(id);
        let request = head(gateway, "", &call.to_string()).replace(&format!("Host: {gateway}"), "Host: shop.example");
        let mut connection = std::panic::catch_unwind(|| Connection::open(gateway)).ok()?;
        connection.write(request);
        if let Some(at_once) = leaves {
            if !at_once {
                let _ = std::io::BufRead::fill_buf(&mut connection.reader);
            }
            return None;
        }
        let answer = connection.read(false).filter(|answer| answer.status == 200 && !answer.truncated)?;
        let messages = messages(&answer);
        let said = messages.iter().find(|said| said.get("result").is_some() || said.get("error").is_some())?;
        assert_eq!(said["id"], id, "{said}");
        let result = &said["result"];
        let reason = said["error"]["data"]["reason"].as_str().unwrap_or_default();
        let is_content =
            said.to_string().contains("secret") && result["isError"] != true && result["resultType"].is_null();
        let mut seen = self.seen.lock().unwrap();
        match &result["_meta"][RECEIPT]["success"] {
            Value::Bool(true) => {
                seen.served += 1;
                return Some(End::Served);
            }
            _ if is_content => seen.unpaid += 1,
            _ => {}
        }
        // An offer is made to a payment that moved nothing and never will.
        let is_offer = result["structuredContent"]["accepts"].is_array();
        // What three turns could not give is to be refunded.
        let is_over = ["payment_already_used", "payment_owed"].contains(&reason);
        Some(if is_over || is_offer { End::Spent } else { End::Again })
    }
}

#[test]
fn no_payer_pays_twice_and_no_result_leaves_unpaid() {
    for round in 0..if is_long() { 200 } else { 6 } {
        live(round);
    }
}

fn live(round: u64) {
    let chain = Arc::new(Mutex::new(Chain::new(Random::new(500 + round))));
    let mut random = Random::new(600 + round);
    let facilitator = Facilitator::start();
    Chain::rules(&chain, &facilitator);
    let dice = Mutex::new(Random::new(700 + round));
    let truth = chain.clone();
    let server = Origin::scripted(move |seen, socket| {
        let asked = asked(seen);
        let name = asked["params"]["name"].as_str().unwrap();
        let result = result_of(&asked["id"], name);
        let fate = if truth.lock().unwrap().calm { 9 } else { dice.lock().unwrap().below(10) };
        let said = match fate {
            0 => result.replace("\"n\"", "\"isError\":true,\"n\""),
            1 => result.replace("\"n\"", "\"resultType\":\"input_required\",\"n\""),
            2 => return write!(socket, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").is_ok(),
            _ => result,
        };
        if name.starts_with("json") {
            return reply(socket, "application/json", &said);
        }
        begin_events(socket);
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress"});
        let _ = write!(socket, "data: {progress}\n\n");
        if fate != 3 {
            let _ = write!(socket, "id: 7\ndata: {said}\n\ndata: {progress}\n\n");
        }
        false
    });
    // One host for all lives of the gateway, whose port changes.
    let toml = shop_toml(&server, &facilitator, "https://signer.example", "")
        .replace("[server]", "[server]\npublic_url = \"http://shop.example\"");
    let mut gateway = Gateway::start(&toml);
    let name = |i: usize| if i.is_multiple_of(2) { format!("json-{i}") } else { format!("stream-{i}") };
    let lives: Vec<Arc<Life>> = (0..CALLS).map(|i| Arc::new(life(gateway.addr, &name(i)))).collect();
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for life in &lives {
                let plan: Vec<Option<bool>> =
                    (0..3).map(|_| [None, None, Some(true), Some(false)][random.below(4)]).collect();
                let addr = gateway.addr;
                scope
                    .spawn(move || plan.into_iter().enumerate().for_each(|(i, leaves)| _ = life.send(addr, i, leaves)));
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
        while !matches!(life.send(gateway.addr, tries, None), Some(End::Served | End::Spent)) {
            tries += 1;
            assert!(tries < 2000, "{} has no end", life.key);
            std::thread::yield_now();
        }
        // Whatever it was, it buys nothing more: counted below.
        life.send(gateway.addr, tries, None);
    }
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &[&["ledger", "audit"][..], &LEDGER].concat());
    assert_eq!(code, 0, "{out}{err}");
    let books = Postings::of(dir.path());
    let chain = chain.lock().unwrap();
    for life in &lives {
        let of = |kind: i64| books.count(kind, &life.key);
        let (captures, intents, failures, owed, again) = (of(1), of(4), of(5), of(6), of(9));
        let moves = i64::from(chain.moves(&life.nonce));
        let seen = life.seen.lock().unwrap();
        let all = format!(
            "round {round}, {}: moved {moves}, captures {captures}, intents {intents}, failures {failures}, owed {owed}, \
             again {again}, served {}",
            life.call["params"]["name"], seen.served
        );
        assert_eq!((moves, seen.unpaid), (captures, 0), "{all}");
        assert!(captures <= intents && captures + failures <= 1 && again <= captures && owed <= captures, "{all}");
        assert!(i64::from(seen.served) <= captures + again, "{all}");
    }
    assert_eq!(books.open, 0, "claims are left");
}

fn life(gateway: SocketAddr, name: &str) -> Life {
    let wallet = Wallet::new();
    let call = call(name);
    let request = head(gateway, "", &call.to_string()).replace(&format!("Host: {gateway}"), "Host: shop.example");
    let draft = wallet.draft_from(&offer(&exchange(gateway, request)));
    let payment = wallet.sign(&draft);
    let nonce = payment["payload"]["authorization"]["nonce"].as_str().unwrap().to_owned();
    let key = key_of_transfer(&wallet, &draft);
    Life { call: paid(&call, &payment), key, nonce, seen: Mutex::default() }
}
