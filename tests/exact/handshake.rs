//! 402 → 200 with a token, and what the books say then.

use std::io::Write as _;

use serde_json::json;

use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::wallet::{PAY_TO, USDC, Wallet, receipt, send, token_shop};
use crate::support::*;

#[test]
fn a_wallet_pays_in_both_versions_and_the_books_have_it() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let answer = wallet.buy(gateway.addr, "/paid/a");
    assert_eq!((answer.status, origin.calls()), (200, 1), "{answer:?}\n{}", gateway.log());
    let paid = receipt(&answer).unwrap();
    assert_eq!(paid["success"], true);
    assert_eq!(paid["network"], "eip155:84532");
    assert_eq!(paid["amount"], "10000");
    assert_eq!(answer.header("cache-control"), Some("private"));
    let seen = origin.last();
    let who = format!("eip155:84532:{}", wallet.address.to_string().to_lowercase());
    assert_eq!(seen.header("tollgate-agent"), Some(&*who));
    assert_eq!(seen.header("tollgate-account"), Some("wallets"));
    assert!(!seen.has("payment-signature"));

    let payload = wallet.sign(&wallet.draft_v1(gateway.addr, "/paid/b"));
    let answer = send(gateway.addr, "GET", "/paid/b", &payload);
    assert_eq!(answer.status, 200, "{answer:?}");
    let paid = answer.header("x-payment-response").map(|_| receipt(&answer).unwrap()).unwrap();
    assert_eq!((&paid["success"], &paid["network"]), (&json!(true), &json!("base-sepolia")));
    assert_eq!((facilitator.count("/verify"), facilitator.count("/settle")), (2, 2));
    let asked = &facilitator.calls_of("/settle")[0].body;
    assert_eq!(asked["paymentRequirements"]["payTo"], PAY_TO);
    assert_eq!(asked["paymentRequirements"]["asset"], USDC);
    let (_, dir) = gateway.stop();
    let (code, rows, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!((code, rows.matches("\"capture\"").count()), (0, 2), "{rows}{err}");
    assert!(rows.contains("\"exact\"") && rows.contains(&who), "{rows}");
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_spent_payment_is_409_with_its_receipt_and_never_a_402() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let first = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!(first.status, 200);
    for _ in 0..2 {
        let again = send(gateway.addr, "GET", "/paid/a", &payload);
        assert_eq!((again.status, again.reason()), (409, "payment_already_used"));
        assert_eq!(receipt(&again), receipt(&first));
        assert!(again.header("payment-required").is_none());
    }
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
}

/// An origin whose `/paid/broken` fails.
fn half_broken() -> Origin {
    Origin::scripted(|seen, socket| {
        let status = if seen.path() == "/paid/broken" { "500 Internal Server Error" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").is_ok()
    })
}

#[test]
fn an_origin_that_fails_costs_nothing_and_the_payment_stays_good() {
    let (origin, facilitator, wallet) = (half_broken(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/broken"));
    let answer = send(gateway.addr, "GET", "/paid/broken", &payload);
    assert_eq!((answer.status, receipt(&answer)), (500, None), "{answer:?}");
    assert_eq!(facilitator.count("/settle"), 0);
}

#[test]
fn what_the_facilitator_refuses_never_reaches_the_origin() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    for _ in 0..4 {
        facilitator.next("/verify", Behaviour::Invalid("insufficient_funds"));
        let answer = send(gateway.addr, "GET", "/paid/a", &payload);
        assert_eq!((answer.status, answer.reason()), (402, "payment_refused"));
        assert_eq!(agent::field_offer(&answer)["error"], "insufficient_funds");
    }
    facilitator.next("/verify", Behaviour::Status(500));
    facilitator.next("/verify", Behaviour::Status(500));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (503, "facilitator_unavailable"));
    assert_eq!(origin.calls(), 0);
    // However often: a refusal gives the payment back, or others could spend it by naming it.
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 200);
}

#[test]
fn a_settlement_that_fails_withholds_the_answer_and_says_why() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    facilitator.next("/settle", Behaviour::Refused("insufficient_funds"));
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (402, "settlement_failed"));
    let paid = receipt(&answer).unwrap();
    assert_eq!((&paid["success"], &paid["errorReason"]), (&json!(false), &json!("insufficient_funds")));
    assert_eq!(agent::field_offer(&answer)["error"], "insufficient_funds");
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 409);
    assert_eq!(facilitator.count("/settle"), 1);
}

