//! Three gateways over one database, as processes: each payment sent to all of them, while they and the server fail.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{
    Agent, Answer, Gateway, Origin, Postgres,
    books::key_of,
    client::{Connection, get},
    gateway::tollgate,
    random::is_long,
    site_toml,
};

/// The configuration of a gateway over `server`, with the secret that all of them have.
pub fn toml(server: &Postgres, origin: &Origin, agent: &Agent) -> String {
    let more = format!(
        "[ledger]\nurl = \"{}\"\n[offers]\nsecret_file = \"{}/secret.json\"\nttl_seconds = 3600\n",
        server.url(),
        server.folder().display()
    );
    site_toml(origin, agent, &more).replace("cores = 2", "cores = 1").replace("1000 USD", "1000000 USD")
}

pub fn make_secret(server: &Postgres) {
    let (code, _, err) = tollgate(server.folder(), &["keygen", "--secret", "-o", "secret.json"]);
    assert_eq!(code, 0, "{err}");
}

/// Waits until priced routes are sold again.
pub fn until_open(addr: SocketAddr) {
    let until = Instant::now() + Duration::from_secs(60);
    while get(addr, "/paid/open").status != 402 {
        assert!(Instant::now() < until, "{} does not open", addr);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a request; `None` when the gateway is gone.
fn send(addr: SocketAddr, head: &str) -> Option<Answer> {
    let socket = std::net::TcpStream::connect(addr).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let reader = std::io::BufReader::new(socket.try_clone().ok()?);
    Connection { socket, reader }.send(head)
}

#[derive(Default)]
struct Payment {
    id: String,
    head: String,
}

/// Every payment sent to each gateway by several sides at once, until one of them was served.
struct Crowd<'t> {
    addrs: Vec<SocketAddr>,
    payments: &'t [Payment],
    served: Vec<AtomicUsize>,
    next: AtomicUsize,
    /// What nobody should have been told; a side goes on, for the others wait for it.
    wrong: Mutex<Vec<String>>,
}

impl Crowd<'_> {
    /// One of the sides: takes payments in order, and sends each with the others.
    fn side(&self, side: usize, together: &Barrier) {
        loop {
            if together.wait().is_leader() {
                self.next.fetch_add(1, Ordering::Relaxed);
            }
            together.wait();
            let at = self.next.load(Ordering::Relaxed) - 1;
            let Some(payment) = self.payments.get(at) else { return };
            self.pay(at, payment, side);
        }
    }

    /// Sends until the payment is spent; who is told that the books are out of reach comes back.
    fn pay(&self, at: usize, payment: &Payment, side: usize) {
        let until = Instant::now() + Duration::from_secs(120);
        let mut turn = side;
        loop {
            if Instant::now() > until {
                return self.wrong.lock().unwrap().push(format!("payment {at} has no end"));
            }
            let addr = self.addrs[turn % self.addrs.len()];
            turn += 1;
            let Some(answer) = send(addr, &payment.head) else { continue };
            match (answer.status, answer.reason()) {
                (200, _) => {
                    self.served[at].fetch_add(1, Ordering::Relaxed);
                    return;
                }
                (402, "already_used") => return,
                (503, "payment_in_flight" | "ledger_unavailable") => std::thread::sleep(Duration::from_millis(20)),
                _ => {
                    let what = format!("payment {at} at {addr}: {answer:?} {}", answer.text());
                    return self.wrong.lock().unwrap().push(what);
                }
            }
        }
    }
}

