//! Every official client of x402 buys, through an official facilitator over a real chain; the tokens move, once.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use serde_json::{Value, json};

use crate::stage::{Client, EXTENSIONS, Stage, Tally, relay};
use crate::support::client::exchange;
use crate::support::wallet::{Draft, Wallet, receipt, send};
use crate::support::*;

/// 0.01 USD in atomic units of USDC.
const PRICE: u64 = 10_000;

/// The line of a client that paid for an answer of the origin.
fn assert_bought(client: &Client, line: &Value, stage: &Stage, body: &str) {
    assert_eq!((&line["status"], &line["body"]), (&json!(200), &json!(body)), "{}: {line}", client.name);
    assert_eq!(line["requests"], 2, "{}: {line}", client.name);
    let paid = &line["receipt"];
    let network = if client.version == 1 { "networkV1" } else { "network" };
    assert_eq!((&paid["success"], &paid["network"]), (&json!(true), &stage.facilitator.facts[network]), "{line}");
    assert_eq!(paid["transaction"].as_str().map(str::len), Some(66), "{}: {line}", client.name);
    let payer = paid["payer"].as_str().unwrap();
    assert!(payer.eq_ignore_ascii_case(&stage.payer.address.to_string()), "{}: {line}", client.name);
}

/// One purchase between the two.
fn assert_moved_once(client: &Client, before: Tally, after: Tally) {
    let expected = Tally {
        payee: before.payee + PRICE,
        payer: before.payer - PRICE,
        settled: before.settled + 1,
        asked: before.asked + 1,
    };
    assert_eq!(after, expected, "{}", client.name);
}

#[test]
fn every_official_client_pays_once_and_is_served_once() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = stage.gateway(&origin, &agent);
    let whole = relay(gateway.addr, "");
    // Like a server of version 1, for clients that would read the field of version 2 first.
    let old = relay(gateway.addr, "payment-required");
    let mut purchases = 0;
    for client in stage.clients() {
        let shop = if client.prefers_field { &old } else { &whole };
        let path = format!("/exact/{}?q=1", client.path);
        let before = stage.tally();
        let line = stage.run(client, &format!("http://{}{path}", shop.addr), None);
        assert_bought(client, &line, &stage, &format!("content of {path}"));
        purchases += 1;
        let after = stage.tally();
        assert_moved_once(client, before, after);
        assert_eq!(origin.calls(), purchases, "{}", client.name);

        // The same payment again: its receipt, and nothing moves.
        let request = shop.last();
        let field = if client.version == 1 { "X-PAYMENT" } else { "PAYMENT-SIGNATURE" };
        let payment = request.header(field).expect("no payment");
        let host = request.header("host").unwrap();
        let again = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{field}: {payment}\r\nConnection: close\r\n\r\n");
        let again = exchange(gateway.addr, again);
        assert_eq!((again.status, again.reason()), (409, "payment_already_used"), "{}", client.name);
        assert_eq!(receipt(&again).as_ref(), Some(&line["receipt"]), "{}", client.name);
        assert_eq!((stage.tally(), origin.calls()), (after, purchases), "{}", client.name);

        // What is free costs nothing.
        let line = stage.run(client, &format!("http://{}/free", shop.addr), None);
        let free = (&line["status"], &line["body"], &line["requests"], &line["receipt"]);
        assert_eq!(free, (&json!(200), &json!("content of /free"), &json!(1), &Value::Null), "{}: {line}", client.name);
        assert_eq!(stage.tally(), after, "{}", client.name);
        // Its request is no purchase, though the origin saw it.
        purchases += 1;
        assert_eq!(origin.calls(), purchases);
    }
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    let clients = stage.clients().len();
    let counts = (books.captures.len(), books.intents, books.failed, books.voids.len());
    assert_eq!(counts, (clients, clients, 0, 0), "{books:?}");
}

