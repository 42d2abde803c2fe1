//! USR2: another process takes the sockets over while clients are served.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::client::{Connection, PATIENCE, exchange, get, read_answer};
use crate::support::gateway::{log, tollgate};
use crate::support::*;

/// Waits until the log names the process that took over, and keeps it from outliving the test.
struct Successor(String);

impl Successor {
    fn of(dir: &std::path::Path, times: usize) -> Successor {
        let since = Instant::now();
        loop {
            let log = log(dir);
            if let Some(line) = log.lines().filter(|l| l.contains("another process serves")).nth(times - 1) {
                let pid = line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap();
                let digits = pid.chars().filter(char::is_ascii_digit).collect();
                return Successor(digits);
            }
            assert!(since.elapsed() < PATIENCE, "{log}");
            std::thread::yield_now();
        }
    }

    fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([&format!("-{name}"), &self.0]).status();
    }

    /// TERM, and waits until it is gone.
    fn stop(&self) {
        self.signal("TERM");
        let since = Instant::now();
        while Command::new("kill").args(["-0", &self.0]).output().unwrap().status.success() {
            assert!(since.elapsed() < PATIENCE, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

#[test]
fn no_request_fails_while_another_process_takes_over() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let unix = dir.path().join("http.sock");
    let toml = site_toml(&origin, &agent, "").replace("[\"127.0.0.1:0\"]", "[\"127.0.0.1:0\", \"unix:http.sock\"]");
    let gateway = Gateway::start_in(dir, &toml);
    let (over, free, paid) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let addr = gateway.addr;
    let path = gateway.dir.path().to_owned();
    let (last, dir) = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(get(addr, "/free").text(), "content of /free");
                    free.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut socket = UnixStream::connect(&unix).unwrap();
                socket.write_all(b"GET /u HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
                assert_eq!(read_answer(&mut BufReader::new(socket), false).unwrap().text(), "content of /u");
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // The books go from one process to the other: who comes meanwhile waits.
                let answer = exchange(addr, agent.request(addr, "GET", "/paid/a").head());
                assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
                paid.fetch_add(1, Ordering::Relaxed);
            }
        });
        gateway.signal("USR2");
        let first = Successor::of(&path, 1);
        let dir = gateway.leave();
        let sells = || {
            let (before, since) = (paid.load(Ordering::Relaxed), Instant::now());
            while paid.load(Ordering::Relaxed) < before + 3 {
                assert!(since.elapsed() < PATIENCE, "{}", log(&path));
                std::thread::yield_now();
            }
        };
        // And once more, from the one that took over, once it has the books.
        sells();
        first.signal("USR2");
        let second = Successor::of(&path, 2);
        sells();
        over.store(true, Ordering::Relaxed);
        drop(first);
        (second, dir)
    });
    assert!(free.load(Ordering::Relaxed) > 0);
    assert_eq!(get(addr, "/free").status, 200);
    assert!(unix.exists(), "its file stays as long as it is served");
    last.stop();
    assert!(!unix.exists(), "and goes with the last");
    assert!(TcpStream::connect(addr).is_err());
    let (_, out, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(out.lines().count(), paid.load(Ordering::Relaxed), "each payment is in the books once");
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_process_that_does_not_come_to_serve_changes_nothing() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&toml);
    std::fs::write(gateway.dir.path().join("tollgate.toml"), "nonsense").unwrap();
    gateway.signal("USR2");
    let since = Instant::now();
    while !gateway.log().contains("the new process does not take over, this one goes on") {
        assert!(since.elapsed() < PATIENCE, "{}", gateway.log());
        std::thread::yield_now();
    }
    assert!(gateway.log().contains("it ended before it served"), "{}", gateway.log());
    assert_eq!(exchange(gateway.addr, agent.request(gateway.addr, "GET", "/paid/a").head()).status, 200);
    let (status, _dir) = gateway.stop();
    assert!(status.success());
}

