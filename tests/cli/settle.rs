//! `tollgate settle`

use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::gateway::{binary, tollgate};
use crate::support::past::{USDC, day, ledger};
use crate::support::*;

pub fn settle(dir: &Path, until: &str) -> Vec<Value> {
    let (code, out, err) = tollgate(dir, &["settle", "--json", "--until", until]);
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn number(dir: &Path, sql: &str) -> i64 {
    Connection::open(dir.join("tollgate.sqlite")).unwrap().query_row(sql, (), |row| row.get(0)).unwrap()
}

#[test]
fn days_are_closed_and_stated_once() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let statements = settle(dir.path(), &day(2));
    let shown: Vec<_> = statements
        .iter()
        .map(|s| (s["number"].as_i64().unwrap(), s["account"].as_str().unwrap(), s["total"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [(1, "acme", "3.35"), (2, "wallets", "1.00")]);
    let acme = &statements[0];
    for (member, expect) in
        [("schema", "tollgate.statement/1"), ("state", "closed"), ("asset", "USD"), ("total_units", "3350000")]
    {
        assert_eq!(acme[member], expect, "{acme}");
    }
    assert_eq!((&acme["from"], &acme["until"]), (&day(3).into(), &day(2).into()));
    assert_eq!(acme["head"].as_str().unwrap().len(), 64);
    assert_eq!((&statements[1]["state"], &statements[1]["asset"]), (&"paid".into(), &USDC.into()));
    assert_eq!(settle(dir.path(), &day(2)), statements);
    // The void of what was stated before is the next one's.
    let next = settle(dir.path(), &day(0));
    assert_eq!((&next[0]["number"], &next[0]["corrections"]), (&3.into(), &"-0.75".into()));
    assert_eq!((&next[0]["gross"], &next[0]["total"]), (&"4.00".into(), &"3.25".into()));
    let (code, out, err) = tollgate(dir.path(), &["settle", "--until", &day(0)]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with(&format!("closed {} up to and including {}, days of UTC\n", day(2), day(1))), "{out}");
    let words: Vec<&str> = out.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(words[4..], ["4.00", "USD", "-0.75", "USD", "3.25", "USD", "closed"], "{out}");
    let (code, out, _) = tollgate(dir.path(), &["ledger", "audit"]);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn days_that_cannot_be_closed_are_refused_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = tollgate(dir.path(), &["settle", "--until", &day(0)]);
    assert_eq!(code, 5, "{err}");
    ledger(dir.path());
    settle(dir.path(), &day(1));
    let refused = |until: &str, exit: i32, word: &str| {
        let (code, out, err) = tollgate(dir.path(), &["settle", "--until", until]);
        assert_eq!((code, out.as_str()), (exit, ""), "{err}");
        assert!(err.contains(word) && err.contains(until), "{err}");
    };
    refused(&day(2), 1, "closed already");
    refused("2999-01-01", 2, "has not begun");
    assert_eq!(tollgate(dir.path(), &["settle", "--until", "tomorrow"]).0, 2);
    assert_eq!(tollgate(dir.path(), &["settle"]).0, 2);
    assert_eq!(number(dir.path(), "SELECT count(*) FROM closes"), 1);
}

/// Runs several at once; what each said.
fn at_once(dir: &Path, count: usize, args: &[&str]) -> Vec<(Option<i32>, String)> {
    let run = |_| {
        let mut command = Command::new(binary());
        command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..count).map(run).collect();
    let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
    outputs.map(|output| (output.status.code(), String::from_utf8(output.stdout).unwrap())).collect()
}

#[test]
fn several_at_once_without_a_gateway_are_one() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let said = at_once(dir.path(), 4, &["settle", "--json", "--until", &day(0)]);
    assert!(said[0].0 == Some(0) && said[0].1.contains("\"number\":1"), "{said:?}");
    assert!(said.iter().all(|other| *other == said[0]), "{said:?}");
    assert_eq!(number(dir.path(), "SELECT count(*) FROM closes"), 1);
    assert_eq!(number(dir.path(), "SELECT count(*) FROM statements"), 3);
}

#[test]
fn a_running_gateway_settles_while_it_sells_and_signs_what_it_closed() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "[signing]\nkey_file = \"gateway.jwk\"\n");
    let gateway = Gateway::start_in(dir, &toml);
    let until = day(0);
    let said = std::thread::scope(|scope| {
        for client in 0..3 {
            let (agent, addr) = (&agent, gateway.addr);
            scope.spawn(move || {
                for i in 0..15 {
                    assert_eq!(agent.buy(addr, &format!("/paid/{client}/{i}")).status, 200);
                }
            });
        }
        at_once(gateway.dir.path(), 3, &["settle", "--json", "--until", &until, "-c", "tollgate.toml"])
    });
    assert!(said[0].0 == Some(0) && said.iter().all(|other| *other == said[0]), "{said:?}");
    assert_eq!(said[0].1.lines().count(), 3);
    let (status, dir) = gateway.stop();
    assert!(status.success());
    // Nothing that was bought meanwhile is in the closed days.
    let sold = "SELECT sum(captures) FROM rollups WHERE account = 'acme' AND book_day >= (SELECT until FROM closes)";
    assert_eq!(number(dir.path(), sold), 45);
    let audit = |args: &[&str]| tollgate(dir.path(), &[&["ledger", "audit"], args].concat());
    let ok = |args: &[&str], said: &str| {
        let (code, out, err) = audit(args);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains(said), "{out}");
    };
    ok(&["-c", "tollgate.toml"], "1 close, 1 signed and verified; 3 statements");
    ok(&["--key", "gateway.jwk"], "1 close, 1 signed and verified; 3 statements");
    ok(&[], "1 close, 1 signed, not checked: name the gateway's key");
    // The public half is enough; another key is not.
    let private = std::fs::read_to_string(dir.path().join("gateway.jwk")).unwrap();
    let mut public: Value = serde_json::from_str(&private).unwrap();
    public.as_object_mut().unwrap().remove("d");
    std::fs::write(dir.path().join("public.jwk"), public.to_string()).unwrap();
    ok(&["--key", "public.jwk"], "1 signed and verified");
    assert_eq!(tollgate(dir.path(), &["keygen", "-o", "other.jwk"]).0, 0);
    let (code, out, _) = audit(&["--key", "other.jwk"]);
    assert!(code == 1 && out.starts_with("wrong: close of the days before ") && out.contains("the key that"), "{out}");
    ok(&["--key", "other.jwk", "--key", "public.jwk", "--json"], "\"verified\":1");
    std::fs::write(dir.path().join("no.jwk"), "{}").unwrap();
    for file in ["no.jwk", "missing.jwk"] {
        let (code, _, err) = audit(&["--key", file]);
        assert!(code == 2 && err.contains(file), "{err}");
    }
    // As a gateway's directory has it, beside another; one that holds no usable key is said so.
    let (_, keys, err) = tollgate(dir.path(), &["directory", "--key", "gateway.jwk", "--key", "other.jwk", "--print"]);
    std::fs::write(dir.path().join("keys.json"), keys).unwrap();
    ok(&["--key", "keys.json"], "1 signed and verified");
    std::fs::write(dir.path().join("empty.json"), "{\"keys\":[]}").unwrap();
    let (code, _, said) = audit(&["--key", "empty.json"]);
    assert_eq!((code, said.as_str()), (2, "error: empty.json: no key of it can be used\n"), "{err}");
    // A private key in the wrong form is not shown.
    std::fs::write(dir.path().join("text.jwk"), "\"B0ndyoR9V4baVmEI\"").unwrap();
    let (code, _, err) = audit(&["--key", "text.jwk"]);
    assert!(code == 2 && err.contains("text.jwk: not a JWK") && !err.contains("B0ndyo"), "{err}");
}

#[test]
fn without_a_gateway_the_configured_key_signs_or_nothing_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "[signing]\nkey_file = \"gateway.jwk\"\n");
    std::fs::write(dir.path().join("tollgate.toml"), toml).unwrap();
    let args = ["settle", "--until", &day(0), "-c", "tollgate.toml"];
    let (code, _, err) = tollgate(dir.path(), &args);
    assert_eq!(code, 1);
    assert!(err.contains("gateway.jwk (signing.key_file)"), "{err}");
    assert_eq!(number(dir.path(), "SELECT count(*) FROM closes"), 0);
    assert_eq!(tollgate(dir.path(), &["keygen", "-o", "gateway.jwk"]).0, 0);
    assert_eq!(tollgate(dir.path(), &args).0, 0);
    assert_eq!(number(dir.path(), "SELECT length(signature) FROM closes"), 96);
}

/// Statements 1 (acme, three days ago), 2 (wallets) and 3 (acme, with the void of something in 1), 4 (other).
pub fn stated() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    settle(dir.path(), &day(2));
    settle(dir.path(), &day(0));
    dir
}
