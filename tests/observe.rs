//! Routes that only observe: everybody passes free, and the books tell what would have followed.

mod support;

#[path = "observe/calls.rs"]
mod calls;
#[path = "observe/free.rs"]
mod free;
#[path = "observe/said.rs"]
mod said;
#[path = "observe/schemes.rs"]
mod schemes;

use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use support::client::PATIENCE;
use support::gateway::tollgate;
use support::*;

/// Stops a gateway, audits its books, and says what it has observed, by these columns.
fn observed(gateway: Gateway, by: &str) -> Vec<Value> {
    let (status, dir) = gateway.stop();
    assert!(status.success(), "{status}");
    observed_in(dir.path(), by)
}

fn observed_in(dir: &Path, by: &str) -> Vec<Value> {
    let (code, out, err) = tollgate(dir, &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
    lines(dir, &["ledger", "observed", "--by", by, "--json", "--ledger", "tollgate.sqlite"])
}

/// The entries of the books.
fn entries(dir: &Path) -> Vec<Value> {
    lines(dir, &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"])
}

fn lines(dir: &Path, args: &[&str]) -> Vec<Value> {
    let (code, out, err) = tollgate(dir, args);
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `scheme asked paid refused would_earn asked_for REFUSALS` of each line.
fn short(rows: &[Value]) -> Vec<String> {
    let text = |row: &Value, name: &str| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
    let names = ["asked", "paid", "refused", "would_earn", "asked_for", "refusals"];
    let short = |row: &Value| {
        let by: Vec<&str> = row["by"].as_object().unwrap().values().map(|by| by.as_str().unwrap()).collect();
        let rest: Vec<String> = names.iter().map(|name| text(row, name)).collect();
        format!("{} {}", by.join(" "), rest.join(" ")).trim_start().to_owned()
    };
    rows.iter().map(short).collect()
}

/// Writes another file, sends HUP, and waits until it was taken over for the `times`th time.
fn reload(gateway: &Gateway, toml: &str, times: usize) {
    std::fs::write(gateway.dir.path().join("tollgate.toml"), toml).unwrap();
    gateway.signal("HUP");
    let since = Instant::now();
    while gateway.log().matches("the configuration was read again").count() < times {
        assert!(since.elapsed() < PATIENCE, "{}", gateway.log());
        std::thread::yield_now();
    }
}

/// A request with these header lines.
fn ask(gateway: &Gateway, path: &str, lines: &[&str]) -> Answer {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let host = gateway.addr;
    exchange(host, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n"))
}

/// Nothing in it that an answer to a payment, or to the lack of one, has.
fn is_free(answer: &Answer) {
    for name in ["payment-required", "payment-response", "x-payment-response", "tollgate-reason", "accept-signature"] {
        assert!(answer.header(name).is_none(), "{name}: {answer:?}");
    }
    let ours = |name: &str| name.starts_with("crawler-") || name.starts_with("tollgate-");
    assert!(!answer.headers.iter().any(|(name, _)| ours(&name.to_ascii_lowercase())), "{answer:?}");
}
