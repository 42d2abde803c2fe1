//! kill -9 over an answer on credit: nobody knows whether it left, so the identical signed request has it once more, uncharged.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::agent::Signed;
use crate::support::client::Connection;
use crate::support::gateway::tollgate;
use crate::support::*;

/// Requests are signed for this host, so that they stay good when a restarted gateway has another port.
const HOST: &str = "shop.example";

/// An origin whose first answers stop in the middle until the gateway is gone; later ones are whole.
fn stops(first: usize) -> Origin {
    let calls = AtomicUsize::new(0);
    Origin::scripted(move |_, socket| {
        let is_first = calls.fetch_add(1, Ordering::Relaxed) < first;
        let part = if is_first { "pa" } else { "page" };
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{part}").unwrap();
        !is_first || socket.read(&mut [0]).is_err()
    })
}

fn offered(gateway: &Gateway, agent: &Agent, method: &str, path: &str) -> Signed {
    let offer =
        exchange(gateway.addr, format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"));
    let id = offer.json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned();
    agent.signed(HOST, method, path, &id)
}

/// Sends each, waits until all are charged, and kills the gateway over their answers.
fn cut_off(gateway: Gateway, requests: &[String]) -> tempfile::TempDir {
    let addr = gateway.addr;
    let readers: Vec<_> = requests
        .iter()
        .map(|request| {
            let mut connection = Connection::open(addr);
            connection.write(request);
            std::thread::spawn(move || connection.read(false))
        })
        .collect();
    let captured = "SELECT count(*) FROM entries WHERE kind = 1";
    let sql = rusqlite::Connection::open(gateway.dir.path().join("tollgate.sqlite")).unwrap();
    while sql.query_row(captured, (), |row| row.get::<_, i64>(0)).unwrap() < requests.len() as i64 {
        std::thread::yield_now();
    }
    drop(sql);
    let dir = gateway.kill();
    readers.into_iter().for_each(|reader| _ = reader.join().unwrap());
    dir
}

fn spent(answer: &Answer) {
    assert_eq!((answer.status, answer.reason()), (402, "already_used"), "{answer:?}");
}

#[test]
fn what_a_crash_cut_off_is_had_once_more_by_the_identical_request_and_charged_once() {
    let (origin, agent) = (stops(1), Agent::start());
    let config = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&config);
    let request = offered(&gateway, &agent, "GET", "/paid/a").head();
    let mut dir = cut_off(gateway, std::slice::from_ref(&request));
    let books = Books::read(dir.path());
    assert_eq!((books.in_state("unproven"), books.charged()), (1, 1));
    let gateway = Gateway::start_in(dir, &config);
    let answer = exchange(gateway.addr, &request);
    assert_eq!((answer.status, answer.text().as_str()), (200, "page"), "{answer:?}");
    assert!(answer.header("payment-response").is_some());
    assert_eq!(origin.last().header("tollgate-attempt"), Some("2"));
    spent(&exchange(gateway.addr, &request));
    // Durable before its first byte: the next process knows.
    dir = gateway.kill();
    let gateway = Gateway::start_in(dir, &config);
    spent(&exchange(gateway.addr, &request));
    assert_eq!(origin.calls(), 2);
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.in_state("delivered"), books.charged(), books.redelivered.len()), (1, 1, 1));
}

#[test]
fn only_the_identical_request_of_a_safe_method_redeems() {
    let (origin, agent) = (stops(2), Agent::start());
    let config = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&config);
    let (get, post) = (offered(&gateway, &agent, "GET", "/paid/a"), offered(&gateway, &agent, "POST", "/paid/b"));
    let post = post.head_with("Content-Length: 0\r\n");
    // The same offer, signed anew: another nonce.
    let id = get.payment.rsplit('"').nth(1).unwrap().to_owned();
    let anew = agent.signed(HOST, "GET", "/paid/a", &id).with(|request| request.nonce = Some("other".into())).head();
    let head = agent.signed(HOST, "HEAD", "/paid/a", &id).head();
    let gateway = Gateway::start_in(cut_off(gateway, &[get.head(), post.clone()]), &config);
    assert_ne!(anew, get.head());
    for other in [&anew, &head, &post] {
        let answer = exchange(gateway.addr, other);
        assert_eq!(answer.status, 402, "{answer:?}");
    }
    let with_body = get.head_with("Content-Length: 2\r\n") + "ok";
    spent(&exchange(gateway.addr, &with_body));
    assert_eq!(origin.calls(), 2);
    // Of sixteen at once one has it.
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let sends: Vec<_> = (0..16).map(|_| scope.spawn(|| exchange(gateway.addr, get.head()))).collect();
        sends.into_iter().map(|send| send.join().unwrap()).collect()
    });
    let count = |reason: &str| answers.iter().filter(|answer| answer.reason() == reason).count();
    assert_eq!((count(""), count("already_used") + count("payment_in_flight")), (1, 15), "{answers:?}");
    assert_eq!(origin.calls(), 3);
}

