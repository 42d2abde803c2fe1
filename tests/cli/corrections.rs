//! `tollgate ledger void`, `refund` and `dispute`, without a gateway and beside one.

use std::path::Path;

use serde_json::Value;

use crate::support::facilitator::Facilitator;
use crate::support::gateway::tollgate;
use crate::support::past::{USDC, day, ledger};
use crate::support::wallet::{Wallet, head, receipt, send, token_shop_toml};
use crate::support::*;

fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    tollgate(dir, &[&["ledger"], args].concat())
}

fn ran(dir: &Path, args: &[&str]) -> String {
    let (code, out, err) = run(dir, args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused(dir: &Path, code: i32, args: &[&str], words: &str) {
    let (found, out, err) = run(dir, args);
    assert_eq!((found, out.as_str()), (code, ""), "{args:?}: {err}");
    assert!(err.contains(words), "{args:?}: {err}");
}

/// The numbers of captures by scheme and state, oldest first.
fn captures(dir: &Path, scheme: &str, state: &str) -> Vec<String> {
    let rows = objects(&ran(dir, &["list", "--json", "--limit", "0"]));
    let of = |row: &&Value| row["kind"] == "capture" && row["scheme"] == scheme && row["state"] == state;
    rows.iter().rev().filter(of).map(|row| row["n"].as_str().unwrap().to_owned()).collect()
}

fn audited(dir: &Path) -> String {
    ran(dir, &["audit"])
}

#[test]
fn charges_on_credit_are_voided_once_and_correct_the_next_statement() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let dir = dir.path();
    let sold = captures(dir, "deferred", "delivered");
    let token = &captures(dir, "exact", "unproven")[0];
    assert_eq!(tollgate(dir, &["settle", "--until", &day(2)]).0, 0);
    let out = ran(dir, &["void", &sold[0], &sold[1], &sold[0], "--reason", "wrong page"]);
    assert_eq!(out, "2 charges voided: 2.60 USD\n");
    refused(dir, 1, &["void", &sold[0], "--reason", "again"], "is voided already, by entry 281474976710");
    refused(dir, 1, &["void", token, "--reason", "x"], &format!("say `ledger refund {token} --reference TEXT`"));
    let void = objects(&ran(dir, &["list", "--json", "--limit", "1"]))[0]["n"].as_str().unwrap().to_owned();
    refused(dir, 1, &["void", &void, "--reason", "x"], &format!("it is a void of entry {}", sold[1]));
    refused(dir, 5, &["void", "7", "--reason", "x"], "no entry of this ledger is 7");
    refused(dir, 2, &["void", &sold[2], "--reason", " "], "expected a line of text");
    let long = "x".repeat(501);
    refused(dir, 1, &["void", &sold[2], "--reason", &long], "the reason must be a line");
    for usage in [&["void"][..], &["void", &sold[2]], &["void", "--unproven", &sold[2]], &["void", "--dry-run"]] {
        assert_eq!(run(dir, usage).0, 2, "{usage:?}");
    }
    // One that is refused does not hold the others up.
    let args = ["void", &sold[0], &sold[3], "--reason", "both", "--json"];
    let (code, out, _) = run(dir, &args);
    let said = objects(&out);
    assert_eq!((code, said.len()), (1, 2), "{out}");
    assert!(said[0]["error"].as_str().unwrap().contains("voided already"), "{out}");
    assert_eq!(
        (&said[1]["entry"], &said[1]["amount"], &said[1]["asset"]),
        (&(&*sold[3]).into(), &"4.00".into(), &"USD".into())
    );
    let shown: Value = serde_json::from_str(&ran(dir, &["show", said[1]["void"].as_str().unwrap(), "--json"])).unwrap();
    assert_eq!((&shown["evidence"]["reason"], &shown["evidence"]["by"]), (&"both".into(), &"operator".into()));
    assert!(audited(dir).contains("charged 0.000001 USD, 1.00 USDC"), "{}", audited(dir));
    assert_eq!(tollgate(dir, &["settle", "--until", &day(0)]).0, 0);
    let statements = objects(&ran(dir, &["statements", "--account", "acme", "--json"]));
    let sums: Vec<_> =
        statements.iter().map(|s| (s["gross"].as_str().unwrap(), s["corrections"].as_str().unwrap())).collect();
    assert_eq!(sums, [("3.35", "0.00"), ("4.00", "-0.75")]);
    // What is voided today falls on the statement after.
    let open = objects(&ran(dir, &["report", "--account", "acme", "--since", &day(0), "--json"]));
    assert_eq!((open.len(), &open[0]["voided"], &open[0]["captured"]), (1, &"6.60".into(), &"0.00".into()));
    assert!(audited(dir).starts_with("ok:"));
}

#[test]
fn refunds_of_a_settled_payment_are_noted_and_add_up() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let dir = dir.path();
    let n = &*captures(dir, "exact", "unproven")[0];
    let refund = |more: &[&str]| ran(dir, &[&["refund", n], more].concat());
    let first = refund(&["--reference", "0x9c", "--amount", "0.4", "--reason", "half"]);
    assert!(first.starts_with(&format!("refund 1 of entry {n}: 0.40 USDC, sent (entry ")), "{first}");
    let again = refund(&["--reference", "0x9c"]);
    assert!(
        again.starts_with(&format!("refund 1 of entry {n}: 0.40 USDC, sent already, nothing was posted")),
        "{again}"
    );
    let done = &objects(&refund(&["--reference", "0x9c", "--state", "done", "--json"]))[0];
    for (name, value) in [
        ("state", "done".into()),
        ("amount", "0.40".into()),
        ("symbol", "USDC".into()),
        ("asset", USDC.into()),
        ("posted", true.into()),
        ("units", 400_000.into()),
        ("number", 1.into()),
    ] as [(&str, Value); 7]
    {
        assert_eq!(done[name], value, "{name}: {done}");
    }
    refused(dir, 1, &["refund", n, "--reference", "0x9c", "--state", "failed"], "is done for good");
    refused(
        dir,
        1,
        &["refund", n, "--reference", "b", "--amount", "0.7"],
        "at most 0.60 USDC, what is left of 1.00 USDC",
    );
    refused(dir, 2, &["refund", n, "--reference", "b", "--amount", "0.0000001"], "--amount: ");
    refused(dir, 2, &["refund", n, "--reference", "b", "--units", "0"], "--units: expected 1 or more");
    refused(dir, 5, &["refund", "7", "--reference", "b"], "no entry of this ledger is 7");
    let credit = &captures(dir, "deferred", "delivered")[0];
    refused(dir, 1, &["refund", credit, "--reference", "b"], &format!("say `ledger void {credit}"));
    assert_eq!(run(dir, &["refund", n]).0, 2);
    refund(&["--reference", "b", "--units", "100000"]);
    refund(&["--reference", "b", "--state", "failed"]);
    let rest = refund(&["--reference", "c"]);
    assert!(rest.contains("refund 3") && rest.contains("0.60 USDC"), "{rest}");
    refused(dir, 1, &["refund", n, "--reference", "d"], "all of 1.00 USDC was given back already");
    assert_eq!(captures(dir, "exact", "refunded"), [n]);

    let line = &objects(&ran(dir, &["report", "--by", "account", "--account", "wallets", "--json"]))[0];
    assert_eq!((&line["refunds"], &line["refunded"], &line["net"]), (&2.into(), &"1.00".into(), &"0.00".into()));
    assert!(audited(dir).contains("1 void and 2 refunds"), "{}", audited(dir));
    let postings = objects(&ran(dir, &["export", "--format", "jsonl"]));
    let refunds: Vec<_> = postings
        .iter()
        .filter(|p| p["kind"] == "refund")
        .map(|p| {
            assert_eq!((&p["ref"], &p["status"]), (&n.into(), &Value::Null));
            let text = |name: &str| p[name].as_str().unwrap().to_owned();
            (text("state"), text("reference"), text("charge"))
        })
        .collect();
    let expected = [
        ("sent", "0x9c", "-0.40"),
        ("done", "0x9c", "0.00"),
        ("sent", "b", "-0.10"),
        ("failed", "b", "0.10"),
        ("sent", "c", "-0.60"),
    ];
    assert_eq!(refunds, expected.map(|(state, reference, charge)| (state.into(), reference.into(), charge.into())));
    let metered = objects(&ran(dir, &["export", "--format", "metered"]));
    let refunded: i64 = metered
        .iter()
        .filter(|line| line["event_name"] == "tollgate.refund")
        .map(|line| line["payload"]["value"].as_str().unwrap().parse::<i64>().unwrap())
        .sum();
    assert_eq!(refunded, 1_000_000);
    let mut identifiers: Vec<&str> = metered.iter().filter_map(|line| line["identifier"].as_str()).collect();
    let lines = identifiers.len();
    identifiers.sort_unstable();
    identifiers.dedup();
    assert!(identifiers.len() == lines && lines == 10, "{metered:?}");
    for row in postings.iter().filter(|p| p["kind"] == "refund") {
        ran(dir, &["verify", row["n"].as_str().unwrap()]);
    }
    let shown = ran(dir, &["show", n]);
    for expected in ["refunded", "1: 0.40 USDC, 0x9c, done by entry", "2: 0.10 USDC, b, failed by entry", ": half"] {
        assert!(shown.contains(expected), "no {expected:?} in {shown}");
    }
    assert_eq!(tollgate(dir, &["settle", "--until", &day(0)]).0, 0);
    ran(dir, &["refund", n, "--reference", "c", "--state", "failed"]);
    assert!(audited(dir).starts_with("ok:"));
}

