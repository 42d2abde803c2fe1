//! `tollgate ledger verify`

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::Connection;
use serde_json::{Value, json};
use tollgate::ledger::chain::evidence_digest;
use tollgate::ledger::evidence::{Evidence, WalletEvidence};

use crate::support::agent::field_offer;
use crate::support::client::get;
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::permit::upto_shop;
use crate::support::wallet::{Wallet, send, token_shop};
use crate::support::*;

fn verify(dir: &Path, id: &str) -> (i32, Value) {
    let (code, out, err) = tollgate(dir, &["ledger", "verify", id, "--json"]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}")))
}

/// The names of the checks that ended like this.
fn ended(verified: &Value, result: &str) -> Vec<String> {
    let checks = verified["checks"].as_array().unwrap().iter().filter(|check| check["result"] == result);
    checks.map(|check| check["name"].as_str().unwrap().to_owned()).collect()
}

/// Every entry, oldest first, each of which must hold.
fn all_hold(dir: &Path) -> Vec<Value> {
    let (code, out, err) = tollgate(dir, &["ledger", "list", "--json", "--limit", "0"]);
    assert_eq!(code, 0, "{err}");
    let mut rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.reverse();
    let one = |row: &Value| {
        let (code, verified) = verify(dir, row["n"].as_str().unwrap());
        assert_eq!((code, &verified["ok"], &verified["kind"]), (0, &true.into(), &row["kind"]), "{row}\n{verified:#}");
        verified
    };
    rows.iter().map(one).collect()
}

fn stopped(gateway: Gateway) -> tempfile::TempDir {
    let (status, dir) = gateway.stop();
    assert!(status.success());
    dir
}

const ON_CREDIT: [&str; 8] = ["chain", "target", "evidence", "key", "signature", "resource", "payment_key", "amount"];

