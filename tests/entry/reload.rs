//! HUP: another configuration while clients are served.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Connection, PATIENCE, exchange, get};
use crate::support::gateway::tollgate;
use crate::support::*;

const TAKEN: &str = "the configuration was read again";

/// Writes another file, sends HUP, and waits for the log to say so often what became of it.
fn reload(gateway: &Gateway, toml: &str, says: &str, times: usize) {
    // The port is decided: a file that says 0 says the same.
    std::fs::write(gateway.dir.path().join("tollgate.toml"), toml).unwrap();
    gateway.signal("HUP");
    let since = Instant::now();
    while gateway.log().matches(says).count() < times {
        assert!(since.elapsed() < PATIENCE, "no {says:?} in {}", gateway.log());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn offered(gateway: &Gateway, path: &str) -> (String, String) {
    let offer = get(gateway.addr, path).json();
    let text = |pointer: &str| offer.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    (text("/accepts/0/extras/price"), text("/accepts/0/extras/id"))
}

#[test]
fn offers_that_are_out_stay_good_and_new_ones_cost_what_the_new_file_says() {
    let (origin, other, agent) = (
        Origin::start(),
        Origin::scripted(|_, socket| {
            use std::io::Write as _;
            write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother").is_ok()
        }),
        Agent::start(),
    );
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&toml);
    let mut open = Connection::open(gateway.addr);
    let request = format!("GET /free HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.addr);
    assert_eq!(open.send(&request).unwrap().text(), "content of /free");
    let (price, id) = offered(&gateway, "/paid/a");
    assert_eq!(price, "0.01 USD");
    let next = toml
        .replace("0.01 USD", "0.02 USD")
        .replace("terms_url = \"https://example.com/terms\"", "terms_url = \"https://example.com/other\"")
        .replace(&origin.addr.to_string(), &other.addr.to_string());
    reload(&gateway, &next, TAKEN, 1);
    assert_eq!(open.send(&request).unwrap().text(), "other", "the connection stays, and goes to the new origin");
    assert_eq!(offered(&gateway, "/paid/a").0, "0.02 USD");
    let authority = gateway.addr.to_string();
    let paid = exchange(gateway.addr, agent.signed(&authority, "GET", "/paid/a", &id).head());
    assert_eq!((paid.status, paid.text().as_str()), (200, "other"), "{}", paid.reason());
    let (_, dir) = gateway.stop();
    let (_, out, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert!(out.contains("\"0.01\"") && out.lines().count() == 1, "what was offered is what is charged: {out}");
}

#[test]
fn a_bad_file_changes_nothing_and_is_shown() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&toml);
    let bad = toml.replace("0.01 USD", "0.01 EURO");
    reload(&gateway, &bad, "the one before stays", 1);
    let log = gateway.log();
    assert!(log.contains("tollgate.toml:") && log.contains("0.01 EURO"), "where it is: {log}");
    assert_eq!(offered(&gateway, "/paid/a").0, "0.01 USD");
    // A file that it names can't be read.
    let bad = format!("{toml}\n[identity]\nca_file = \"nowhere.pem\"\n");
    reload(&gateway, &bad, "the one before stays", 2);
    assert!(gateway.log().contains("nowhere.pem"), "{}", gateway.log());
    // What can't change without a restart is named.
    let bad =
        toml.replace("cores = 2", "cores = 3").replace("[origin]", "[ledger]\nurl = \"sqlite:else.sqlite\"\n[origin]");
    reload(&gateway, &bad, "the one before stays", 3);
    assert!(gateway.log().contains("a restart is needed for server.cores, ledger"), "{}", gateway.log());
    assert!(!gateway.dir.path().join("else.sqlite").exists());
    reload(&gateway, &toml.replace("0.01 USD", "0.03 USD"), TAKEN, 1);
    assert_eq!(offered(&gateway, "/paid/a").0, "0.03 USD");
    // A file that was cut off is a good one that sells nothing: said aloud.
    let cut = toml.split("[[routes]]").next().unwrap();
    reload(&gateway, cut, "no route has a price any more: everything is free now", 1);
}

#[test]
fn requests_under_way_and_payments_are_unharmed_by_many_reloads() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&toml);
    let (over, served, paid) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.addr);
                let request = format!("GET /free HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.addr);
                while !over.load(Ordering::Relaxed) {
                    let answer = connection.send(&request).expect("the connection was closed");
                    assert_eq!(answer.text(), "content of /free");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = exchange(gateway.addr, agent.request(gateway.addr, "GET", "/paid/a").head());
                assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
                paid.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 1..=20 {
            let price = format!("0.{:02} USD", 1 + round % 7);
            // Other terms each time: what was offered under the ones before stays good.
            let terms = format!("example.com/terms{}", round % 3);
            let next = toml.replace("0.01 USD", &price).replace("example.com/terms", &terms);
            reload(&gateway, &next, TAKEN, round);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 0 && paid.load(Ordering::Relaxed) > 0);
    let (_, dir) = gateway.stop();
    let (_, out, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(out.lines().count(), paid.load(Ordering::Relaxed));
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn secrets_rotate_without_a_restart() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&toml);
    let authority = gateway.addr.to_string();
    let file = gateway.dir.path().join("tollgate-secret.json");
    let read = || -> Value { serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap() };
    let (_, id) = offered(&gateway, "/paid/a");
    // Another key signs from now on; the first one still opens.
    let (first, next) = (read()[0].clone(), json!("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"));
    let second = json!({"n": 2, "secret": next, "sign_from": 1, "revoked": false});
    std::fs::write(&file, json!([first, second]).to_string()).unwrap();
    reload(&gateway, &toml, TAKEN, 1);
    let paid = exchange(gateway.addr, agent.signed(&authority, "GET", "/paid/a", &id).head());
    assert_eq!(paid.status, 200, "an id under the first key: {}", paid.reason());
    let (_, id) = offered(&gateway, "/paid/a");
    // Revoked, it is worth nothing at once.
    let mut revoked = second;
    revoked["revoked"] = json!(true);
    std::fs::write(&file, json!([first, revoked]).to_string()).unwrap();
    reload(&gateway, &toml, TAKEN, 2);
    let paid = exchange(gateway.addr, agent.signed(&authority, "GET", "/paid/a", &id).head());
    assert_eq!(paid.status, 402, "{}", paid.text());
    assert_eq!(exchange(gateway.addr, agent.request(gateway.addr, "GET", "/paid/a").head()).status, 200);
}

#[test]
fn what_is_logged_changes_with_the_file() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&format!("{toml}\n[telemetry]\nlog = \"info\"\n"));
    reload(&gateway, &format!("{toml}\n[telemetry]\nlog = \"debug\"\n"), TAKEN, 1);
    let mut socket = std::net::TcpStream::connect(gateway.addr).unwrap();
    std::io::Write::write_all(&mut socket, b"\0\0\0\r\n\r\n").unwrap();
    drop(socket);
    let since = Instant::now();
    while !gateway.log().contains("DEBUG") {
        assert!(since.elapsed() < PATIENCE, "{}", gateway.log());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
