//! What the origin and the client get: exactly what any free request gets, whatever is down.

use std::io::Write as _;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::support::agent::Signed;
use crate::support::*;
use crate::{ask, entries, is_free, observed, observed_in, short};

/// Pages that are observed below `/paid/` and free below `/free/`.
const MODE: &str = "accept = [\"crawl\", \"deferred\"]\nmode = \"observe\"\n[identity]\ncrawlers = [\"MyBot\"]\n";

fn crawl(agent: &Agent, gateway: &Gateway, path: &str) -> Signed {
    agent.signed_in("crawler-exact-price", gateway.addr, path, "USD 0.01")
}

#[test]
fn the_origin_gets_what_a_free_request_gets_and_so_does_the_client() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, MODE));
    let lies = "Tollgate-Agent: https://x.example\r\nCf-Pay-Per-Crawl: yes\r\nX-Forwarded-For: 192.0.2.1\r\nRange: bytes=0-1\r\n";
    let heads = |path: &str| {
        let plain = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", gateway.addr);
        let close = "Connection: close\r\n\r\n";
        [
            format!("{plain}{lies}{close}"),
            format!("{plain}Payment: nonsense\r\nX-PAYMENT: e30=\r\n{close}"),
            format!("{plain}PAYMENT-SIGNATURE: {}\r\n{close}", "A".repeat(5000)),
            format!("{plain}crawler-max-price: USD 1\r\nSignature: sig1=:AAAA:\r\n{close}"),
            crawl(&agent, &gateway, path).head(),
            crawl(&agent, &gateway, path).with(|r| r.key = Agent::start().key).head(),
            agent.signed(&gateway.addr.to_string(), "GET", path, &"A".repeat(64)).head(),
        ]
    };
    for (observed, free) in heads("/paid/page").iter().zip(heads("/free/page")) {
        let seen = [observed, &free].map(|head| {
            let answer = exchange(gateway.addr, head);
            assert_eq!(answer.status, 200, "{head}: {answer:?}");
            is_free(&answer);
            let seen = origin.last();
            assert_eq!(answer.text(), format!("content of {}", seen.path()));
            let own: Vec<_> = answer.headers.into_iter().filter(|(name, _)| name != "date").collect();
            // Signatures go on as they came, and differ by themselves.
            let signed = |name: &str| name.to_ascii_lowercase().starts_with("signature");
            let headers: Vec<_> = seen.headers.into_iter().filter(|(name, _)| !signed(name)).collect();
            let names: Vec<_> = origin.last().headers.into_iter().map(|(name, _)| name).collect();
            (headers, names, own.into_iter().filter(|(name, _)| name != "content-length").collect::<Vec<_>>())
        });
        assert_eq!(seen[0], seen[1], "{observed}");
    }
    let (_, dir) = gateway.stop();
    assert!(entries(dir.path()).is_empty());
    assert_eq!(
        short(&observed_in(dir.path(), "scheme")),
        [
            "1 0 2 0.00 0.01 {\"invalid_payment\":1,\"several_payments\":1}",
            "crawl 0 1 2 0.01 0.00 {\"invalid_signature\":1,\"signature_required\":1}",
            "deferred 0 0 1 0.00 0.00 {\"unknown_offer\":1}",
        ]
    );
}

#[test]
fn who_asks_is_named_as_far_as_anybody_knows_it() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, MODE));
    for name in
        ["Mozilla/5.0 (compatible; GPTBot/1.2)", "mybot", "Mozilla/5.0 Firefox/140.0", "https://evil.example/<a>"]
    {
        is_free(&ask(&gateway, "/paid/a", &[&format!("User-Agent: {name}")]));
    }
    ask(&gateway, "/paid/b", &[]);
    assert_eq!(exchange(gateway.addr, crawl(&agent, &gateway, "/paid/c").head()).status, 200);
    let rows = short(&observed(gateway, "account,agent"));
    let paid = format!("acme {} 0 1 0 0.01 0.00 {{}}", agent.url);
    let others =
        ["unknown gptbot 1 0 0 0.00 0.01 {}", "unknown mybot 1 0 0 0.00 0.01 {}", "unknown other 3 0 0 0.00 0.03 {}"];
    assert_eq!(rows, [&[&*paid][..], &others].concat());
}

