//! `tollgate ledger archive`, without a gateway and beside one.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::settle::{number, settle};
use crate::support::gateway::tollgate;
use crate::support::past::{day, ledger};
use crate::support::*;

fn archive(dir: &Path, until: &str, more: &[&str]) -> (i32, Value, String) {
    let args = [&["ledger", "archive", "--json", "-o", "a.jsonl", "--until", until], more].concat();
    let (code, out, err) = tollgate(dir, &args);
    (code, serde_json::from_str(&out).unwrap_or_default(), err)
}

fn audit(dir: &Path, more: &[&str]) -> Value {
    let (code, out, err) = tollgate(dir, &[&["ledger", "audit", "--json"], more].concat());
    assert_eq!(code, 0, "{out}{err}");
    serde_json::from_str(&out).unwrap()
}

/// Sales of the last days, closed, and some of today, which raise the floor.
fn books(origin: &Origin, agent: &Agent) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    settle(dir.path(), &day(1));
    let gateway = Gateway::start_in(dir, &site_toml(origin, agent, ""));
    for i in 0..4 {
        assert_eq!(agent.buy(gateway.addr, &format!("/paid/{i}")).status, 200);
    }
    gateway
}

#[test]
fn closed_days_are_archived_and_dropped_beside_a_gateway_that_sells() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = books(&origin, &agent);
    let dir = gateway.dir.path();
    let before = audit(dir, &[]);
    // Evidence first, rows later: each from a file of its own.
    let (code, made, err) = archive(dir, &day(2), &["--drop", "evidence"]);
    assert_eq!((code, &made["entries"], &made["dropped"]), (0, &5.into(), &5.into()), "{made} {err}");
    assert_eq!(number(dir, "SELECT count(*) FROM entries WHERE target IS NULL AND kind = 1 AND n & 255 < 6"), 4);
    let (code, again, err) = archive(dir, &day(2), &["--drop", "evidence"]);
    assert_eq!((code, &again["digest"], &again["dropped"]), (0, &made["digest"], &0.into()), "{again} {err}");
    fs::rename(dir.join("a.jsonl"), dir.join("evidence.jsonl")).unwrap();
    let (code, made, err) = archive(dir, &day(1), &["--drop", "rows"]);
    assert_eq!(code, 0, "{err}");
    assert!(made["entries"].as_i64().unwrap() >= 5 && made["dropped"].as_i64() >= made["entries"].as_i64(), "{made}");
    assert!(number(dir, "SELECT min(n) & 255 FROM entries") > 5);
    assert_eq!(agent.buy(gateway.addr, "/paid/more").status, 200);
    // An export that begins later than it was asked to says so.
    let (code, _, err) = tollgate(dir, &["ledger", "export"]);
    assert!(code == 0 && err.contains(&format!("days up to {} are archived", day(2))), "{err}");
    let (code, _, err) = tollgate(dir, &["ledger", "export", "--since", &day(0)]);
    assert_eq!((code, err.as_str()), (0, ""));
    let trusting = audit(dir, &[]);
    assert!(trusting["trusted"].as_i64().unwrap() > 0, "{trusting}");
    assert_eq!(trusting["charged"]["eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e"], "1.00");
    let whole = audit(dir, &["--archive", "a.jsonl", "--archive", "evidence.jsonl"]);
    assert_eq!((&whole["trusted"], &whole["archives"]), (&0.into(), &2.into()));
    assert_eq!(whole["entries"].as_i64().unwrap(), before["entries"].as_i64().unwrap() + 1);
    let (code, out, _) = tollgate(dir, &["ledger", "audit", "--archive", "a.jsonl"]);
    assert!(code == 0 && out.contains("archived and dropped, all of them audited; 1 archive audited"), "{out}");
    // A day's file is not another's.
    let (code, _, err) = archive(dir, &day(2), &["--drop", "rows"]);
    assert!(code == 1 && err.contains("is there already, until"), "{err}");
    let (status, _dir) = gateway.stop();
    assert!(status.success());
}

#[test]
fn what_can_not_be_archived_says_why_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let (code, _, err) = archive(dir.path(), &day(2), &[]);
    assert!(code == 1 && err.contains("settle --until"), "{err}");
    settle(dir.path(), &day(1));
    // Nothing was sold before.
    let (code, made, err) = archive(dir.path(), &day(3), &["--drop", "rows"]);
    assert!(code == 0 && made["file"].is_null() && made["dropped"] == 0, "{made} {err}");
    assert!(!dir.path().join("a.jsonl").exists());
    assert_eq!(tollgate(dir.path(), &["ledger", "archive", "--until", "x", "-o", "a"]).0, 2);
    fs::write(dir.path().join("a.jsonl"), "something else").unwrap();
    let (code, _, err) = archive(dir.path(), &day(1), &[]);
    assert!(code == 1 && err.contains("a.jsonl: this is no archive"), "{err}");
    assert_eq!(fs::read_to_string(dir.path().join("a.jsonl")).unwrap(), "something else");
}
