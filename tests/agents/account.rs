//! `/.well-known/tollgate/account`: an agent's own view of the books, and its objections.

use std::thread;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::agent::Signed;
use crate::support::client::get;
use crate::support::gateway::tollgate;
use crate::support::*;

pub const PATH: &str = "/.well-known/tollgate/account";

/// A signed look at `target`.
pub fn look(agent: &Agent, gateway: &Gateway, target: &str) -> Signed {
    agent.signed(&gateway.addr.to_string(), "GET", target, "").with(|r| {
        r.carrier = "X-Note";
        let query = target.contains('?').then_some("@query");
        let covers = ["@authority", "@method", "@path"].into_iter().chain(query).chain(["signature-agent;sig1"]);
        r.covers = covers.map(String::from).collect();
    })
}

pub fn seen(agent: &Agent, gateway: &Gateway, target: &str) -> Value {
    let answer = exchange(gateway.addr, look(agent, gateway, target).head());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// A signed objection with this body.
fn contest(agent: &Agent, gateway: &Gateway, body: &str) -> Signed {
    look(agent, gateway, PATH).with(|r| {
        r.method = "POST".into();
        r.covers.push("content-digest".into());
        r.signed.push(("content-digest".into(), format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))));
    })
}

fn post(gateway: &Gateway, signed: &Signed, body: &str) -> Answer {
    let head = signed.head_with(&format!("Content-Length: {}\r\nConnection: close\r\n", body.len()));
    exchange(gateway.addr, head + body)
}

fn dispute(agent: &Agent, gateway: &Gateway, n: &str, reason: &str) -> Answer {
    let body = json!({"entry": n, "reason": reason}).to_string();
    post(gateway, &contest(agent, gateway, &body), &body)
}

/// The agent buys; the number of the charge.
fn bought(agent: &Agent, gateway: &Gateway, path: &str) -> String {
    assert_eq!(agent.buy(gateway.addr, path).status, 200);
    seen(agent, gateway, PATH)["entries"][0]["n"].as_str().unwrap().to_owned()
}

fn audited(gateway: Gateway) -> tempfile::TempDir {
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
    dir
}

fn disputes(dir: &std::path::Path) -> usize {
    let (code, out, err) = tollgate(dir, &["ledger", "list", "--json", "--limit", "0", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    out.lines().filter(|line| serde_json::from_str::<Value>(line).unwrap()["kind"] == "dispute").count()
}

fn account(name: &str, agents: &[&Agent], more: &str) -> String {
    let agents: Vec<&str> = agents.iter().map(|agent| &*agent.url).collect();
    format!("[[accounts]]\nname = \"{name}\"\nagents = {agents:?}\ncredit = \"9 USD\"\n{more}\n")
}

#[test]
fn an_agent_sees_its_account_whatever_the_routes_say() {
    let (origin, agent) = (Origin::start(), Agent::start());
    // The page is no route's to sell.
    let gateway = Gateway::start(&site_toml(&origin, &agent, "[[routes]]\npath = \"/*\"\nprice = \"1 USD\"\n"));
    let none = seen(&agent, &gateway, PATH);
    assert_eq!((&none["entries"], &none["next"], &none["statements"]), (&json!([]), &json!(null), &json!([])));
    let n = bought(&agent, &gateway, "/paid/a?b=1");
    let answer = exchange(gateway.addr, look(&agent, &gateway, PATH).head());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let account = answer.json();
    let limit = &account["limits"][0];
    assert_eq!(
        (&account["account"], &account["agent"], &account["blocked"]),
        (&json!("acme"), &json!(agent.url), &json!(false))
    );
    let words = ["asset", "period", "limit", "used", "left"].map(|name| limit[name].as_str().unwrap());
    assert_eq!(words, ["USD", "month", "1000.00 USD", "0.01 USD", "999.99 USD"]);
    assert!(limit["starts"].as_str().unwrap() < limit["ends"].as_str().unwrap(), "{limit}");
    let entry = &account["entries"][0];
    let words = ["kind", "amount", "asset", "route", "method", "scheme", "n"].map(|name| entry[name].as_str().unwrap());
    assert_eq!(words, ["capture", "0.01 USD", "USD", "/paid/*", "GET", "deferred", &n]);
    assert_eq!(
        (&entry["status"], &entry["target"]),
        (&json!(200), &json!(format!("http://{}/paid/a?b=1", gateway.addr)))
    );
    // The end of its answer is told soon after.
    let told = || seen(&agent, &gateway, PATH)["entries"][0]["delivery"] == "complete";
    while !told() {
        thread::yield_now();
    }
    let head = exchange(gateway.addr, look(&agent, &gateway, PATH).with(|r| r.method = "HEAD".into()).head());
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.header("content-length").unwrap().parse::<usize>().unwrap() > 100, "{head:?}");
    let other = exchange(gateway.addr, look(&agent, &gateway, PATH).with(|r| r.method = "DELETE".into()).head());
    assert_eq!((other.status, other.header("allow")), (405, Some("GET, HEAD, POST")));
    assert!(origin.seen().iter().all(|request| !request.path().starts_with("/.well-known")));
    audited(gateway);
}

/// Allowance and balance beside each other, each with what is left of it.
#[test]
fn an_agent_sees_what_is_left_of_an_allowance_and_a_balance() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "").replace("credit = \"1000 USD\"", "prepaid = \"USD\"\nallowance = 1");
    let gateway = Gateway::start(&toml);
    let topup = ["ledger", "topup", "acme", "5 USD", "--reference", "invoice 1", "-c", "tollgate.toml"];
    assert_eq!(tollgate(gateway.dir.path(), &topup).0, 0);
    for path in ["/paid/a", "/paid/b"] {
        bought(&agent, &gateway, path);
    }
    let limits = seen(&agent, &gateway, PATH)["limits"].clone();
    assert_eq!((&limits[0]["asset"], &limits[0]["left"]), (&json!("requests"), &json!("0 requests")));
    assert_eq!(limits[1], json!({"asset": "prepaid:USD", "left": "4.99 USD"}));
    audited(gateway);
}