#[test]
fn a_body_arrives_once_with_its_payment() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = stage.gateway(&origin, &agent);
    let clients: Vec<_> = stage.clients().into_iter().filter(|client| !client.prefers_field).collect();
    for (i, client) in clients.iter().enumerate() {
        let (path, body) =
            (format!("/exact/{}", client.path), format!(r#"{{"text":"größer","by":"{}"}}"#, client.name));
        let before = stage.tally();
        let line = stage.run(client, &format!("http://{}{path}", gateway.addr), Some(&body));
        assert_bought(client, &line, &stage, &format!("content of {path}"));
        assert_moved_once(client, before, stage.tally());
        let seen = origin.last();
        assert_eq!((origin.calls(), seen.line.split(' ').next()), (i + 1, Some("POST")), "{}", client.name);
        assert_eq!(String::from_utf8_lossy(&seen.body), body, "{}", client.name);
        assert!(!seen.has("x-payment") && !seen.has("payment-signature"), "{}", client.name);
    }
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).captures.len(), clients.len());
}

/// Whatever else a route takes, `exact` is found by each client that has it, and `deferred` by each that signs.
#[test]
fn every_client_finds_what_it_can_pay_in_every_mix() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = stage.gateway(&origin, &agent);
    let mut captures = 0;
    for (mix, exact, deferred) in
        [("exact", true, false), ("exact-first", true, true), ("deferred-first", true, true), ("deferred", false, true)]
    {
        // Those that prefer the field say the same everywhere; once is enough.
        for client in stage.clients().into_iter().filter(|client| !client.prefers_field || mix == "exact-first") {
            let path = format!("/{mix}/{}", client.path);
            let (before, calls) = (stage.tally(), origin.calls());
            let line = stage.run(client, &format!("http://{}{path}", gateway.addr), None);
            if exact && !client.prefers_field {
                assert_bought(client, &line, &stage, &format!("content of {path}"));
                assert_moved_once(client, before, stage.tally());
                captures += 1;
            } else {
                // It says that it can't pay, or hands back the 402; it does not send anything that it could regret.
                assert!(line["error"].is_string() || line["status"] == 402, "{} {mix}: {line}", client.name);
                assert_eq!((stage.tally(), origin.calls()), (before, calls), "{} {mix}: {line}", client.name);
            }
        }
        let path = format!("/{mix}/agent");
        let ask = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nSignature-Agent: sig1=\"{}\"\r\nConnection: close\r\n\r\n",
            gateway.addr, agent.url
        );
        let offer = exchange(gateway.addr, ask).json();
        let entry = offer["accepts"].as_array().unwrap().iter().find(|entry| entry["scheme"] == "deferred").cloned();
        assert_eq!(entry.is_some(), deferred, "{mix}: {offer}");
        let Some(entry) = entry else { continue };
        let signed = agent.signed(&gateway.addr.to_string(), "GET", &path, entry["extras"]["id"].as_str().unwrap());
        let answer = exchange(gateway.addr, signed.head());
        assert_eq!((answer.status, answer.text()), (200, format!("content of {path}")), "{mix}: {answer:?}");
        captures += 1;
    }
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).captures.len(), captures);
}

/// Of at most 0.01 USD: nothing, some of it, all of it, and more than was signed, which is all of it.
#[test]
fn an_official_client_pays_what_the_origin_takes() {
    let Some(stage) = Stage::enter() else { return };
    let takes = |path: &str| match path {
        "/upto/nothing" => "Settlement-Overrides: {\"amount\":\"0\"}\r\n",
        "/upto/some" => "Settlement-Overrides: {\"amount\":\"40%\"}\r\n",
        "/upto/more" => "PAYMENT-SETTLEMENT: {\"amount\":\"10001\"}\r\n",
        _ => "",
    };
    let origin = Origin::scripted(move |seen, socket| {
        write!(socket, "HTTP/1.1 200 OK\r\n{}Content-Length: 4\r\n\r\npage", takes(seen.path())).is_ok()
    });
    let gateway = stage.gateway(&origin, &Agent::start());
    let client = stage.main_client();
    for (path, taken) in [("nothing", 0), ("some", 4_000), ("all", PRICE), ("more", PRICE)] {
        let before = stage.tally();
        let line = stage.run(client, &format!("http://{}/upto/{path}", gateway.addr), None);
        let after = stage.tally();
        let moved = u64::from(taken > 0);
        let expected = Tally {
            payee: before.payee + taken,
            payer: before.payer - taken,
            settled: before.settled + moved,
            asked: before.asked + moved,
        };
        assert_eq!(after, expected, "{path}: {line}");
        assert_eq!((&line["status"], &line["body"]), (&json!(200), &json!("page")), "{path}: {line}");
        let paid = &line["receipt"];
        assert_eq!((&paid["success"], &paid["amount"]), (&json!(true), &json!(taken.to_string())), "{path}: {line}");
        let length = if taken == 0 { 0 } else { 66 };
        assert_eq!(paid["transaction"].as_str().map(str::len), Some(length), "{path}: {line}");
    }
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.intents, books.failed), (4, 3, 0), "{books:?}");
}