#[test]
fn a_dispute_is_listed_until_it_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let dir = dir.path();
    let sold = captures(dir, "deferred", "delivered");
    let token = &*captures(dir, "exact", "unproven")[0];
    let disputed = || objects(&ran(dir, &["list", "--state", "disputed", "--json"])).len();
    for n in [&*sold[0], &*sold[1], token] {
        let out = ran(dir, &["dispute", n, "--reason", "the page was empty"]);
        assert!(out.starts_with(&format!("dispute 1 of entry {n} is open (entry ")), "{out}");
        refused(dir, 1, &["dispute", n, "--reason", "again"], "is disputed already");
    }
    assert_eq!(disputed(), 3);
    assert!(ran(dir, &["list"]).contains("delivered, disputed"));
    let upheld = ran(dir, &["dispute", &sold[0], "--uphold"]);
    assert!(upheld.contains("is upheld") && upheld.contains("the charge is voided, by entry"), "{upheld}");
    let upheld = ran(dir, &["dispute", token, "--uphold", "--reason", "seen"]);
    assert!(upheld.contains(&format!("tollgate ledger refund {token} --reference TEXT")), "{upheld}");
    let rejected = &objects(&ran(dir, &["dispute", &sold[1], "--reject", "--reason", "delivered", "--json"]))[0];
    assert_eq!(
        (&rejected["state"], &rejected["void"], &rejected["number"]),
        (&"rejected".into(), &Value::Null, &1.into())
    );
    assert_eq!(disputed(), 0);
    refused(dir, 1, &["dispute", &sold[0], "--uphold"], "has no open dispute");
    refused(dir, 1, &["dispute", &sold[0], "--reason", "x"], "is voided already");
    for usage in [
        &["dispute", &*sold[1]][..],
        &["dispute", &sold[1], "--reject"],
        &["dispute", &sold[1], "--reject", "--uphold"],
    ] {
        assert_eq!(run(dir, usage).0, 2, "{usage:?}");
    }
    refused(dir, 5, &["dispute", "7", "--reason", "x"], "no entry");
    let shown = ran(dir, &["show", &sold[1]]);
    assert!(shown.contains("rejected by entry") && shown.contains(": the page was empty"), "{shown}");
    // The window is the configuration's.
    let (origin, agent) = (Origin::start(), Agent::start());
    std::fs::write(dir.join("tollgate.toml"), site_toml(&origin, &agent, "[ledger]\ndispute_days = 1\n")).unwrap();
    let late = ["dispute", &sold[1], "--reason", "late", "-c", "tollgate.toml"];
    refused(dir, 1, &late, &format!("for 1 days (ledger.dispute_days), until {}T00:00:0", day(2)));
    assert!(audited(dir).starts_with("ok:"));
}