#[test]
fn a_turn_that_gives_nothing_is_given_back_and_the_third_is_the_last() {
    let calls = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            return write!(socket, "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno").is_ok();
        }
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npa").unwrap();
        let _ = socket.read(&mut [0]);
        false
    });
    let agent = Agent::start();
    let config = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&config);
    let request = offered(&gateway, &agent, "GET", "/paid/a").head();
    let mut dir = cut_off(gateway, std::slice::from_ref(&request));
    // Killed in between, the turns begin anew.
    for turns in [2, 3] {
        let gateway = Gateway::start_in(dir, &config);
        for _ in 0..turns {
            let answer = exchange(gateway.addr, &request);
            assert_eq!((answer.status, answer.header("payment-response")), (500, None), "{answer:?}");
        }
        if turns == 3 {
            loop {
                let answer = exchange(gateway.addr, &request);
                if answer.reason() != "payment_in_flight" {
                    break spent(&answer);
                }
            }
        }
        dir = gateway.kill();
    }
    let gateway = Gateway::start_in(dir, &config);
    spent(&exchange(gateway.addr, &request));
    assert_eq!(origin.calls(), 6);
    let (_, dir) = gateway.stop();
    let (code, out, _) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert!(code == 0 && out.contains("1 unproven"), "the charge stands, and is listed: {out}");
    // The operator may still take it back.
    let void = ["ledger", "void", "--unproven", "--ledger", "tollgate.sqlite"];
    let (code, out, _) = tollgate(dir.path(), &void);
    assert_eq!((code, &*out), (0, "1 charge voided: 0.01 USD\n"));
}

#[test]
fn what_the_operator_voided_is_not_had_at_all() {
    let (origin, agent) = (stops(2), Agent::start());
    let config = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&config);
    let requests = ["/paid/a", "/paid/b"].map(|path| offered(&gateway, &agent, "GET", path).head());
    let gateway = Gateway::start_in(cut_off(gateway, &requests), &config);
    // By the gateway that runs, at once.
    let void = |dir: &std::path::Path, account: &str| {
        let args = ["ledger", "void", "--unproven", "--account", account, "--ledger", "tollgate.sqlite"];
        let (code, out, err) = tollgate(dir, &args);
        assert_eq!(code, 0, "{out}{err}");
        out
    };
    assert_eq!(exchange(gateway.addr, &requests[0]).status, 200);
    assert_eq!(void(gateway.dir.path(), "acme"), "1 charge voided: 0.01 USD\n");
    spent(&exchange(gateway.addr, &requests[1]));
    let gateway = Gateway::start_in(gateway.kill(), &config);
    spent(&exchange(gateway.addr, &requests[1]));
    assert_eq!(origin.calls(), 3);
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert!(code == 0 && out.contains("charged 0.01 USD in 2 captures less 1 void; 0 unproven"), "{out}{err}");
}

/// The price is the one of the charge, whatever the origin names by then.
#[test]
fn a_crawl_whose_price_the_origin_named_is_had_for_what_it_was_charged() {
    let calls = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        let is_first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        let (price, part) = if is_first { ("0.05", "pa") } else { ("0.07", "page") };
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCrawler-Price: USD {price}\r\n\r\n{part}").unwrap();
        !is_first || socket.read(&mut [0]).is_err()
    });
    let agent = Agent::start();
    let route = "price = \"0.01 USD\"\naccept = [\"crawl\"]\norigin_price = true\nmethods = [\"GET\"]\n";
    let config = site_toml(&origin, &agent, "").replace("price = \"0.01 USD\"\n", route);
    let gateway = Gateway::start(&config);
    let addr = gateway.addr;
    let request = agent.signed_in("crawler-max-price", addr, "/paid/a", "USD 0.10").head();
    let dir = cut_off(gateway, std::slice::from_ref(&request));
    let gateway = Gateway::start_in(dir, &config.replace("127.0.0.1:0", &addr.to_string()));
    let answer = exchange(addr, &request);
    assert_eq!((answer.status, answer.header("crawler-charged")), (200, Some("USD 0.05")), "{answer:?}");
    assert_eq!(answer.header("crawler-price"), None);
    let again = exchange(addr, &request);
    assert_eq!((again.status, again.reason()), (400, "signature_used"), "{again:?}");
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert!(code == 0 && out.contains("charged 0.05 USD in 1 capture less 0 voids; 0 unproven"), "{out}{err}");
}