#[test]
fn a_payment_that_an_official_client_named_gets_its_answer_again_and_no_other_takes_the_name() {
    let Some(stage) = Stage::enter() else { return };
    let origin = Origin::start();
    let gateway = stage.gateway(&origin, &Agent::start());
    let shop = relay(gateway.addr, "");
    let (client, id) = (stage.main_client(), "pay_7d5d747be160e280504c099d984bcfe0");
    let buy = || stage.run_with(client, &format!("http://{}/exact/named", shop.addr), None, &[("PAYMENT_ID", id)]);
    let before = stage.tally();
    let line = buy();
    assert_bought(client, &line, &stage, "content of /exact/named");
    let after = stage.tally();
    assert_moved_once(client, before, after);
    // Its very request once more.
    let request = shop.last();
    let (host, payment) = (request.header("host").unwrap(), request.header("payment-signature").unwrap());
    let again = format!(
        "GET /exact/named HTTP/1.1\r\nHost: {host}\r\nPAYMENT-SIGNATURE: {payment}\r\nConnection: close\r\n\r\n"
    );
    let again = exchange(gateway.addr, again);
    assert_eq!((again.status, again.text().as_str()), (200, "content of /exact/named"), "{again:?}");
    assert_eq!(receipt(&again).as_ref(), Some(&line["receipt"]));
    // It signs anew under the same name.
    let line = buy();
    assert_eq!((&line["status"], &line["receipt"]), (&json!(409), &Value::Null), "{line}");
    assert_eq!((stage.tally(), origin.calls()), (after, 1));
}

/// Official servers let both through to their origin and settle one; here one waits outside.
#[test]
fn the_same_payment_twice_at_once_is_settled_and_served_once() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = stage.gateway(&origin, &agent);
    let payload = stage.payer.sign(&stage.payer.draft(gateway.addr, "/exact/twice"));
    let before = stage.tally();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..8).map(|_| scope.spawn(|| send(gateway.addr, "GET", "/exact/twice", &payload))).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((served, origin.calls()), (1, 1), "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let told = (answer.status, answer.reason());
        assert!([(503, "payment_in_flight"), (409, "payment_already_used")].contains(&told), "{answer:?}");
    }
    let after = stage.tally();
    assert_eq!((after.payee - before.payee, after.settled - before.settled), (PRICE, 1));
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).captures.len(), 1);
}

/// An origin that hands payments of its own to the facilitator, past the gateway, before it answers.
fn meddling(stage: &Stage) -> (Origin, Sender<Value>) {
    let (tell, told) = std::sync::mpsc::channel::<Value>();
    let told = Mutex::new(told);
    let facilitator = stage.facilitator.addr("facilitator");
    let origin = Origin::scripted(move |_, socket| {
        settle(facilitator, &told.lock().unwrap().recv().unwrap());
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret").is_ok()
    });
    (origin, tell)
}

/// What a facilitator is asked.
fn order(wallet: &Wallet, draft: &Draft) -> Value {
    json!({"x402Version": 2, "paymentPayload": wallet.sign(draft), "paymentRequirements": draft.entry})
}

