//! What the gateway says about itself: alive, ready, counts, and a line for each request.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{Answer, PATIENCE, exchange, get};
use crate::support::gateway::tollgate;
use crate::support::*;

fn site(origin: &Origin, agent: &Agent, more: &str) -> Gateway {
    Gateway::start(&(site_toml(origin, agent, "name = \"pages\"\n") + "\n[admin]\nlisten = [\"127.0.0.1:0\"]\n" + more))
}

fn ask(addr: SocketAddr, path: &str, fields: &str) -> Answer {
    exchange(addr, format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{fields}\r\n"))
}

fn metric(gateway: &Gateway, line: &str) -> Option<u64> {
    let text = ask(gateway.admin.unwrap(), "/metrics", "").text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

/// Looks until it is so.
fn wait_for<T>(what: impl Fn() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "it did not come about");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn what_was_served_is_counted() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "");
    for _ in 0..3 {
        get(gateway.addr, "/free");
    }
    get(gateway.addr, "/paid/a");
    let signed = agent.request(gateway.addr, "GET", "/paid/b");
    assert_eq!(exchange(gateway.addr, signed.head()).status, 200);
    assert_eq!(exchange(gateway.addr, signed.head()).status, 402);
    exchange(gateway.addr, format!("GET /paid/../x HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.addr));
    let requests = |route: &str, verdict: &str| {
        metric(&gateway, &format!("tollgate_requests_total{{route=\"{route}\",verdict=\"{verdict}\"}}"))
    };
    assert_eq!(requests("", "free"), Some(3));
    assert_eq!(requests("pages", "offered"), Some(2));
    assert_eq!(requests("pages", "paid"), Some(1));
    assert_eq!(requests("pages", "refused"), Some(1));
    assert_eq!(requests("", "refused"), Some(1));
    assert_eq!(metric(&gateway, "tollgate_refusals_total{reason=\"already_used\"}"), Some(1));
    assert_eq!(metric(&gateway, "tollgate_refusals_total{reason=\"ambiguous_path\"}"), Some(1));
    assert_eq!(metric(&gateway, "tollgate_charged_millionths_total{route=\"pages\",currency=\"USD\"}"), Some(10_000));
    assert_eq!(metric(&gateway, "tollgate_request_duration_seconds_count{verdict=\"paid\"}"), Some(1));
    assert_eq!(metric(&gateway, "tollgate_ready"), Some(1));
    // Counts go on over a reload, by the routes' names.
    gateway.signal("HUP");
    wait_for(|| (metric(&gateway, "tollgate_reloads_total{result=\"taken\"}") == Some(1)).then_some(()));
    get(gateway.addr, "/free");
    assert_eq!(requests("", "free"), Some(4));
    assert_eq!(requests("pages", "paid"), Some(1));
}

#[test]
fn what_the_http_layer_refuses_by_itself_is_counted_and_has_a_line() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml =
        site_toml(&origin, &agent, "[admin]\nlisten = [\"127.0.0.1:0\"]\n[telemetry]\naccess_log = \"access.log\"\n");
    let gateway = Gateway::start(&toml.replacen("[origin]", "[server.limits]\nheader_bytes = 100000\n[origin]", 1));
    let host = format!("Host: {}\r\n", gateway.addr);
    let refused = [
        ("nonsense\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET /\u{1} HTTP/1.1\r\n{host}\r\n"), 400, "bad_request"),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(66_000)), 414, "url_too_long"),
        (format!("GET / HTTP/1.1\r\n{host}A: {}\r\n\r\n", "a".repeat(400_000)), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: a\r\n".repeat(200)), 431, "headers_too_large"),
    ];
    for (head, status, _) in &refused {
        assert_eq!(exchange(gateway.addr, head).status, *status, "{}", &head[..40.min(head.len())]);
    }
    // A client that goes away in the middle of a head was not answered.
    drop(crate::support::client::Connection::open(gateway.addr).socket.try_clone());
    wait_for(|| {
        let count = metric(&gateway, "tollgate_requests_total{route=\"\",verdict=\"refused\"}");
        (count == Some(refused.len() as u64)).then_some(())
    });
    for (reason, count) in [("bad_request", 2), ("url_too_long", 1), ("headers_too_large", 2)] {
        assert_eq!(
            metric(&gateway, &format!("tollgate_refusals_total{{reason=\"{reason}\"}}")),
            Some(count),
            "{reason}"
        );
    }
    let (_, dir) = gateway.stop();
    let log = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut told: Vec<_> =
        lines.iter().map(|line| (line["status"].as_u64().unwrap(), line["reason"].as_str().unwrap())).collect();
    let mut expect: Vec<_> = refused.iter().map(|(_, status, reason)| (*status as u64, *reason)).collect();
    // A line is written when its connection has ended, which two threads see to: in any order.
    told.sort_unstable();
    expect.sort_unstable();
    assert_eq!(told, expect);
    assert!(
        lines.iter().all(|line| line["client"] == "127.0.0.1" && line["path"] == "" && line["verdict"] == "refused")
    );
}

#[test]
fn readiness_says_what_is_wrong() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "");
    let admin = gateway.admin.unwrap();
    assert_eq!(ask(admin, "/healthz", "").text(), "ok\n");
    assert_eq!(ask(admin, "/readyz", "").json(), serde_json::json!({"ready": true, "problems": []}));
    assert_eq!(ask(admin, "/else", "").status, 404);
    let post = exchange(admin, "POST /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    std::fs::rename(gateway.ledger(), gateway.dir.path().join("away.sqlite")).unwrap();
    let not_ready = wait_for(|| Some(ask(admin, "/readyz", "")).filter(|answer| answer.status == 503));
    assert_eq!(not_ready.json()["problems"][0]["of"], "ledger");
    assert_eq!(ask(admin, "/healthz", "").status, 200, "it lives");
    assert_eq!(get(gateway.addr, "/free").status, 200);
    assert_eq!(metric(&gateway, "tollgate_ledger_open"), Some(0));
    std::fs::rename(gateway.dir.path().join("away.sqlite"), gateway.ledger()).unwrap();
    wait_for(|| (ask(admin, "/readyz", "").status == 200).then_some(()));
}

