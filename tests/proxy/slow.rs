//! Slow, silent and endless clients end within their deadlines and harm nobody.

use std::io::Write as _;
use std::time::Instant;

use crate::support::client::{Connection, get};
use crate::support::*;

const LIMITS: &str =
    "[server.limits]\nheader_seconds = 1\nkeep_alive_seconds = 1\nbody_idle_seconds = 1\nwrite_stall_seconds = 1\n";

fn hurried(origin: &Origin, agent: &Agent) -> Gateway {
    Gateway::start(&site_toml(origin, agent, LIMITS))
}

#[test]
fn silence_and_slow_heads_end_the_connection() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = hurried(&origin, &agent);
    for start in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\nA: ", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let began = Instant::now();
        let mut connection = Connection::open(gateway.addr);
        connection.write(start);
        while !connection.closed() {}
        assert!(began.elapsed().as_secs() < 20, "{start:?}");
    }
    // After an answer: the keep-alive's time.
    let mut connection = Connection::open(gateway.addr);
    assert_eq!(connection.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 200);
    assert!(connection.closed());
}

#[test]
fn a_body_that_stops_is_408() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = hurried(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    let answer = connection.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhel").unwrap();
    assert_eq!((answer.status, answer.reason()), (408, "body_too_slow"));
}

#[test]
fn a_body_that_trickles_is_408() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = hurried(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    connection.write("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    let mut socket = connection.socket.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        // One byte whenever the kernel took the last: a client that always sends a little.
        while socket.write_all(b"x").is_ok() {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    });
    let answer = connection.read(false).unwrap();
    assert_eq!((answer.status, answer.reason()), (408, "body_too_slow"));
    drop(connection);
    writer.join().unwrap();
}

#[test]
fn a_client_that_takes_nothing_is_dropped_and_its_paid_answer_stays_charged() {
    let origin = Origin::scripted(|_, socket| {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let chunk = vec![b'x'; 64 * 1024];
        while socket.write_all(&chunk).is_ok() {}
        false
    });
    let agent = Agent::start();
    let gateway = hurried(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    connection.write(agent.request(gateway.addr, "GET", "/paid/big").head());
    let ledger = gateway.ledger();
    loop {
        let (_, out, _) = crate::support::gateway::tollgate(
            gateway.dir.path(),
            &["ledger", "list", "--json", "--ledger", ledger.to_str().unwrap()],
        );
        if out.contains("client_stalled") {
            assert_eq!(out.lines().count(), 1, "{out}");
            break;
        }
        assert!(!out.contains("origin_cut"), "{out}");
    }
}

#[test]
fn silent_clients_do_not_keep_others_waiting() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let silent: Vec<_> = (0..300).map(|_| Connection::open(gateway.addr)).collect();
    for i in 0..50 {
        let began = Instant::now();
        assert_eq!(get(gateway.addr, &format!("/{i}")).status, 200);
        assert!(began.elapsed().as_secs() < 5);
    }
    drop(silent);
}

#[test]
fn above_the_limit_of_connections_new_ones_are_closed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "[server.limits]\nconnections = 4\n").replace("cores = 2", "cores = 1");
    let gateway = Gateway::start(&toml);
    let mut open: Vec<_> = (0..4).map(|_| Connection::open(gateway.addr)).collect();
    for connection in &mut open {
        assert_eq!(connection.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 200);
    }
    assert!(Connection::open(gateway.addr).send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n").is_none());
    open.truncate(3);
    // The gateway hears of the end a moment later.
    while Connection::open(gateway.addr).send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n").is_none() {}
}