#[test]
fn a_payment_sent_to_three_gateways_is_captured_once_whatever_fails() {
    let Some(mut server) = Postgres::start("postgres::three_gateways") else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    make_secret(&server);
    let toml = toml(&server, &origin, &agent);
    let [one, two, three] = [(); 3].map(|()| Gateway::start(&toml));
    for gateway in [&one, &two, &three] {
        until_open(gateway.addr);
    }
    let count = if is_long() { 1000 } else { 240 };
    let payments: Vec<Payment> = (0..count)
        .map(|n| {
            let signed = agent.request(one.addr, "GET", &format!("/paid/{n}")).with(|r| r.expires += 3000);
            // What is signed names no gateway: all of them serve the same host.
            Payment { id: signed.payment.rsplit('"').nth(1).unwrap().to_owned(), head: signed.head_with("") }
        })
        .collect();
    let sides = 16;
    let crowd = Crowd {
        addrs: vec![one.addr, two.addr, three.addr],
        payments: &payments,
        served: (0..count).map(|_| AtomicUsize::new(0)).collect(),
        next: AtomicUsize::new(0),
        wrong: Mutex::default(),
    };
    let together = Barrier::new(sides);
    let progressed = |to: usize| {
        while crowd.next.load(Ordering::Relaxed) < to {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut one = Some(one);
    std::thread::scope(|scope| {
        for side in 0..sides {
            let (crowd, together) = (&crowd, &together);
            scope.spawn(move || crowd.side(side, together));
        }
        progressed(count / 6);
        drop(one.take().unwrap().kill());
        progressed(count * 2 / 6);
        server.crash();
        server.resume_service();
        progressed(count * 3 / 6);
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'tollgate' AND pid <> pg_backend_pid()",
        );
        progressed(count * 4 / 6);
        // Longer than its lease: its slot may be another's, and its claims are.
        signal(two.pid(), "STOP");
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        signal(two.pid(), "CONT");
        progressed(count * 5 / 6);
        // Statements hang.
        server.freeze();
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        server.thaw();
    });
    let wrong = crowd.wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(two.stop().0.success());
    assert!(three.stop().0.success());
    let captures = server.number("SELECT count(*) FROM entries WHERE kind = 1");
    let voids = server.number("SELECT count(*) FROM entries WHERE kind = 2");
    let mut by_key: BTreeMap<String, i64> = BTreeMap::new();
    for line in server.sql("SELECT encode(key, 'hex') FROM entries WHERE kind = 1").lines() {
        // The kind is before the payment's key.
        *by_key.entry(line[2..].to_owned()).or_default() += 1;
    }
    assert_eq!(captures, count as i64, "one capture a payment, {voids} of them voided");
    for (at, payment) in payments.iter().enumerate() {
        assert_eq!(by_key.get(&key_of(&payment.id)), Some(&1), "payment {at}");
        assert!(crowd.served[at].load(Ordering::Relaxed) <= 1, "payment {at} was served twice");
    }
    let used = server.number("SELECT CAST(sum(used) AS BIGINT) FROM account_use");
    assert_eq!(used, (captures - voids) * 10_000);
    let (code, out, err) = tollgate(server.folder(), &["ledger", "audit", "--ledger", &server.url()]);
    assert_eq!(code, 0, "{out}{err}");
}

fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn without_its_database_priced_routes_close_within_seconds_and_heal_without_a_restart() {
    let Some(mut server) = Postgres::start("postgres::without_its_database") else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    make_secret(&server);
    let gateway = Gateway::start(&toml(&server, &origin, &agent));
    until_open(gateway.addr);
    assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200);
    let closed = || {
        let since = Instant::now();
        loop {
            let answer = get(gateway.addr, "/paid/b");
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some());
                return;
            }
            assert_eq!(answer.status, 402);
            assert!(since.elapsed() < Duration::from_secs(5), "priced routes stay open");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let signed = agent.request(gateway.addr, "GET", "/paid/c");
    server.crash();
    let since = Instant::now();
    let answer = send(gateway.addr, &signed.head()).unwrap();
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!((answer.status, answer.reason()), (503, "ledger_unavailable"));
    closed();
    assert_eq!(get(gateway.addr, "/free").status, 200);
    server.resume_service();
    until_open(gateway.addr);
    assert_eq!(agent.buy(gateway.addr, "/paid/d").status, 200);
    // It hangs instead.
    let signed = agent.request(gateway.addr, "GET", "/paid/e");
    server.freeze();
    let since = Instant::now();
    let answer = send(gateway.addr, &signed.head()).unwrap();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!((answer.status, answer.reason()), (503, "ledger_unavailable"));
    closed();
    assert_eq!(get(gateway.addr, "/free").status, 200);
    server.thaw();
    until_open(gateway.addr);
    assert_eq!(agent.buy(gateway.addr, "/paid/f").status, 200);
    assert!(gateway.stop().0.success());
    let (code, out, err) = tollgate(server.folder(), &["ledger", "audit", "--ledger", &server.url()]);
    assert_eq!(code, 0, "{out}{err}");
}