#[test]
fn a_token_guards_counts_and_reasons_but_not_probes() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("token"), "0123456789abcdef\n").unwrap();
    let toml = site_toml(&origin, &agent, "") + "\n[admin]\nlisten = [\"127.0.0.1:0\"]\ntoken_file = \"token\"\n";
    let gateway = Gateway::start_in(dir, &toml);
    let admin = gateway.admin.unwrap();
    assert_eq!(ask(admin, "/healthz", "").status, 200);
    assert_eq!(ask(admin, "/readyz", "").status, 200);
    for fields in ["", "Authorization: Bearer 0123456789abcdeg\r\n", "Authorization: Basic 0123456789abcdef\r\n"] {
        let refused = ask(admin, "/metrics", fields);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    }
    assert_eq!(ask(admin, "/metrics", "Authorization: bearer 0123456789abcdef\r\n").status, 200);
    // Another token, and no restart.
    std::fs::write(gateway.dir.path().join("token"), "fedcba9876543210").unwrap();
    gateway.signal("HUP");
    wait_for(|| (ask(admin, "/metrics", "Authorization: Bearer fedcba9876543210\r\n").status == 200).then_some(()));
    assert_eq!(ask(admin, "/metrics", "Authorization: Bearer 0123456789abcdef\r\n").status, 401);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "short").unwrap();
    std::fs::write(dir.path().join("tollgate.toml"), toml).unwrap();
    let (code, _, err) = tollgate(dir.path(), &["run", "-c", "tollgate.toml"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("token: expected one line of at least 16 visible characters"), "{err}");
}

#[test]
fn before_it_drains_it_says_so_and_goes_on() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml =
        site_toml(&origin, &agent, "").replace("drain_seconds = 2", "drain_seconds = 2\ndrain_delay_seconds = 2");
    let gateway = Gateway::start(&(toml + "\n[admin]\nlisten = [\"127.0.0.1:0\"]\n"));
    gateway.term();
    let not_ready = wait_for(|| Some(ask(gateway.admin.unwrap(), "/readyz", "")).filter(|answer| answer.status == 503));
    assert_eq!(not_ready.json()["problems"][0]["of"], "draining");
    assert_eq!(get(gateway.addr, "/free").status, 200, "it still accepts");
    assert!(gateway.wait().success());
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // One that is being written has no end yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn each_request_has_a_line_and_no_secret_is_in_it() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "[telemetry]\naccess_log = \"access.log\"\n");
    let log = gateway.dir.path().join("access.log");
    get(gateway.addr, "/free?token=hidden");
    let signed = agent.request(gateway.addr, "GET", "/paid/b?token=hidden");
    assert_eq!(exchange(gateway.addr, signed.head()).status, 200);
    assert_eq!(exchange(gateway.addr, signed.head()).status, 402);
    ask(gateway.admin.unwrap(), "/healthz", "");
    let hostile = "GET /\u{9b}31m\u{202e}\u{2028} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(gateway.addr, hostile).status, 200);
    let found = wait_for(|| Some(lines(&log)).filter(|lines| lines.len() >= 5));
    let of = |i: usize, name: &str| found[i][name].as_str().unwrap_or_default().to_owned();
    let verdicts: Vec<String> = (0..4).map(|i| of(i, "verdict")).collect();
    assert_eq!(verdicts, ["free", "offered", "paid", "refused"]);
    assert_eq!(
        (of(0, "path").as_str(), of(0, "route").as_str(), &found[0]["bytes"]),
        ("/free", "", &"content of /free?token=hidden".len().into())
    );
    assert_eq!((of(1, "reason").as_str(), &found[1]["status"]), ("payment_required", &402.into()));
    assert_eq!((of(3, "reason").as_str(), of(3, "route").as_str()), ("already_used", "pages"));
    let paid = &found[2];
    assert_eq!((&paid["account"], &paid["units"], &paid["asset"]), (&"acme".into(), &10_000.into(), &"USD".into()));
    assert_eq!((&paid["agent"], &paid["scheme"]), (&agent.url.to_string().into(), &"deferred".into()));
    assert_eq!(paid["client"], "127.0.0.1");
    assert!(paid["total_ms"].as_f64().unwrap() >= paid["head_ms"].as_f64().unwrap());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.is_ascii() && text.contains("/%C2%9B31m%E2%80%AE%E2%80%A8"), "{text}");
    assert!(!text.contains("hidden") && !text.contains("sig1"), "{text}");
    // The entry is the one in the books.
    let entry = paid["entry"].to_string();
    // Moved away, it is opened anew.
    std::fs::rename(&log, log.with_extension("1")).unwrap();
    gateway.signal("HUP");
    wait_for(|| {
        get(gateway.addr, "/free");
        (!lines(&log).is_empty()).then_some(())
    });
    let (_, dir) = gateway.stop();
    let (_, out, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert!(out.contains(&entry), "{entry} in {out}");
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_start() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let toml = site_toml(&origin, &agent, "") + "\n[telemetry]\naccess_log = \"no/where/access.log\"\n";
    std::fs::write(dir.path().join("tollgate.toml"), toml).unwrap();
    let (code, _, err) = tollgate(dir.path(), &["run", "-c", "tollgate.toml"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("telemetry.access_log: No such file"), "{err}");
}