#[test]
fn people_on_a_route_for_agents_are_not_observed_and_rules_count_as_they_would() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let rules = format!(
        "[[routes]]\nname = \"news\"\npath = \"/news/*\"\nprice = \"0.01 USD\"\ncharge = \"agents\"\nmode = \"observe\"\n\
         accept = [\"crawl\"]\n[[routes.agents]]\nuser_agent = \"CCBot\"\nblock = true\n[[routes.agents]]\nuser_agent = \
         \"Dear\"\nprice = \"1 USD\"\n[[routes.agents]]\nagent = \"{}\"\nallow = true\n[[routes.agents]]\naddresses = \
         [\"192.0.2.0/24\"]\nallow = true\n",
        agent.url
    );
    let toml = site_toml(&origin, &agent, &rules)
        .replacen("[origin]", "trusted_proxies = [\"127.0.0.1\"]\n[origin]", 1)
        .replacen("[origin]", "[server.limits]\nagent_requests_per_minute = 1\nagent_requests_burst = 1\n[origin]", 1);
    let gateway = Gateway::start(&toml);
    let firefox = format!("User-Agent: {}", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0");
    for lines in [&[&*firefox][..], &["User-Agent: CCBot/2.0"], &["User-Agent: Dear"], &["X-Forwarded-For: 192.0.2.1"]]
    {
        let answer = ask(&gateway, "/news/a", lines);
        assert_eq!(answer.status, 200, "{lines:?}");
        is_free(&answer);
    }
    // Proven to have it free, again and again: what is observed uses up nothing.
    let signed = agent.signed_in("x-nothing", gateway.addr, "/news/a", "").with(|r| {
        r.covers = ["@authority", "signature-agent;sig1"].map(String::from).to_vec();
    });
    for _ in 0..3 {
        assert_eq!(exchange(gateway.addr, signed.head()).status, 200);
    }
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    // Somebody who shows a signature that is not one.
    assert_eq!(ask(&gateway, "/news/a", &["User-Agent: mine", "Signature: x"]).status, 200);
    let rows = short(&observed(gateway, "agent"));
    assert_eq!(rows, ["ccbot 0 0 1 0.00 0.00 {\"agent_blocked\":1}", "other 2 0 0 0.00 1.01 {}"]);
}

#[test]
fn a_preflight_is_the_origins_to_answer() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, MODE));
    let host = gateway.addr;
    let preflight = format!(
        "OPTIONS /paid/a HTTP/1.1\r\nHost: {host}\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n\
         Access-Control-Request-Headers: payment-signature\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(exchange(host, preflight).text(), "content of /paid/a");
}