/// A site whose drain takes an hour while something is open: `/socket` becomes a tunnel that sends everything back; of
/// `/paid/held` head and body come when the test is at the barrier, too, of `/paid/slow` and
/// `/slow` the end of the body.
fn slow_site(agent: &Agent, cores: usize) -> (Gateway, Arc<Barrier>) {
    let barrier = Arc::new(Barrier::new(2));
    let goes_on = barrier.clone();
    let origin = Origin::scripted(move |seen, socket| {
        if seen.has("upgrade") {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            socket.write_all(switch.as_bytes()).unwrap();
            let mut byte = [0; 1];
            while let Ok(1) = socket.read(&mut byte) {
                socket.write_all(&byte).unwrap();
            }
            return false;
        }
        let body = format!("{} bytes for {}", seen.body.len(), seen.path());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (now, later) = match seen.path() {
            "/paid/held" => answer.split_at(0),
            "/paid/slow" | "/slow" => answer.split_at(answer.len() - 4),
            _ => answer.split_at(answer.len()),
        };
        socket.write_all(now.as_bytes()).unwrap();
        if !later.is_empty() {
            goes_on.wait();
        }
        socket.write_all(later.as_bytes()).is_ok()
    });
    let toml = site_toml(&origin, agent, "").replace("drain_seconds = 2", "drain_seconds = 3600");
    let toml = toml.replace("cores = 2", &format!("cores = {cores}"));
    (Gateway::start(&toml), barrier)
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

fn tunnel(gateway: &Gateway) -> Connection {
    let mut tunnel = Connection::open(gateway.addr);
    let answer = tunnel.send(format!("GET /socket HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\n")).unwrap();
    assert_eq!(answer.status, 101);
    tunnel
}

fn echoes(tunnel: &mut Connection) {
    tunnel.write("x");
    let mut byte = [0; 1];
    tunnel.reader.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

/// Which admin socket there is, if there is one.
fn door(dir: &std::path::Path) -> Option<(u64, std::time::SystemTime)> {
    let door = std::fs::metadata(dir.join("tollgate.sqlite.admin")).ok()?;
    Some((door.ino(), door.modified().unwrap()))
}

/// Until the log says it.
fn wait_for(dir: &std::path::Path, what: &str) {
    let since = Instant::now();
    while !log(dir).contains(what) {
        assert!(since.elapsed() < PATIENCE, "{what:?} is not in {}", log(dir));
        std::thread::yield_now();
    }
}

/// Buys once, as soon as that can be had.
fn sells_soon(agent: &Agent, addr: SocketAddr, dir: &std::path::Path) {
    let since = Instant::now();
    while agent.buy(addr, "/paid/a").status != 200 {
        assert!(since.elapsed() < PATIENCE, "{}", log(dir));
        std::thread::yield_now();
    }
}

/// What became of the answers, newest first, once the books have passed an audit.
fn outcomes(dir: &std::path::Path) -> Vec<String> {
    let (code, out, err) = tollgate(dir, &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
    let (_, out, _) = tollgate(dir, &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    let entry = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    out.lines().map(|line| entry(line)["outcome"]["delivery"].as_str().unwrap_or("none").to_owned()).collect()
}

#[test]
fn free_connections_live_on_while_the_successor_sells() {
    let agent = Agent::start();
    let (gateway, _) = slow_site(&agent, 2);
    let (addr, path) = (gateway.addr, gateway.dir.path().to_owned());
    let mut tunnel = tunnel(&gateway);
    let door_before = door(&path);
    let mut upload = Connection::open(addr);
    upload.write("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    gateway.signal("USR2");
    let successor = Successor::of(&path, 1);
    // Neither is refused: the books come while they wait.
    for _ in 0..3 {
        let answer = agent.buy(addr, "/paid/a");
        assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
    }
    echoes(&mut tunnel);
    upload.write("cd");
    assert_eq!(upload.read(false).unwrap().text(), "4 bytes for /upload");
    echoes(&mut tunnel);
    let since = Instant::now();
    let opened = loop {
        match door(&path) {
            Some(now) if Some(now) != door_before => break Some(now),
            _ => assert!(since.elapsed() < PATIENCE, "{}", log(&path)),
        }
        std::thread::yield_now();
    };
    drop((tunnel, upload));
    let dir = gateway.leave();
    assert_eq!(door(dir.path()), opened, "the old process took the successor's door away");
    successor.stop();
    assert_eq!(outcomes(dir.path()), ["complete"; 3]);
}

#[test]
fn a_stream_of_http2_lives_on_while_the_successor_sells() {
    let agent = Agent::start();
    let (gateway, goes_on) = slow_site(&agent, 2);
    let (addr, path) = (gateway.addr, gateway.dir.path().to_owned());
    let (begun, begins) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = TokioIo::new(tokio::net::TcpStream::connect(addr).await.unwrap());
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get(format!("http://{addr}/slow")).body(Empty::<Bytes>::new()).unwrap();
            let mut body = sender.send_request(request).await.unwrap().into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            begun.send(()).unwrap();
            let rest = body.collect().await.unwrap().to_bytes();
            format!("{}|{}", String::from_utf8_lossy(&first), String::from_utf8_lossy(&rest))
        })
    });
    begins.recv_timeout(PATIENCE).unwrap();
    gateway.signal("USR2");
    let successor = Successor::of(&path, 1);
    // It may still bring a request, so the books stay for a moment, but not as long as it lasts.
    sells_soon(&agent, addr, &path);
    goes_on.wait();
    assert_eq!(client.join().unwrap(), "0 bytes for /|slow");
    let dir = gateway.leave();
    successor.stop();
    assert_eq!(outcomes(dir.path()), ["complete"]);
}

/// Buys what ends when the test says so, and hands on meanwhile: the books go when it has its outcome, no earlier.
fn keeps_the_books(what: &str, bytes_before: &str) {
    let agent = Agent::start();
    let (gateway, goes_on) = slow_site(&agent, 2);
    let (addr, path) = (gateway.addr, gateway.dir.path().to_owned());
    let mut tunnel = tunnel(&gateway);
    let mut bought = Connection::open(addr);
    bought.write(agent.request(addr, "GET", what).head());
    let mut before = Vec::new();
    while !before.ends_with(bytes_before.as_bytes()) {
        let mut byte = [0; 1];
        bought.reader.read_exact(&mut byte).unwrap();
        before.push(byte[0]);
    }
    gateway.signal("USR2");
    let successor = Successor::of(&path, 1);
    // Until it drains, the old process accepts, too, and offers.
    let since = Instant::now();
    let waited = loop {
        let answer = get(addr, "/paid/a");
        if answer.status != 402 {
            break answer;
        }
        assert!(since.elapsed() < PATIENCE, "the successor sells: {}", log(&path));
    };
    assert_eq!((waited.status, waited.reason()), (503, "ledger_unavailable"));
    assert!(!log(&path).contains("the books are closed"), "{}", log(&path));
    goes_on.wait();
    let mut rest = String::new();
    bought.reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("slow") || rest.ends_with("held"), "{rest}");
    wait_for(&path, "the books are closed");
    // By now the successor's patience is over.
    sells_soon(&agent, addr, &path);
    echoes(&mut tunnel);
    drop((tunnel, bought));
    let dir = gateway.leave();
    successor.stop();
    assert_eq!(outcomes(dir.path()), ["complete"; 2]);
}