#[test]
fn statements_are_the_accounts_and_entries_those_of_the_agent_that_asks() {
    let (origin, agent, other, stranger) = (Origin::start(), Agent::start(), Agent::start(), Agent::start());
    let toml = site_toml(&origin, &agent, &account("far", &[&stranger], "")).replacen(
        &format!("agents = [\"{}\"]", agent.url),
        &format!("agents = [\"{}\", \"{}\"]", agent.url, other.url),
        1,
    );
    let gateway = Gateway::start(&toml);
    bought(&agent, &gateway, "/paid/mine");
    bought(&other, &gateway, "/paid/other");
    bought(&stranger, &gateway, "/paid/far");
    let targets = |agent: &Agent| {
        let account = seen(agent, &gateway, PATH);
        let target = |entry: &Value| entry["target"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let used = account["limits"][0]["used"].as_str().unwrap().to_owned();
        (used, account["entries"].as_array().unwrap().iter().map(target).collect::<Vec<_>>())
    };
    assert_eq!(targets(&agent), ("0.02 USD".to_owned(), vec!["mine".to_owned()]));
    assert_eq!(targets(&other), ("0.02 USD".to_owned(), vec!["other".to_owned()]));
    assert_eq!(targets(&stranger), ("0.01 USD".to_owned(), vec!["far".to_owned()]));
    audited(gateway);
}

#[test]
fn pages_follow_each_other_and_a_cursor_is_no_way_to_others() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, &account("other", &[&other], "")));
    for page in 0..7 {
        bought(if page % 3 == 0 { &other } else { &agent }, &gateway, &format!("/paid/{page}"));
    }
    let (mut target, mut found, mut cursors) = (format!("{PATH}?limit=2"), Vec::new(), Vec::new());
    loop {
        let page = seen(&agent, &gateway, &target);
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 2);
        found.extend(
            entries.iter().map(|entry| entry["target"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        cursors.push(next.to_owned());
        target = format!("{next}&limit=2");
    }
    assert_eq!(found, ["5", "4", "2", "1"]);
    // Another one's cursor leads to one's own entries.
    let mine = seen(&other, &gateway, &cursors[0]);
    assert_eq!(mine["entries"].as_array().unwrap().len(), 2, "{mine}");
    for wrong in [
        "before=",
        "before=x",
        "before=1.0",
        "before=-1.5",
        "before=1.5-1.4",
        "before=99999.5",
        "limit=0",
        "limit=1e3",
        "account=other",
        "before=1.99999999999999999999999",
    ] {
        let answer = exchange(gateway.addr, look(&agent, &gateway, &format!("{PATH}?{wrong}")).head());
        assert_eq!((answer.status, answer.reason()), (400, "bad_request"), "{wrong}");
    }
    // A writer that is none has no entries; one that has fewer is read from its end.
    assert_eq!(seen(&agent, &gateway, &format!("{PATH}?before=7.500"))["entries"], json!([]));
    let beyond = seen(&agent, &gateway, &format!("{PATH}?before=1.281474976710655"));
    assert_eq!(beyond["entries"].as_array().unwrap().len(), 4);
    audited(gateway);
}

#[test]
fn only_a_signature_for_this_very_request_shows_anything() {
    let (origin, agent, other, stranger) = (Origin::start(), Agent::start(), Agent::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, &account("off", &[&other], "blocked = true")));
    bought(&agent, &gateway, "/paid/a");
    let unsigned = get(gateway.addr, PATH);
    assert_eq!((unsigned.status, unsigned.reason()), (400, "signature_required"));
    assert_eq!(
        unsigned.header("accept-signature"),
        Some(
            r#"sig1=("@authority" "@method" "@path" "@query" "signature-agent";key="sig1");created;expires;tag="web-bot-auth""#
        )
    );
    let check = |expect: (u16, &str), change: &dyn Fn(&mut Signed)| {
        let answer = exchange(gateway.addr, look(&agent, &gateway, PATH).with(change).head());
        assert_eq!((answer.status, answer.reason()), expect, "{}", answer.text());
        assert!(!answer.text().contains("acme"), "{}", answer.text());
        answer
    };
    let invalid = (400, "invalid_signature");
    let covers = |names: &'static [&'static str]| {
        move |r: &mut Signed| r.covers = names.iter().map(|n| (*n).to_owned()).collect()
    };
    check(invalid, &covers(&["@authority", "signature-agent;sig1"]));
    check(invalid, &covers(&["@authority", "@path", "signature-agent;sig1"]));
    check(invalid, &covers(&["@authority", "@method", "signature-agent;sig1"]));
    check(invalid, &covers(&["@method", "@path", "signature-agent;sig1"]));
    check(invalid, &|r| r.tag = "other".into());
    check(invalid, &|r| r.key = other.key.clone());
    check((400, "signature_expired"), &|r| (r.created, r.expires) = (r.created - 600, r.created - 400));
    check((400, "signature_expired"), &|r| r.expires = r.created + 301);
    check((403, "key_unknown"), &|r| r.keyid = "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U".into());
    let unknown = check((403, "signature_agent_unknown"), &|r| {
        (r.agent, r.key, r.keyid) = (format!("sig1=\"{}\"", stranger.url), stranger.key.clone(), stranger.thumbprint());
    });
    assert_eq!(unknown.json()["registrationUrl"], "https://example.com/register");
    assert!(stranger.directory.seen().is_empty(), "a directory was asked for whom nobody knows");
    // What was signed for another method, host, page or query.
    let (addr, host) = (gateway.addr, gateway.addr.to_string());
    let sent_as = |signed: Signed, from: &str, to: &str| exchange(addr, signed.head().replacen(from, to, 1));
    let mine = || look(&agent, &gateway, PATH);
    let answers = [
        sent_as(mine().with(|r| r.method = "HEAD".into()), "HEAD", "GET"),
        sent_as(mine().with(|r| r.authority = "elsewhere.example".into()), "elsewhere.example", &host),
        sent_as(look(&agent, &gateway, "/.well-known/tollgate/other"), "tollgate/other", "tollgate/account"),
        sent_as(mine(), PATH, &format!("{PATH}?limit=1")),
        sent_as(look(&agent, &gateway, &format!("{PATH}?limit=2")), "limit=2", "limit=1"),
    ];
    for answer in answers {
        assert_eq!((answer.status, answer.reason()), invalid, "{}", answer.text());
    }
    // Whoever is blocked still sees what he owes; his payments stay refused.
    assert_eq!(seen(&other, &gateway, PATH)["blocked"], true);
    assert_eq!(other.buy(gateway.addr, "/paid/a").reason(), "blocked");
    audited(gateway);
}