#[test]
fn only_what_would_have_been_charged_would_have_earned() {
    let origin = Origin::scripted(|seen, socket| {
        let status = if seen.path().ends_with("none") { "404 Not Found" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let agent = Agent::start();
    let gateway = Gateway::start(&site_toml(&origin, &agent, MODE));
    assert_eq!(exchange(gateway.addr, crawl(&agent, &gateway, "/paid/none").head()).status, 404);
    assert_eq!(ask(&gateway, "/paid/none", &[]).status, 404);
    assert_eq!(short(&observed(gateway, "route")), ["/paid/* 1 1 0 0.00 0.00 {}"]);
}

#[test]
fn a_directory_that_hangs_holds_nobody_up() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let slow = Origin::scripted(move |_, _| {
        *count.lock().unwrap() += 1;
        let _ = held.lock().unwrap().recv();
        false
    });
    let slow_url = format!("http://{}", slow.addr);
    let account = format!("[[accounts]]\nname = \"slow\"\nagents = [\"{slow_url}\"]\ncredit = \"1 USD\"\n");
    let gateway = Gateway::start(&site_toml(&origin, &agent, &(MODE.to_owned() + &account)));
    let request = crawl(&agent, &gateway, "/paid/a").with(|r| r.agent = format!("sig1=\"{slow_url}\""));
    let answer = exchange(gateway.addr, request.head());
    assert_eq!((answer.status, answer.text().as_str()), (200, "content of /paid/a"));
    is_free(&answer);
    // The directory is asked, and has not answered yet.
    let since = std::time::Instant::now();
    while *asked.lock().unwrap() == 0 {
        assert!(since.elapsed() < client::PATIENCE);
        std::thread::yield_now();
    }
    release.send(()).unwrap();
    drop(release);
    // Nobody waits for it, and the books get it.
    let path = gateway.ledger();
    loop {
        let rows = crate::lines(path.parent().unwrap(), &["ledger", "observed", "--by", "scheme", "--json"]);
        if !rows.is_empty() {
            assert_eq!(short(&rows), ["crawl 0 0 1 0.00 0.00 {\"directory_unavailable\":1}"]);
            break;
        }
        assert!(since.elapsed() < client::PATIENCE, "{}", gateway.log());
    }
}

#[test]
fn books_that_are_out_of_reach_hold_nobody_up_and_get_it_later() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let disk = dir.path().join("disk");
    let more = format!(
        "{MODE}[[routes]]\npath = \"/sold\"\nprice = \"1 USD\"\n[ledger]\nurl = \"sqlite:{}\"\n",
        disk.join("tollgate.sqlite").display()
    );
    let gateway = Gateway::start(&site_toml(&origin, &agent, &more));
    let first = ask(&gateway, "/paid/a", &[]);
    assert_eq!((first.status, first.text().as_str()), (200, "content of /paid/a"));
    assert_eq!(exchange(gateway.addr, crawl(&agent, &gateway, "/paid/b").head()).status, 200);
    assert_eq!(ask(&gateway, "/sold", &[]).status, 503);
    std::fs::create_dir(&disk).unwrap();
    let since = std::time::Instant::now();
    while ask(&gateway, "/sold", &[]).status == 503 {
        assert!(since.elapsed() < client::PATIENCE, "{}", gateway.log());
    }
    let (status, _files) = gateway.stop();
    assert!(status.success());
    // A bid needs no books to be judged.
    assert_eq!(short(&observed_in(&disk, "scheme")), ["1 0 0 0.00 0.01 {}", "crawl 0 1 0 0.01 0.00 {}"]);
}

#[test]
fn verdicts_that_are_under_way_are_bounded_and_what_has_none_is_counted_as_such() {
    // In one piece: many small ones are acknowledged slowly.
    let origin =
        Origin::scripted(|_, socket| socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok());
    let agent = Agent::start();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let slow = Origin::scripted(move |_, _| {
        let _ = held.lock().unwrap().recv();
        false
    });
    let slow_url = format!("http://{}", slow.addr);
    let account = format!("[[accounts]]\nname = \"slow\"\nagents = [\"{slow_url}\"]\ncredit = \"1 USD\"\n");
    let toml = site_toml(&origin, &agent, &(MODE.to_owned() + "fetch_seconds = 60\n" + &account));
    let gateway =
        Gateway::start(&toml.replace("cores = 2", "cores = 1").replace("drain_seconds = 2", "drain_seconds = 9"));
    let request = crawl(&agent, &gateway, "/paid/a").with(|r| r.agent = format!("sig1=\"{slow_url}\""));
    let mut connection = client::Connection::open(gateway.addr);
    for _ in 0..300 {
        assert_eq!(connection.send(request.head_with("")).unwrap().status, 200);
    }
    drop(release);
    drop(connection);
    let rows = observed(gateway, "scheme");
    assert_eq!(
        (&rows[0]["requests"], &rows[0]["refused"], &rows[0]["unjudged"]),
        (&300.into(), &256.into(), &44.into())
    );
    assert_eq!(rows[0]["refusals"]["directory_unavailable"], 256);
}