/// A gateway that died over answers: nobody knows whether they left.
#[test]
fn what_a_crash_left_unproven_is_voided_at_once_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    // The token payment of three days ago is unproven, too: its money moved.
    let forget = "UPDATE batches SET outcomes = NULL WHERE batch_seq < 4";
    let dir = dir.path();
    let before = captures(dir, "deferred", "unproven").len();
    assert_eq!(before, 0);
    rusqlite::Connection::open(dir.join("tollgate.sqlite")).unwrap().execute(forget, ()).unwrap();
    let unproven = captures(dir, "deferred", "unproven").len();
    assert!(unproven > 0);
    let would = ran(dir, &["void", "--unproven", "--dry-run"]);
    assert!(would.lines().last().unwrap().contains("would be voided"), "{would}");
    assert_eq!(objects(&ran(dir, &["void", "--unproven", "--dry-run", "--json"])).len(), unproven);
    for none in [["--account", "nobody"], ["--before", &day(3)]] {
        let (code, out, err) = run(dir, &[&["void", "--unproven"][..], &none].concat());
        assert_eq!((code, &*out), (0, ""), "{err}");
        assert!(err.contains("nothing is unproven on credit"), "{err}");
    }
    assert_eq!(captures(dir, "deferred", "unproven").len(), unproven);
    let did = ran(dir, &["void", "--unproven", "--account", "acme", "--before", &day(0), "--json"]);
    assert_eq!(objects(&did).len(), unproven);
    assert_eq!(captures(dir, "deferred", "unproven").len(), 0);
    assert_eq!(captures(dir, "exact", "unproven").len(), 1);
}

