//! Payments of which the facilitator says nothing: a real node of the chain says what became of them.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stage::Stage;
use crate::support::client::exchange;
use crate::support::gateway::tollgate;
use crate::support::wallet::{receipt, send};
use crate::support::*;

/// What a node of the stage's chain says.
fn rpc(stage: &Stage, method: &str, params: &Value) -> Value {
    let addr = stage.facilitator.addr("rpc");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    exchange(addr, head + &body).json()["result"].clone()
}

/// The stage's facilitator, but what it says of settlements is lost on the way; with `deaf` it is not even asked.
fn mute(stage: &Stage, deaf: bool) -> Origin {
    let to = stage.facilitator.addr("facilitator");
    Origin::scripted(move |seen, socket| {
        let settles = seen.path().ends_with("/settle");
        if settles && deaf {
            return false;
        }
        let head = format!(
            "{}\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            seen.line,
            seen.body.len()
        );
        let answer = exchange(to, [head.as_bytes(), &seen.body].concat());
        let head = format!(
            "HTTP/1.1 {} Relayed\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.status,
            answer.body.len()
        );
        !settles && socket.write_all(&[head.as_bytes(), &answer.body].concat()).is_ok()
    })
}

fn shop_toml(stage: &Stage, origin: &Origin, facilitator: &Origin) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
cores = 1
[origin]
url = "http://{origin}"
[facilitators.mute]
url = "http://{facilitator}"
[[exact.assets]]
network = "{network}"
pay_to = "{pay_to}"
rpc_url = "{rpc}"
[[routes]]
path = "/paid/*"
price = "0.01 USD"
accept = ["exact"]
"#,
        origin = origin.addr,
        facilitator = facilitator.addr,
        network = stage.facilitator.text("network"),
        pay_to = stage.facilitator.text("payTo"),
        rpc = stage.facilitator.text("rpc"),
    )
}

/// What the books list, oldest first.
fn kinds(gateway: &Gateway) -> Vec<String> {
    let list = ["ledger", "list", "--json", "--ledger", "tollgate.sqlite"];
    let (code, out, err) = tollgate(gateway.dir.path(), &list);
    assert_eq!(code, 0, "{err}");
    let kind = |line: &str| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned();
    let mut kinds: Vec<String> = out.lines().map(kind).collect();
    kinds.reverse();
    kinds
}

/// The gateway looks after a start, then less and less often: waits until the books have so many entries.
fn wait_for(gateway: &Gateway, entries: usize) -> Vec<String> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let kinds = kinds(gateway);
        if kinds.len() >= entries || Instant::now() > end {
            return kinds;
        }
    }
}

#[test]
fn a_node_of_the_chain_finds_what_the_facilitator_did_not_tell() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, facilitator) = (Origin::start(), mute(&stage, false));
    let toml = shop_toml(&stage, &origin, &facilitator);
    let gateway = Gateway::start(&toml);
    let before = stage.tally();
    let payload = stage.payer.sign(&stage.payer.draft(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"), "{answer:?}\n{}", gateway.log());
    let moved = stage.tally();
    assert_eq!((moved.payee, moved.settled), (before.payee + 10_000, before.settled + 1));
    // Not final yet: nothing is concluded, and nothing offered to this payer for this page.
    assert_eq!(kinds(&gateway), ["intent"]);
    let other = stage.payer.sign(&stage.payer.draft(gateway.addr, "/paid/a"));
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &other).reason(), "payment_unresolved");
    let dir = gateway.kill();
    rpc(&stage, "anvil_mine", &json!(["0x80"]));
    let gateway = Gateway::start_in(dir, &toml);
    assert_eq!(wait_for(&gateway, 3), ["intent", "capture", "owed"], "{}", gateway.log());
    // The facilitator has not been asked again, and the payer gets what it paid for: once.
    assert_eq!(stage.tally(), moved);
    let host = payload["resource"]["url"].as_str().unwrap().split('/').nth(2).unwrap().to_owned();
    let head = crate::support::wallet::head(gateway.addr, "GET", "/paid/a", &payload);
    let head = head.replace(&format!("Host: {}", gateway.addr), &format!("Host: {host}"));
    let served = exchange(gateway.addr, &head);
    assert_eq!((served.status, &*served.body), (200, &b"content of /paid/a"[..]), "{served:?}");
    let told = receipt(&served).unwrap();
    let transaction = told["transaction"].as_str().unwrap();
    let seen = rpc(&stage, "eth_getTransactionReceipt", &json!([transaction]));
    assert_eq!(seen["status"], "0x1", "{transaction}: {seen}");
    assert_eq!(exchange(gateway.addr, &head).status, 409);
    assert_eq!((stage.tally(), kinds(&gateway).len()), (moved, 4));
}

#[test]
fn a_node_of_the_chain_ends_what_never_reached_it() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, facilitator) = (Origin::start(), mute(&stage, true));
    let toml = shop_toml(&stage, &origin, &facilitator);
    let gateway = Gateway::start(&toml);
    let before = stage.tally();
    let payload = stage.payer.sign(&stage.payer.draft(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"), "{answer:?}\n{}", gateway.log());
    let dir = gateway.kill();
    // The chain's time runs on until the authorisation is over; it is turned back afterwards for the other tests.
    let snapshot = rpc(&stage, "evm_snapshot", &json!([]));
    rpc(&stage, "anvil_mine", &json!(["0x80", "0x10"]));
    let gateway = Gateway::start_in(dir, &toml);
    let found = wait_for(&gateway, 2);
    rpc(&stage, "evm_revert", &json!([snapshot]));
    assert_eq!(found, ["intent", "failed"], "{}", gateway.log());
    assert_eq!(stage.tally().payee, before.payee);
}
