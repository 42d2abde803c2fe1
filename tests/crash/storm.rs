//! One payment from many sides at once, over two cores, by clients that leave at every stage and before an origin that
//! fails. In the end money is where it has to be.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Barrier;

use crate::support::books::key_of;
use crate::support::client::Connection;
use crate::support::random::is_long;
use crate::support::*;

const SIDES: usize = 16;

/// What a client does with the payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Patient,
    /// Sends everything and leaves at once.
    LeavesUnheard,
    /// Sends all but the end of the head.
    NeverEnds,
    /// Leaves after the first byte of the answer.
    LeavesAtFirstByte,
    /// Leaves in the middle of the answer.
    LeavesInBody,
}

#[derive(Debug)]
struct Payment {
    id: String,
    head: String,
    page: String,
}

/// What a client saw.
#[derive(Clone, Debug, Default)]
struct Sight {
    served: bool,
    released: bool,
}

#[test]
fn one_payment_from_all_sides_buys_once_whoever_leaves() {
    let mut random = Random::new(2);
    let origin = Origin::scripted(|seen, socket| {
        let body = "x".repeat(60_000);
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        match seen.path().rsplit('/').next().unwrap() {
            "fails" => write!(socket, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").is_ok(),
            "cut" => socket.write_all(&whole.as_bytes()[..whole.len() / 2]).is_err(),
            _ => socket.write_all(whole.as_bytes()).is_ok(),
        }
    });
    let rounds = if is_long() { 2000 } else { 60 };
    // Many accounts: claims that are dropped are throttled by account.
    let agents: Vec<Agent> = (0..rounds / 20).map(|_| Agent::start()).collect();
    let accounts = agents[1..].iter().enumerate().map(|(i, agent)| {
        format!("[[accounts]]\nname = \"other-{i}\"\nagents = [\"{}\"]\ncredit = \"1000 USD\"\n", agent.url)
    });
    let config = site_toml(&origin, &agents[0], &accounts.collect::<String>());
    let gateway = Gateway::start(&config);
    let mut payments = Vec::new();
    for round in 0..rounds {
        let kind = *random.pick(&["whole", "whole", "whole", "fails", "cut"]);
        // A failing page is claimed three times at most; a leaving client drops at most one claim each.
        let page = format!("/paid/{round}/{kind}");
        let request = agents[round % agents.len()].request(gateway.addr, "GET", &page);
        let id = request.payment.rsplit('"').nth(1).unwrap().to_owned();
        let payment = Payment { id, head: request.head_with(""), page };
        use Manner::*;
        let all = [Patient, Patient, LeavesUnheard, NeverEnds, LeavesAtFirstByte, LeavesInBody];
        let polite = random.below(3) == 0;
        let manners: Vec<Manner> = (0..SIDES).map(|_| if polite { Patient } else { *random.pick(&all) }).collect();
        let (start, addr) = (Barrier::new(SIDES), gateway.addr);
        let sights: Vec<Sight> = std::thread::scope(|scope| {
            let side = |manner| send(addr, &payment, manner, &start);
            let sides: Vec<_> = manners.iter().map(|m| scope.spawn(move || side(*m))).collect();
            sides.into_iter().map(|s| s.join().unwrap()).collect()
        });
        let last = until_resolved(addr, &payment);
        payments.push((payment, manners, sights, last));
    }
    let (status, dir) = gateway.stop();
    assert!(status.success(), "{status}");
    let books = Books::read(dir.path());
    assert_eq!(books.in_state("unproven"), 0, "a capture without an outcome");
    compare(&books, &payments, &origin);
    // Credit: what is charged counts and nothing else, for each account.
    let owed = |account: usize| {
        let of_account = payments.iter().enumerate().filter(|(i, _)| i % agents.len() == account);
        let captured = of_account.filter_map(|(_, (p, ..))| books.captures.get(&key_of(&p.id)));
        captured.filter(|c| !books.voids.contains_key(&c[0].0)).count()
    };
    let mut config = config;
    for account in 0..agents.len() {
        let limit = owed(account) + 1;
        config = config.replacen("\"1000 USD\"", &format!("\"{}.{:02} USD\"", limit / 100, limit % 100), 1);
    }
    let gateway = Gateway::start_in(dir, &config);
    for agent in &agents {
        assert_eq!(agent.buy(gateway.addr, "/paid/one-more").status, 200);
        assert_eq!(agent.buy(gateway.addr, "/paid/too-much").reason(), "credit_exhausted");
    }
}

/// Sends the payment the way that `manner` says.
fn send(addr: SocketAddr, payment: &Payment, manner: Manner, start: &Barrier) -> Sight {
    let mut connection = Connection::open(addr);
    let (all_but_end, end) = payment.head.split_at(payment.head.len() - 3);
    connection.write(all_but_end);
    start.wait();
    let mut sight = Sight::default();
    if manner == Manner::NeverEnds {
        return sight;
    }
    connection.write(end);
    match manner {
        Manner::LeavesUnheard => {}
        Manner::LeavesAtFirstByte | Manner::LeavesInBody => {
            // Status and fields arrive in one piece or not at all; only a 200 counts.
            let begun = connection.reader.fill_buf().unwrap_or_default();
            sight.served = begun.starts_with(b"HTTP/1.1 200");
            sight.released = begun.starts_with(b"HTTP/1.1 500");
            if sight.served && manner == Manner::LeavesInBody {
                let _ = connection.reader.read_exact(&mut [0; 20_000]);
            }
        }
        _ => {
            let answer = connection.read(false).expect("no answer");
            sight.served = answer.status == 200;
            sight.released = answer.status == 500;
            assert_eq!(sight.served, answer.header("payment-response").is_some(), "{answer:?}");
            assert!(
                matches!((answer.status, answer.reason()), (200 | 500, _) | (402, "already_used") | (503, _)),
                "{answer:?} {}",
                answer.text()
            );
        }
    }
    sight
}

/// Sends the payment until it is served, or used up.
fn until_resolved(addr: SocketAddr, payment: &Payment) -> Sight {
    loop {
        let answer = Connection::open(addr).send(&payment.head).expect("no answer");
        match (answer.status, answer.reason()) {
            (200, _) => return Sight { served: true, released: false },
            (402, "already_used") => return Sight::default(),
            (500, _) | (503, "payment_in_flight") => {}
            _ => panic!("{answer:?} {}", answer.text()),
        }
    }
}

fn compare(books: &Books, payments: &[(Payment, Vec<Manner>, Vec<Sight>, Sight)], origin: &Origin) {
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for seen in origin.seen() {
        *calls.entry(seen.header("tollgate-payment-id").expect("unpaid at the origin").to_owned()).or_default() += 1;
    }
    for (payment, manners, sights, last) in payments {
        let sights = || sights.iter().chain(std::iter::once(last));
        let (served, calls) = (sights().filter(|s| s.served).count(), calls.get(&payment.id).copied().unwrap_or(0));
        let about = || format!("{payment:?} {manners:?} served {served}, {calls} origin calls");
        assert!(served <= 1, "served more than once: {}", about());
        assert!(served == 0 || books.has(&payment.id), "served, not booked: {}", about());
        // Three releases burn a payment, so the origin sees it three times at most.
        assert!(calls <= 3, "{}", about());
        let polite = manners.iter().all(|m| *m == Manner::Patient);
        match payment.page.rsplit('/').next().unwrap() {
            // A claim may be dropped by a leaving client before the origin is called.
            "fails" => {
                assert!(!books.has(&payment.id) && served == 0 && (calls == 3 || !polite), "{}", about());
            }
            "whole" if polite => {
                assert!(books.has(&payment.id) && served == 1 && calls == 1, "{}", about());
                assert!(!books.voids.contains_key(&books.captures[&key_of(&payment.id)][0].0), "{}", about());
            }
            "cut" if polite => {
                assert!(books.has(&payment.id) && served == 1 && calls == 1, "{}", about());
            }
            // A client that left before the capture released it, and the third one burnt it; one that left later has bought.
            _ => {
                let leaving = manners.iter().filter(|m| **m != Manner::Patient).count();
                assert!(books.has(&payment.id) || leaving >= 3, "{}", about());
            }
        }
    }
    let ours: Vec<String> = payments.iter().map(|(p, ..)| key_of(&p.id)).collect();
    assert!(books.captures.keys().all(|key| ours.contains(key)), "a capture that nobody paid for");
}