#[test]
fn an_unknown_outcome_is_a_state_and_only_a_success_ends_it() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    facilitator.next("/settle", Behaviour::Reset);
    facilitator.next("/settle", Behaviour::Pending(200));
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"));
    assert_eq!((facilitator.count("/settle"), answer.header("retry-after").is_some()), (2, true));
    // Another payment for the same thing is not taken, one for another is.
    let other = wallet.buy(gateway.addr, "/paid/a");
    assert_eq!((other.status, other.reason()), (503, "payment_unresolved"));
    assert_eq!(wallet.buy(gateway.addr, "/paid/b").status, 200);
    // «Nonce already used» may mean that the first attempt paid.
    facilitator.next("/settle", Behaviour::Refused("invalid_exact_evm_nonce_already_used"));
    facilitator.next("/settle", Behaviour::Refused("invalid_exact_evm_nonce_already_used"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"));
    let calls = origin.calls();
    // It comes back, the facilitator knows now, and what is owed is served.
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, origin.calls()), (200, calls + 1), "{answer:?}");
    assert_eq!(origin.last().header("tollgate-attempt"), Some("2"));
    assert_eq!(receipt(&answer).unwrap()["success"], true);
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 409);
}

#[test]
fn an_authorisation_spent_by_somebody_else_is_not_called_a_failure() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    for reason in ["invalid_exact_evm_nonce_already_used", "permit2_invalid_nonce", "duplicate_settlement"] {
        let path = format!("/paid/{reason}");
        facilitator.next("/settle", Behaviour::Refused(reason));
        facilitator.next("/settle", Behaviour::Refused(reason));
        let payload = wallet.sign(&wallet.draft(gateway.addr, &path));
        let answer = send(gateway.addr, "GET", &path, &payload);
        assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"), "{reason}: {answer:?}");
        assert!(answer.header("payment-required").is_none());
    }
}

#[test]
fn settled_first_the_answer_is_owed_until_the_origin_gives_it() {
    let (origin, facilitator, wallet) = (half_broken(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "settle = \"first\"\n");
    let answer = wallet.buy(gateway.addr, "/paid/a");
    assert_eq!((answer.status, receipt(&answer).is_some()), (200, true), "{answer:?}\n{}", gateway.log());
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/broken"));
    let answer = send(gateway.addr, "GET", "/paid/broken", &payload);
    assert_eq!((answer.status, receipt(&answer).unwrap()["success"] == true), (500, true));
    // Three turns, for each asks the origin and nobody pays for that.
    for _ in 0..3 {
        let answer = send(gateway.addr, "GET", "/paid/broken", &payload);
        assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (500, Some("2")), "{answer:?}");
    }
    let answer = wallet::send_until_told(gateway.addr, "/paid/broken", &payload);
    assert_eq!((answer.status, answer.reason(), receipt(&answer).is_some()), (409, "payment_owed", true));
    assert_eq!(origin.calls(), 5);
    assert_eq!(facilitator.count("/settle"), 2);
}

#[test]
fn a_restart_in_the_middle_of_a_settlement_forgets_nothing() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = wallet::token_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let gate = support_gate(&facilitator);
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let addr = gateway.addr;
    let asking = {
        let head = wallet::head(addr, "GET", "/paid/a", &payload);
        std::thread::spawn(move || {
            let mut connection = client::Connection::open(addr);
            connection.write(head);
            connection.read(false)
        })
    };
    facilitator.arrived("/settle", 1);
    let dir = gateway.kill();
    gate.open();
    assert!(asking.join().unwrap().is_none());
    let gateway = Gateway::start_in(dir, &toml);
    let answer = send_as(&gateway, addr, &payload);
    assert_eq!((answer.status, facilitator.count("/settle")), (200, 2), "{answer:?}");
    assert_eq!(origin.last().header("tollgate-attempt"), Some("2"));
    assert_eq!(send_as(&gateway, addr, &payload).status, 409);
}

/// The next settlement waits for the gate.
fn support_gate(facilitator: &Facilitator) -> facilitator::Gate {
    let gate = facilitator::Gate::default();
    facilitator.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    gate
}

/// The same request to a gateway that listens elsewhere now: the host stays.
fn send_as(gateway: &Gateway, host: std::net::SocketAddr, payload: &serde_json::Value) -> Answer {
    exchange(gateway.addr, wallet::head(host, "GET", "/paid/a", payload))
}