#[test]
fn above_the_limit_of_requests_the_answer_is_503() {
    let origin = Origin::scripted(|seen, socket| {
        if seen.path() == "/hold" {
            return std::io::Read::read(socket, &mut [0; 1]).is_err();
        }
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let agent = Agent::start();
    let toml =
        site_toml(&origin, &agent, "[server.limits]\nrequests_in_flight = 2\n").replace("cores = 2", "cores = 1");
    let gateway = Gateway::start(&toml);
    let mut held: Vec<_> = (0..2).map(|_| Connection::open(gateway.addr)).collect();
    held.iter_mut().for_each(|c| c.write("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"));
    while origin.calls() < 2 {
        std::thread::yield_now();
    }
    let answer = get(gateway.addr, "/a");
    assert_eq!((answer.status, answer.reason(), answer.header("retry-after")), (503, "overloaded", Some("1")));
    drop(held);
    while get(gateway.addr, "/a").status != 200 {}
}

#[test]
fn term_ends_what_is_open_and_then_the_process() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::scripted(move |_, socket| {
        let _ = wait.lock().unwrap().recv();
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let mut busy = Connection::open(gateway.addr);
    busy.write(agent.request(gateway.addr, "GET", "/paid/a").head_with(""));
    let mut idle = Connection::open(gateway.addr);
    assert_eq!(idle.send("GET /paid/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 402);
    while origin.calls() == 0 {
        std::thread::yield_now();
    }
    gateway.term();
    assert!(idle.closed());
    go.send(()).unwrap();
    let answer = busy.read(false).unwrap();
    assert_eq!((answer.status, answer.text().as_str(), answer.header("connection")), (200, "done", Some("close")));
    assert!(gateway.wait().success());
}

#[test]
fn a_flood_of_connections_is_a_line_a_second_with_their_number() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "[server.limits]\nconnections = 1\n").replace("cores = 2", "cores = 1");
    let gateway = Gateway::start(&toml);
    let mut held = Connection::open(gateway.addr);
    assert_eq!(held.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 200);
    let began = Instant::now();
    for _ in 0..100 {
        assert!(Connection::open(gateway.addr).closed());
    }
    let told = || -> Vec<u64> {
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains("the limit of open connections is reached"));
        lines.map(|line| line.split("closed=").nth(1).unwrap().trim().parse().unwrap()).collect()
    };
    while told().iter().sum::<u64>() < 100 {
        assert!(began.elapsed() < crate::support::client::PATIENCE, "{:?}", told());
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    assert!(told().len() as u64 <= began.elapsed().as_secs() + 2, "{:?}", told());
}

#[test]
fn an_upload_that_stops_is_the_clients_fault_also_when_the_origin_may_take_less_time() {
    let agent = Agent::start();
    let origin = Origin::start();
    let more = "[server.limits]\nbody_idle_seconds = 3\n";
    let toml = site_toml(&origin, &agent, more).replace("[deferred]", "head_seconds = 1\n[deferred]");
    let gateway = Gateway::start(&toml);
    let mut connection = Connection::open(gateway.addr);
    let answer = connection.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhel").unwrap();
    assert_eq!((answer.status, answer.reason()), (408, "body_too_slow"));

    // An origin that takes the whole body and says nothing is late, counted from the last byte.
    let origin = Origin::scripted(|_, socket| std::io::Read::read(socket, &mut [0; 1]).is_err());
    let toml = site_toml(&origin, &agent, more).replace("[deferred]", "head_seconds = 1\n[deferred]");
    let gateway = Gateway::start(&toml);
    let mut connection = Connection::open(gateway.addr);
    connection.write("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhel");
    std::thread::park_timeout(std::time::Duration::from_millis(1500));
    let whole = Instant::now();
    let answer = connection.send("lo, you").unwrap();
    assert_eq!((answer.status, answer.reason()), (504, "origin_timeout"));
    let took = whole.elapsed().as_millis();
    assert!((900..3000).contains(&took), "{took} ms");
}

#[test]
fn a_second_term_ends_the_drain_and_says_so() {
    let origin = Origin::scripted(|_, socket| std::io::Read::read(socket, &mut [0; 1]).is_err());
    let agent = Agent::start();
    let toml = site_toml(&origin, &agent, "").replace("drain_seconds = 2", "drain_seconds = 60");
    let gateway = Gateway::start(&toml);
    let mut busy = Connection::open(gateway.addr);
    busy.write("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    while origin.calls() == 0 {
        std::thread::yield_now();
    }
    gateway.term();
    while !gateway.log().contains("draining") {
        std::thread::yield_now();
    }
    gateway.term();
    while !gateway.log().contains("the drain is cut short") {
        std::thread::yield_now();
    }
    assert_eq!(gateway.wait().code(), Some(130));
}
