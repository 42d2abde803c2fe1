//! kill -9 at a moment that the seed picks, while agents pay; again and again over the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use crate::support::agent::Signed;
use crate::support::client::Connection;
use crate::support::random::is_long;
use crate::support::*;

/// Requests are signed for this host, so that they stay good when a restarted gateway has another port.
const HOST: &str = "shop.example";
const CLIENTS: usize = 8;

/// What one client knows about one of its payments.
#[derive(Clone, Debug)]
struct Held {
    id: String,
    head: String,
    /// Bytes of a 200 were seen.
    served: bool,
    /// Answers of the origin that were not charged.
    released: usize,
    /// The connection ended before an answer began: anything may have happened.
    unresolved: usize,
}

#[test]
fn what_clients_hold_is_in_the_books_once_after_every_kill_9() {
    let mut random = Random::new(1);
    let (events, heard) = mpsc::channel::<()>();
    let origin = flaky_origin(events.clone());
    let agent = Agent::start();
    let config = site_toml(&origin, &agent, "");
    let mut dir = tempfile::tempdir().unwrap();
    let mut held: BTreeMap<String, Held> = BTreeMap::new();
    let next_page = AtomicUsize::new(0);
    for round in 0..if is_long() { 100 } else { 5 } {
        let gateway = Gateway::start_in(dir, &config);
        let addr = gateway.addr;
        // Those left open by the last kill: charged and refused, or never charged and served now.
        for payment in held.values_mut().filter(|p| !p.served) {
            settle(addr, payment);
        }
        while heard.try_recv().is_ok() {}
        let kill_at = 10 + random.below(120);
        let (new, killed) = std::thread::scope(|scope| {
            let client = || buy_until_cut(addr, &agent, &next_page, &events);
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            for _ in 0..kill_at {
                heard.recv().unwrap();
            }
            let killed = gateway.kill();
            (clients.into_iter().flat_map(|c| c.join().unwrap()).collect::<Vec<Held>>(), killed)
        });
        dir = killed;
        assert!(new.iter().filter(|p| !p.served).count() <= CLIENTS, "a client went on after its connection ended");
        held.extend(new.into_iter().map(|p| (p.id.clone(), p)));
        compare(&Books::read(dir.path()), &held, &origin, round);
    }
    let books = Books::read(dir.path());
    let sold = books.charged();
    // Credit counts what the books hold, neither more nor less: with room for 3 more, 3 more are sold.
    let limit = format!("{}.{:02} USD", (sold + 3) / 100, (sold + 3) % 100);
    let gateway = Gateway::start_in(dir, &config.replace("1000 USD", &limit));
    let called = origin.calls();
    let mut redeemed = 0;
    for payment in held.values().filter(|p| p.served) {
        let mut answer = exchange(gateway.addr, &payment.head);
        // Of what the crash cut off nobody knows whether it was read: it is had once more, if it was not before.
        if books.state(&payment.id) == Some("unproven") && answer.status == 200 {
            redeemed += 1;
            answer = exchange(gateway.addr, &payment.head);
        }
        assert_eq!((answer.status, answer.reason()), (402, "already_used"), "a payment was taken again after a crash");
    }
    assert_eq!(origin.calls(), called + redeemed, "a replay reached the origin");
    for i in 0..3 {
        assert_eq!(buy(gateway.addr, &agent, &format!("/paid/more/{i}")).status, 200);
    }
    assert_eq!(buy(gateway.addr, &agent, "/paid/over").reason(), "credit_exhausted");
    let (status, dir) = gateway.stop();
    assert!(status.success(), "{status}");
    assert_eq!(Books::read(dir.path()).charged(), sold + 3);
}