#[test]
fn a_paid_request_keeps_the_books_until_its_answer() {
    keeps_the_books("/paid/held", "");
}

#[test]
fn a_paid_answer_keeps_the_books_until_its_outcome() {
    keeps_the_books("/paid/slow", "0 bytes for /paid/");
}

#[test]
fn a_head_that_is_on_its_way_is_still_served() {
    let agent = Agent::start();
    let (gateway, _) = slow_site(&agent, 1);
    let (addr, path) = (gateway.addr, gateway.dir.path().to_owned());
    let request = agent.request(addr, "GET", "/paid/a").head();
    let (first, second) = request.split_at(20);
    let mut connection = Connection::open(addr);
    connection.write(first);
    // It has read that by now, and this one, which is idle, tells when it drains.
    let mut idle = Connection::open(addr);
    idle.send("GET /free HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    gateway.signal("USR2");
    let successor = Successor::of(&path, 1);
    assert!(idle.closed());
    connection.write(second);
    assert_eq!(connection.read(false).unwrap().status, 200);
    drop((connection, idle));
    let dir = gateway.leave();
    successor.stop();
    assert_eq!(outcomes(dir.path()), ["complete"]);
}

#[test]
fn who_comes_when_the_books_are_gone_is_sent_to_the_successor() {
    let agent = Agent::start();
    let (gateway, _) = slow_site(&agent, 2);
    let (addr, path) = (gateway.addr, gateway.dir.path().to_owned());
    let request = agent.request(addr, "GET", "/paid/a").head();
    let (first, second) = request.split_at(20);
    let mut late = Connection::open(addr);
    late.write(first);
    // In the same core's hands or another's: all of them have begun by then.
    get(addr, "/free");
    gateway.signal("USR2");
    let successor = Successor::of(&path, 1);
    wait_for(&path, "the books are closed");
    late.write(second);
    let answer = late.read(false).unwrap();
    assert_eq!((answer.status, answer.reason()), (503, "ledger_unavailable"));
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    assert!(late.closed());
    drop(late);
    assert_eq!(exchange(addr, request).status, 200, "nothing was taken");
    let dir = gateway.leave();
    successor.stop();
    assert_eq!(outcomes(dir.path()), ["complete"]);
}