#[test]
fn payments_on_credit_hold_in_every_scheme() {
    let origin = Origin::scripted(|seen, socket| {
        use std::io::Write as _;
        let length = if seen.path() == "/paid/cut" { 100 } else { 2 };
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nok").is_ok() && length == 2
    });
    let agent = Agent::start();
    let more = "[[routes]]\npath = \"/crawl\"\nprice = \"0.01 USD\"\naccept = [\"crawl\"]\n\
                [[routes]]\npath = \"/batch/*\"\nprice = \"0.01 USD\"\naccept = [\"batch-settlement\"]\n";
    let gateway = Gateway::start(&site_toml(&origin, &agent, more));
    assert_eq!(agent.buy(gateway.addr, "/paid/a%20b?x=1&y=%2F?").status, 200);
    let crawls = [("crawler-exact-price", "USD 0.01"), ("crawler-max-price", "usd 5")];
    for (field, bid) in crawls {
        assert_eq!(exchange(gateway.addr, agent.signed_in(field, gateway.addr, "/crawl", bid).head()).status, 200);
    }
    for with_id in [true, false] {
        let mut entry = field_offer(&get(gateway.addr, "/batch/x"))["accepts"][0].clone();
        if !with_id {
            entry["extra"] = json!({"version": "1.0.0"});
        }
        let payload = json!({"x402Version": 2, "accepted": entry,
            "payload": {"amount": entry["amount"], "asset": entry["asset"]}});
        let payment = STANDARD.encode(payload.to_string());
        let request = agent.signed_in("PAYMENT-SIGNATURE", gateway.addr, "/batch/x", &payment);
        assert_eq!(exchange(gateway.addr, request.head()).status, 200);
    }
    assert!(agent.buy(gateway.addr, "/paid/cut").truncated);
    let dir = stopped(gateway);
    let verified = all_hold(dir.path());
    let kinds: Vec<&str> = verified.iter().map(|v| v["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["capture", "capture", "capture", "capture", "capture", "capture", "void"]);
    for (i, has_id) in [true, false, false, true, false, true].into_iter().enumerate() {
        let ok = ended(&verified[i], "ok");
        assert!(ON_CREDIT.iter().all(|name| ok.iter().any(|ok| ok == name)), "{:#}", verified[i]);
        assert_eq!(ok.contains(&"offer_id".to_owned()), has_id, "{:#}", verified[i]);
        let skipped = if has_id { "seal" } else { "offer_id" };
        assert_eq!(ended(&verified[i], "not_applicable"), [skipped]);
    }
    assert_eq!(ended(&verified[6], "ok"), ["chain", "reference"]);
    // As text, by other names, and one that is not there.
    let n = verified[0]["n"].as_str().unwrap();
    let (code, out, _) = tollgate(dir.path(), &["ledger", "verify", n]);
    assert_eq!(code, 0);
    assert!(out.contains("ok   signature    Ed25519") && out.ends_with("nothing failed\n"), "{out}");
    assert_eq!(tollgate(dir.path(), &["ledger", "verify", "7"]).0, 5);
    assert_eq!(tollgate(dir.path(), &["ledger", "verify", "what"]).0, 2);
    // What retention drops cannot be told, and nothing has failed.
    let drop = "UPDATE entries SET target = NULL, target_salt = NULL, evidence = NULL";
    Connection::open(dir.path().join("tollgate.sqlite")).unwrap().execute(drop, ()).unwrap();
    let (code, dropped) = verify(dir.path(), n);
    assert_eq!((code, &dropped["ok"], &dropped["proven"]), (6, &true.into(), &false.into()));
    assert_eq!(ended(&dropped, "ok"), ["chain"]);
    assert_eq!(ended(&dropped, "not_applicable"), ["target", "evidence"]);
    assert_eq!(ended(&dropped, "not_proven"), ["signature"]);
}

/// «Nothing failed» would be read as a proof.
#[test]
fn without_the_agents_key_an_entry_is_not_proven() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    assert_eq!(agent.buy(gateway.addr, "/paid/1").status, 200);
    let dir = stopped(gateway);
    let (n, _) = evidence_of(dir.path());
    let (code, verified) = verify(dir.path(), &n);
    assert_eq!((code, &verified["proven"]), (0, &true.into()));
    let books = Connection::open(dir.path().join("tollgate.sqlite")).unwrap();
    let other = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let missing = "the agent's key is not in this ledger";
    let damaged = "the agent's key in this ledger is damaged";
    for (change, said) in [
        ("UPDATE keys SET jwk = '{}'".to_owned(), damaged),
        ("UPDATE keys SET jwk = substr(jwk, 1, 20)".to_owned(), damaged),
        (format!("UPDATE keys SET jwk = '{other}'"), damaged),
        ("UPDATE keys SET agent = 'https://other.example'".to_owned(), missing),
        ("DELETE FROM keys".to_owned(), missing),
    ] {
        books.execute(&change, ()).unwrap();
        let (code, verified) = verify(dir.path(), &n);
        assert_eq!((code, &verified["ok"], &verified["proven"]), (6, &true.into(), &false.into()), "{change}");
        assert_eq!(ended(&verified, "not_proven"), ["key", "signature"], "{change}");
        let (code, out, _) = tollgate(dir.path(), &["ledger", "verify", &n]);
        assert_eq!(code, 6, "{out}");
        assert!(out.ends_with(&format!("not proven: {said}\n")) && !out.contains("nothing failed"), "{change}: {out}");
    }
    // What is wrong stays wrong.
    books.execute("UPDATE entries SET amount = amount + 1", ()).unwrap();
    fails(dir.path(), &n, &["chain", "amount"]);
}

#[test]
fn payments_by_token_hold_in_each_version_and_scheme() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    assert_eq!(wallet.buy(gateway.addr, "/paid/a?b").status, 200);
    let v1 = wallet.sign(&wallet.draft_v1(gateway.addr, "/paid/v1"));
    assert_eq!(send(gateway.addr, "GET", "/paid/v1", &v1).status, 200);
    facilitator.next("/settle", Behaviour::Refused("insufficient_funds"));
    assert_eq!(wallet.buy(gateway.addr, "/paid/c").status, 402);
    let verified = all_hold(stopped(gateway).path());
    let kinds: Vec<&str> = verified.iter().map(|v| v["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["intent", "capture", "intent", "capture", "intent", "failed"]);
    let all = ["chain", "target", "evidence", "resource", "offer_id", "transfer", "payer", "payment_key", "amount"];
    assert_eq!(ended(&verified[1], "ok"), all);
    assert_eq!(ended(&verified[3], "not_applicable"), ["offer_id"], "version 1 has no id");

    let origin = Origin::scripted(|_, socket| {
        use std::io::Write as _;
        let head = "HTTP/1.1 200 OK\r\nSettlement-Overrides: {\"amount\":\"4000\"}\r\nContent-Length: 2\r\n\r\nok";
        write!(socket, "{head}").is_ok()
    });
    let facilitator = Facilitator::start();
    let gateway = upto_shop(&origin, &facilitator, "");
    assert_eq!(wallet.buy_upto(gateway.addr, "/paid/a").status, 200);
    let verified = all_hold(stopped(gateway).path());
    assert_eq!(ended(&verified[1], "ok"), all);
    assert!(verified[1].to_string().contains("4000 units booked, 10000 signed for"), "{:#}", verified[1]);
}

#[test]
fn calls_of_an_mcp_server_hold() {
    let (server, facilitator, wallet) = (mcp::server(), Facilitator::start(), Wallet::new());
    let gateway = mcp::shop(&server, &facilitator);
    let call = mcp::call("größe");
    let offer = mcp::offer(&mcp::post(gateway.addr, "", &call.to_string()));
    let payment = wallet.sign(&wallet.draft_from(&offer));
    let bought = mcp::post(gateway.addr, "", &mcp::paid(&call, &payment).to_string());
    assert!(bought.text().contains("secret"), "{}", bought.text());
    let verified = all_hold(stopped(gateway).path());
    assert!(ended(&verified[1], "ok").contains(&"offer_id".to_owned()), "{:#}", verified[1]);
}

/// Puts other evidence into the capture, with its digest, so that only the chain and the evidence itself can tell.
fn put(dir: &Path, evidence: &[u8]) {
    let books = Connection::open(dir.join("tollgate.sqlite")).unwrap();
    let digest = evidence_digest(evidence);
    let put = "UPDATE entries SET evidence = ?1, evidence_digest = ?2 WHERE kind = 1";
    books.execute(put, (evidence, &digest[..])).unwrap();
}

fn evidence_of(dir: &Path) -> (String, Vec<u8>) {
    let books = Connection::open(dir.join("tollgate.sqlite")).unwrap();
    let find = "SELECT n, evidence FROM entries WHERE kind = 1";
    books.query_row(find, (), |row| Ok((row.get::<_, i64>(0)?.to_string(), row.get(1)?))).unwrap()
}

#[track_caller]
fn fails(dir: &Path, n: &str, expected: &[&str]) {
    let (code, verified) = verify(dir, n);
    assert_eq!((code, &verified["ok"]), (1, &false.into()));
    assert_eq!(ended(&verified, "failed"), expected, "{verified:#}");
}

#[test]
fn what_was_changed_about_a_commitment_fails_by_its_name() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    assert_eq!(agent.buy(gateway.addr, "/paid/1").status, 200);
    let dir = stopped(gateway);
    let (n, whole) = evidence_of(dir.path());
    let change = |change: &dyn Fn(&mut Evidence), expected: &[&str]| {
        let mut evidence = Evidence::decode(&whole).unwrap();
        change(&mut evidence);
        put(dir.path(), &evidence.encode());
        fails(dir.path(), &n, &[&["chain"], expected].concat());
    };
    change(&|e| e.signature[3] ^= 1, &["signature"]);
    change(&|e| e.signature_base.push(b' '), &["signature"]);
    change(&|e| e.thumbprint = "other".into(), &["key"]);
    change(&|e| e.target = e.target.replace("/1", "/2"), &["resource", "offer_id"]);
    change(&|e| e.method = "POST".into(), &["resource", "offer_id"]);
    change(&|e| e.template_digest = Some([1; 32]), &["offer_id"]);
    change(&|e| e.sealed_id.as_mut().unwrap()[16] ^= 1, &["offer_id"]);
    change(&|e| e.sealed_id.as_mut().unwrap()[6] ^= 1, &["offer_id", "payment_key"]);
    change(&|e| e.sealed_id.as_mut().unwrap()[22] = 0, &["offer_id", "amount"]);
    change(&|e| e.sealed_id = None, &["payment_key", "amount"]);
    put(dir.path(), &[9]);
    fails(dir.path(), &n, &["chain", "evidence"]);
    put(dir.path(), &whole);
    assert_eq!(verify(dir.path(), &n).0, 0);
    // Columns, the link before, and digests that were left as they were.
    let books = Connection::open(dir.path().join("tollgate.sqlite")).unwrap();
    let sql = |sql: &str, expected: &[&str]| {
        books.execute_batch(&format!("SAVEPOINT s; {sql}; RELEASE s")).unwrap();
        fails(dir.path(), &n, expected);
    };
    sql("UPDATE entries SET amount = amount + 1", &["chain", "amount"]);
    sql("UPDATE entries SET amount = amount - 1, target = target || 'x'", &["target", "resource"]);
    sql(
        "UPDATE entries SET target = substr(target, 1, length(target) - 1), evidence = x'09'",
        &["evidence", "evidence"],
    );
}

#[test]
fn what_was_changed_about_a_transfer_fails_by_its_name() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    assert_eq!(wallet.buy(gateway.addr, "/paid/a").status, 200);
    let dir = stopped(gateway);
    let (n, whole) = evidence_of(dir.path());
    let change = |from: &str, to: &str, expected: &[&str]| {
        let mut evidence = WalletEvidence::decode(&whole).unwrap();
        assert!(evidence.request.contains(from), "{}", evidence.request);
        evidence.request = evidence.request.replace(from, to);
        put(dir.path(), &evidence.encode());
        fails(dir.path(), &n, &[&["chain"], expected].concat());
    };
    change("\"10000\"", "\"20000\"", &["transfer"]);
    change("\"x402Version\":2", "\"x402Version\":3", &["transfer"]);
    change("\"nonce\":\"0x", "\"nonce\":\"0xf", &["transfer"]);
    put(dir.path(), &whole);
    let books = Connection::open(dir.path().join("tollgate.sqlite")).unwrap();
    let set = |sql: &str| books.execute(&format!("UPDATE entries SET {sql} WHERE kind = 1"), ()).unwrap();
    set("amount = 9999");
    fails(dir.path(), &n, &["chain", "amount"]);
    set("amount = 10000, agent = 'eip155:84532:0x01'");
    fails(dir.path(), &n, &["chain", "payer"]);
}