#[test]
fn where_nothing_is_sold_and_where_nobody_owes_the_page_is_the_origins() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(
        &origin,
        &agent,
        "host = \"shop.example\"\n[[routes]]\nhost = \"free.example\"\npath = \"/\"\nprice = \"free\"\n",
    );
    let gateway = Gateway::start(&toml);
    let ask = |gateway: &Gateway, host: &str| {
        exchange(gateway.addr, format!("GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(ask(&gateway, "shop.example").reason(), "signature_required");
    assert_eq!(ask(&gateway, "free.example").status, 200);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_charge_is_disputed_once_however_often_it_is_asked_for() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let n = bought(&agent, &gateway, "/paid/a");
    let body = json!({"entry": n, "reason": "the page was empty"}).to_string();
    let signed = contest(&agent, &gateway, &body);
    let first = post(&gateway, &signed, &body);
    assert_eq!((first.status, first.header("cache-control")), (200, Some("no-store")), "{}", first.text());
    let told = first.json();
    assert_eq!(
        (&told["entry"], &told["number"], &told["state"], &told["posted"]),
        (&json!(n), &json!(1), &json!("open"), &json!(true))
    );
    // Sent again, and signed again.
    let again = |answer: Answer, state: &str| {
        let is = answer.json();
        assert_eq!(
            (answer.status, &is["number"], &is["state"], &is["posted"]),
            (200, &json!(1), &json!(state), &json!(false))
        );
    };
    again(post(&gateway, &signed, &body), "open");
    again(dispute(&agent, &gateway, &n, "in other words"), "open");
    let account = seen(&agent, &gateway, PATH);
    assert_eq!((&account["entries"][1]["n"], &account["entries"][1]["dispute"]), (&json!(n), &json!("open")));
    let of = &account["entries"][0];
    assert_eq!(
        (&of["kind"], &of["of"], &of["state"], &of["n"]),
        (&json!("dispute"), &json!(n), &json!("open"), &told["n"])
    );
    let dir = gateway.dir.path().to_owned();
    let operator = |args: &[&str]| {
        let (code, out, err) = tollgate(&dir, &[&["ledger"], args].concat());
        assert_eq!(code, 0, "{out}{err}");
        out
    };
    operator(&["dispute", &n, "--reject", "--reason", "delivered"]);
    // What was signed before the rejection is no second dispute.
    again(post(&gateway, &signed, &body), "rejected");
    let second = dispute(&agent, &gateway, &n, "look again").json();
    assert_eq!((&second["number"], &second["posted"]), (&json!(2), &json!(true)));
    operator(&["dispute", &n, "--uphold"]);
    let upheld = dispute(&agent, &gateway, &n, "once more");
    assert_eq!((upheld.status, upheld.reason()), (409, "dispute_refused"), "{}", upheld.text());
    assert_eq!(seen(&agent, &gateway, PATH)["limits"][0]["used"], "0.00 USD");
    let shown = operator(&["show", &n]);
    assert!(shown.contains("the page was empty") && shown.contains("agent"), "{shown}");
    // Over a restart, too.
    let gateway = Gateway::start_in(audited(gateway), &site_toml(&origin, &agent, ""));
    again(post(&gateway, &signed, &body), "rejected");
    assert_eq!(disputes(audited(gateway).path()), 4);
}

#[test]
fn nobody_disputes_for_another_and_no_body_is_exchanged() {
    let (origin, agent, other, stranger) = (Origin::start(), Agent::start(), Agent::start(), Agent::start());
    let toml = site_toml(&origin, &agent, &account("far", &[&stranger], "")).replacen(
        &format!("agents = [\"{}\"]", agent.url),
        &format!("agents = [\"{}\", \"{}\"]", agent.url, other.url),
        1,
    );
    let gateway = Gateway::start(&toml);
    let n = bought(&agent, &gateway, "/paid/a");
    let void = {
        let m = bought(&agent, &gateway, "/paid/b");
        let (code, out, err) = tollgate(gateway.dir.path(), &["ledger", "void", &m, "--reason", "ours"]);
        assert_eq!(code, 0, "{out}{err}");
        let refused = dispute(&agent, &gateway, &m, "x");
        assert_eq!((refused.status, refused.reason()), (409, "dispute_refused"), "{}", refused.text());
        seen(&agent, &gateway, PATH)["entries"][0]["n"].as_str().unwrap().to_owned()
    };
    let same_as_none = dispute(&agent, &gateway, "7", "x").text();
    for (who, entry) in [(&other, &n), (&stranger, &n), (&agent, &void), (&other, &void)] {
        let answer = dispute(who, &gateway, entry, "x");
        assert_eq!((answer.status, answer.reason()), (404, "entry_unknown"), "{}", answer.text());
        // What is another's looks like what is not there.
        assert_eq!(answer.text(), same_as_none);
    }
    let body = json!({"entry": n, "reason": "why"}).to_string();
    let check = |answer: Answer, expect: (u16, &str)| {
        assert_eq!((answer.status, answer.reason()), expect, "{}", answer.text());
    };
    let signed = contest(&agent, &gateway, &body);
    check(post(&gateway, &signed, &body.replace("why", "who")), (400, "content_digest_mismatch"));
    check(post(&gateway, &signed, ""), (400, "content_digest_mismatch"));
    let uncovered = contest(&agent, &gateway, &body).with(|r| r.covers.retain(|name| name != "content-digest"));
    check(post(&gateway, &uncovered, &body), (400, "invalid_signature"));
    check(
        post(&gateway, &look(&agent, &gateway, PATH).with(|r| r.method = "POST".into()), &body),
        (400, "invalid_signature"),
    );
    let looked = look(&agent, &gateway, PATH).head_with("Content-Length: 0\r\nConnection: close\r\n");
    check(exchange(gateway.addr, looked.replacen("GET", "POST", 1)), (400, "invalid_signature"));
    check(get(gateway.addr, PATH), (400, "signature_required"));
    for wrong in [
        "",
        "[]",
        "{}",
        "null",
        "{\"entry\":1,\"reason\":\"x\"}",
        "{\"entry\":\"x\",\"reason\":\"x\"}",
        "{\"entry\":\"-1\",\"reason\":\"x\"}",
        "{\"entry\":\"+1\",\"reason\":\"x\"}",
        "{\"entry\":\"\",\"reason\":\"x\"}",
        "{\"entry\":\"1\"}",
        "{\"entry\":\"99999999999999999999\",\"reason\":\"x\"}",
        "{\"entry\":\"1\",\"entry\":\"2\",\"reason\":\"x\"}",
        "{\"entry\":\"1\",\"reason\":\"x\",\"by\":\"operator\"}",
    ] {
        check(post(&gateway, &contest(&agent, &gateway, wrong), wrong), (400, "bad_request"));
    }
    for reason in ["", "  ", "two\nlines", &"x".repeat(501)] {
        check(dispute(&agent, &gateway, &n, reason), (400, "bad_request"));
    }
    check(dispute(&agent, &gateway, &n, &"x".repeat(5000)), (413, "body_too_large"));
    let chunked = contest(&agent, &gateway, &body).head_with("Transfer-Encoding: chunked\r\nConnection: close\r\n");
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    check(exchange(gateway.addr, format!("{chunked}{chunk}{chunk}0\r\n\r\n")), (413, "body_too_large"));
    assert_eq!(disputes(audited(gateway).path()), 0);
}

#[test]
fn an_account_contests_only_so_many_charges_a_day() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "[ledger]\ndisputes_per_day = 1\n"));
    let (a, b) = (bought(&agent, &gateway, "/paid/a"), bought(&agent, &gateway, "/paid/b"));
    // What changes nothing does not count.
    assert_eq!(dispute(&agent, &gateway, "7", "x").reason(), "entry_unknown");
    assert_eq!(dispute(&agent, &gateway, &a, "x").status, 200);
    let refused = dispute(&agent, &gateway, &b, "x");
    assert_eq!((refused.status, refused.reason()), (429, "rate_limited"));
    assert!((1..=86_400).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    assert_eq!(disputes(audited(gateway).path()), 1);
}