fn settle(facilitator: SocketAddr, order: &Value) {
    let body = order.to_string();
    let head = format!("POST /settle HTTP/1.1\r\nHost: {facilitator}\r\nContent-Length: {}\r\n", body.len());
    let settled = exchange(facilitator, format!("{head}Connection: close\r\n\r\n{body}")).json();
    assert_eq!(settled["success"], true, "{settled}");
}

#[test]
fn a_wallet_emptied_after_the_check_buys_nothing_and_is_told_so() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, tell) = meddling(&stage);
    let gateway = stage.gateway(&origin, &Agent::start());
    let poor = Wallet::new();
    let mut gift = stage.payer.draft(gateway.addr, "/exact/a");
    gift.authorization.to = poor.address;
    gift.entry["payTo"] = json!(poor.address.to_string());
    settle(stage.facilitator.addr("facilitator"), &order(&stage.payer, &gift));
    // Two payments of the same money.
    tell.send(order(&poor, &poor.draft(gateway.addr, "/exact/a"))).unwrap();
    let before = stage.tally();
    let answer = poor.buy(gateway.addr, "/exact/a");
    assert_eq!((answer.status, answer.reason()), (402, "settlement_failed"), "{answer:?}");
    assert!(!answer.text().contains("secret"));
    let paid = receipt(&answer).unwrap();
    let reason = "invalid_exact_evm_insufficient_balance";
    assert_eq!((&paid["success"], &paid["errorReason"]), (&json!(false), &json!(reason)), "{paid}");
    let after = stage.tally();
    // The other one.
    assert_eq!((after.payee - before.payee, after.settled - before.settled), (PRICE, 1));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.intents, books.failed), (0, 1, 1), "{books:?}");
}

/// The payee has the money, so the payer must not be told that nothing was charged, nor be asked to pay again.
#[test]
fn an_authorisation_that_somebody_else_spends_is_not_called_a_failure() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, tell) = meddling(&stage);
    let gateway = stage.gateway(&origin, &Agent::start());
    let draft = stage.payer.draft(gateway.addr, "/exact/a");
    tell.send(order(&stage.payer, &draft)).unwrap();
    let before = stage.tally();
    let answer = send(gateway.addr, "GET", "/exact/a", &stage.payer.sign(&draft));
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"), "{answer:?}");
    assert!(!answer.text().contains("secret") && answer.header("payment-required").is_none());
    let other = stage.payer.buy(gateway.addr, "/exact/a");
    assert_eq!((other.status, other.reason()), (503, "payment_unresolved"), "{other:?}");
    let after = stage.tally();
    assert_eq!((after.payee - before.payee, after.settled - before.settled), (PRICE, 1));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.intents, books.failed), (0, 1, 0), "{books:?}");
}

#[test]
fn the_official_package_verifies_what_the_gateway_signs() {
    let Some(stage) = Stage::enter() else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = r#"
[signing]
key_file = "key.json"
offers = true
transaction = true
[discovery]
serve = "always"
[[routes]]
path = "/signed/*"
price = "0.01 USD"
accept = ["exact", "deferred"]
bazaar = { query = '{"city": "Paris"}', output = '{"celsius": 21}' }
"#;
    // This origin answers at every path, as many sites do.
    let gateway = stage.gateway_with(&origin, &agent, more);
    let before = stage.tally();
    let url = format!("http://{}/signed/a?city=Paris", gateway.addr);
    let line = stage.run(&EXTENSIONS, &url, None);
    assert_bought(&EXTENSIONS, &line, &stage, "content of /signed/a?city=Paris");
    assert_moved_once(&EXTENSIONS, before, stage.tally());
    let checked = &line["checked"];
    let schemes: Vec<&str> =
        checked["offers"].as_array().unwrap().iter().map(|offer| offer["scheme"].as_str().unwrap()).collect();
    assert_eq!(schemes, ["exact", "deferred"], "{line}");
    assert_eq!((&checked["offers"][0]["resourceUrl"], &checked["match"]), (&json!(url), &json!(true)), "{line}");
    assert_eq!(checked["receipt"]["transaction"], line["receipt"]["transaction"], "{line}");
    assert_eq!(checked["bazaar"]["input"]["queryParams"], json!({"city": "Paris"}), "{line}");
}