/// 200 with a body of a few pages; every seventh page fails on its first try.
fn flaky_origin(events: mpsc::Sender<()>) -> Origin {
    let failed = Mutex::new(BTreeSet::new());
    let events = Mutex::new(events);
    Origin::scripted(move |seen, socket| {
        let _ = events.lock().unwrap().send(());
        let page: usize = seen.path().rsplit('/').next().and_then(|p| p.parse().ok()).unwrap_or(1);
        if page.is_multiple_of(7) && failed.lock().unwrap().insert(page) {
            return write!(socket, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").is_ok();
        }
        let body = "x".repeat(page % 5 * 4000);
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    })
}

fn offer_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

fn signed(agent: &Agent, path: &str, offer: &Answer) -> Signed {
    let id = offer.json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned();
    agent.signed(HOST, "GET", path, &id)
}

fn buy(addr: SocketAddr, agent: &Agent, path: &str) -> Answer {
    let offer = Connection::open(addr).send(offer_request(path)).unwrap();
    exchange(addr, signed(agent, path, &offer).head())
}

/// Buys page after page over one connection, until it ends; returns every payment that was sent.
fn buy_until_cut(addr: SocketAddr, agent: &Agent, next_page: &AtomicUsize, events: &mpsc::Sender<()>) -> Vec<Held> {
    let mut held = Vec::new();
    let Some(mut connection) = connect(addr) else { return held };
    loop {
        let path = format!("/paid/{}", next_page.fetch_add(1, Ordering::Relaxed));
        let Some(offer) = connection.send(offer_request(&path)).filter(|o| !o.truncated) else { return held };
        assert_eq!(offer.status, 402, "{offer:?}");
        let request = signed(agent, &path, &offer);
        let id = request.payment.rsplit('"').nth(1).unwrap().to_owned();
        let mut payment = Held { id, head: request.head_with(""), served: false, released: 0, unresolved: 0 };
        while !payment.served {
            connection.write(&payment.head);
            if !is_answered(&mut connection, &mut payment) {
                payment.unresolved += 1;
                held.push(payment);
                return held;
            }
        }
        let _ = events.send(());
        held.push(payment);
    }
}

/// Reads an answer, however little of it came; false when there was none.
fn is_answered(connection: &mut Connection, payment: &mut Held) -> bool {
    let begun = connection.reader.fill_buf().map(|b| b.starts_with(b"HTTP/1.1 200")).unwrap_or(false);
    payment.served = begun;
    let Some(answer) = connection.read(false) else { return begun };
    match answer.status {
        200 => assert!(answer.header("payment-response").is_some(), "{answer:?}"),
        500 => payment.released += 1,
        _ => panic!("{answer:?} {}", answer.text()),
    }
    true
}

fn connect(addr: SocketAddr) -> Option<Connection> {
    // The gateway may have been killed by now.
    let socket = std::net::TcpStream::connect(addr).ok()?;
    socket.set_read_timeout(Some(client::PATIENCE)).ok()?;
    let reader = std::io::BufReader::new(socket.try_clone().ok()?);
    Some(Connection { socket, reader })
}

/// Sends a payment of unknown fate again: each ends as served or as used.
fn settle(addr: SocketAddr, payment: &mut Held) {
    for _ in 0..3 {
        let answer = Connection::open(addr).send(&payment.head).expect("no answer");
        match (answer.status, answer.reason()) {
            (200, _) => {
                assert!(answer.header("payment-response").is_some());
                payment.served = true;
                return;
            }
            (402, "already_used") => {
                // It was captured before the crash, and the answer never left.
                payment.served = true;
                return;
            }
            (500, _) => payment.released += 1,
            _ => panic!("{answer:?} {}", answer.text()),
        }
    }
    panic!("a payment is neither served nor used");
}

fn compare(books: &Books, held: &BTreeMap<String, Held>, origin: &Origin, round: usize) {
    for payment in held.values().filter(|p| p.served) {
        assert!(books.has(&payment.id), "round {round}: served, but not in the books: {payment:?}");
    }
    let served = held.values().filter(|p| p.served).count();
    let open = held.values().filter(|p| !p.served).count();
    assert!(books.captures.len() >= served && books.captures.len() <= served + open, "round {round}");
    let ours: BTreeSet<String> = held.keys().map(|id| books::key_of(id)).collect();
    assert!(books.captures.keys().all(|key| ours.contains(key)), "round {round}: a capture that nobody paid for");
    assert_eq!(books.voids.len(), 0, "round {round}");
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for seen in origin.seen() {
        *calls.entry(seen.header("tollgate-payment-id").expect("unpaid at the origin").to_owned()).or_default() += 1;
    }
    for (id, calls) in calls {
        let payment = &held[&id];
        let allowed = 1 + payment.released + payment.unresolved;
        assert!(calls <= allowed, "round {round}: {calls} origin calls: {payment:?}");
    }
}