/// An account whose answers are always cut, by its own doing or its origin's, does not read for nothing for ever.
#[test]
fn voids_of_a_gateway_are_capped_and_what_stands_is_listed() {
    let origin = Origin::scripted(|_, socket| {
        use std::io::Write as _;
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok");
        false
    });
    let agent = Agent::start();
    let gateway = Gateway::start(&site_toml(&origin, &agent, "[ledger]\nvoids_per_day = 1\n"));
    for i in 0..4 {
        assert!(agent.buy(gateway.addr, &format!("/paid/{i}")).truncated);
    }
    let (_, dir) = gateway.stop();
    let dir = dir.path();
    let log = gateway::log(dir);
    let cut = objects(&ran(dir, &["list", "--state", "cut", "--json"]));
    let voided = objects(&ran(dir, &["list", "--state", "voided", "--json"]));
    assert_eq!((cut.len(), voided.len()), (3, 1), "{log}");
    assert_eq!(cut[0]["outcome"]["delivery"], "origin_cut");
    assert_eq!(log.matches("ledger.voids_per_day").count(), 1, "{log}");
    assert!(log.contains("account=acme"), "{log}");
    ran(dir, &["void", cut[0]["n"].as_str().unwrap(), "--reason", "our origin was down"]);
    assert_eq!(objects(&ran(dir, &["list", "--state", "cut", "--json"])).len(), 2);
    assert!(audited(dir).starts_with("ok:"));
}

#[test]
fn a_running_gateway_gives_credit_back_and_serves_no_refunded_answer() {
    let origin = Origin::scripted(|seen, socket| {
        use std::io::Write as _;
        let status = if seen.path() == "/paid/bad" { "500 Oops" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let (agent, facilitator, wallet) = (Agent::start(), Facilitator::start(), Wallet::new());
    let more = format!(
        "settle = \"first\"\n[[routes]]\npath = \"/credit/*\"\nprice = \"0.25 USD\"\n[[accounts]]\nname = \"acme\"\nagents = [\"{}\"]\n\
         credit = \"0.50 USD\"\n",
        agent.url
    );
    let gateway = Gateway::start(&token_shop_toml(&origin, &facilitator, &more));
    let dir = gateway.dir.path();
    for path in ["/credit/a", "/credit/b"] {
        assert_eq!(agent.buy(gateway.addr, path).status, 200);
    }
    assert_eq!(agent.buy(gateway.addr, "/credit/c").reason(), "credit_exhausted");
    let sold = objects(&ran(dir, &["list", "--json", "--account", "acme"]));
    ran(dir, &["void", sold[0]["n"].as_str().unwrap(), "--reason", "wrong"]);
    assert_eq!(agent.buy(gateway.addr, "/credit/c").status, 200);
    assert_eq!(agent.buy(gateway.addr, "/credit/d").reason(), "credit_exhausted");
    // Answers of a gateway that runs are on their way, not unproven.
    ran(dir, &["void", "--unproven"]);
    assert_eq!(agent.buy(gateway.addr, "/credit/d").reason(), "credit_exhausted");

    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/bad"));
    let first = send(gateway.addr, "GET", "/paid/bad", &payload);
    assert_eq!(first.status, 500);
    let owed = || objects(&ran(dir, &["list", "--state", "owed", "--json"]));
    let n = loop {
        if let [row] = &owed()[..] {
            break row["n"].as_str().unwrap().to_owned();
        }
    };
    ran(dir, &["refund", &n, "--reference", "0x9c", "--amount", "0.004"]);
    let row = &owed()[0];
    assert_eq!((&row["fetch"], &row["refunded"]), (&"no: refunded in part".into(), &"0.004".into()), "{row}");
    let asked = origin.calls();
    let again = exchange(gateway.addr, head(gateway.addr, "GET", "/paid/bad", &payload));
    assert_eq!((again.status, again.reason(), receipt(&again)), (409, "payment_already_used", receipt(&first)));
    assert!(again.text().contains("is given back"), "{}", again.text());
    assert_eq!(origin.calls(), asked);
    ran(dir, &["refund", &n, "--reference", "0x9d", "--state", "done"]);
    assert_eq!(owed(), Vec::<Value>::new());
    let (status, dir) = gateway.stop();
    assert!(status.success());
    assert!(audited(dir.path()).starts_with("ok:"));
}
