//! USR2: another process takes the sockets over while clients are served.

use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::client::{PATIENCE, exchange, get, read_answer};
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