#[test]
fn who_looks_is_counted_as_an_agent_and_what_fails_against_its_network() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let limits = "trusted_proxies = [\"127.0.0.1\"]\n[server.limits]\nfailures_per_minute = 1\nfailures_burst = 2\n\
                  agent_requests_per_minute = 1\nagent_requests_burst = 3\n[origin]";
    let gateway = Gateway::start(&site_toml(&origin, &agent, "").replacen("[origin]", limits, 1));
    let from = |who: &Agent, ip: &str| {
        let signed = look(&agent, &gateway, PATH).with(|r| {
            (r.key, r.extra) = (who.key.clone(), format!("X-Forwarded-For: {ip}\r\n"));
        });
        exchange(gateway.addr, signed.head())
    };
    for _ in 0..2 {
        assert_eq!(from(&other, "192.0.2.1").reason(), "invalid_signature");
    }
    assert_eq!(from(&agent, "192.0.2.9").reason(), "rate_limited");
    for _ in 0..3 {
        assert_eq!(from(&agent, "192.0.3.1").status, 200);
    }
    assert_eq!(from(&agent, "192.0.3.1").reason(), "rate_limited");
}

#[test]
fn books_that_cannot_be_read_are_a_503_and_the_site_goes_on() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    // Nobody has read them yet.
    for name in ["tollgate.sqlite", "tollgate.sqlite-wal", "tollgate.sqlite-shm"] {
        let file = gateway.dir.path().join(name);
        std::fs::rename(&file, file.with_extension("away")).unwrap();
    }
    let answer = exchange(gateway.addr, look(&agent, &gateway, PATH).head());
    assert_eq!((answer.status, answer.reason()), (503, "ledger_unavailable"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some() && !answer.text().contains("sqlite"), "{}", answer.text());
    assert_eq!(get(gateway.addr, "/free").status, 200);
}
