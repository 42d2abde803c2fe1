//! A payment that comes back after its offer and its authorisation have ended: what it has done decides, not its time.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde_json::{Value, json};
use tollgate::clock::Clock;
use tollgate::ledger::evidence::WalletEvidence;
use tollgate::ledger::ledger_store::{LedgerOptions, LedgerStore};
use tollgate::ledger::location::Location;
use tollgate::ledger::store::{
    ClaimRequest, Delivery, Intent, Outcome, Outcomes as _, Posting, Purchase, Store as _, StoreFuture,
};
use tollgate::payment::id::{Resource, SealedId};
use tollgate::payment::key::PaymentKey;
use tollgate::payment::secrets::Secrets;
use tollgate::payment::terms::Term;
use tollgate::payment::token::{OfferId, Token, Transfer};
use tollgate::wire::amount::{Currency, Money, Units};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::eip712::{Domain, keccak256};
use tollgate::wire::evm::eip3009::Authorization;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::x402::Version;
use tollgate::wire::x402::facilitator;
use tollgate::wire::x402::network::Network;
use tollgate::wire::x402::payload::Payload;
use tollgate::wire::x402::requirements::ResourceInfo;

use crate::support::agent::now;
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::wallet::{Draft, PAY_TO, USDC, Wallet, head, receipt, token_shop_toml};
use crate::support::*;

/// Seconds of an offer's life, and how long ago this one was made.
const TTL_S: u64 = 300;
const AGO_S: u64 = 330;
const URL: &str = "http://shop.example/paid/a";
/// What the facilitator is said to have given.
const RECEIPT: &str = "eyJzdWNjZXNzIjp0cnVlLCJ0cmFuc2FjdGlvbiI6IjB4YWJjIiwibmV0d29yayI6ImVpcDE1NTo4NDUzMiJ9";

/// What became of the payment in an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    /// Offered and signed, and never sent.
    Nothing,
    InDoubt,
    Owed,
    Delivered,
}

/// A payment of 330 s ago, and the books that know it.
struct Past {
    dir: tempfile::TempDir,
    payload: Value,
}

fn token() -> Token {
    let network = Network::parse("eip155:84532").unwrap();
    Token {
        book: Token::book_name(&network, USDC),
        network,
        address: USDC.into(),
        symbol: "USDC".into(),
        decimals: 6,
        currency: Currency::parse("USD").unwrap(),
        pay_to: PAY_TO.into(),
        transfer: Transfer::Eip3009 { name: "USDC".into(), version: "2".into() },
        facilitator: None,
    }
}

/// Waits for a store, without a runtime.
fn wait<T>(mut future: StoreFuture<T>) -> T {
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        std::thread::yield_now();
    }
}

fn past(was: Was, facilitator: &Facilitator) -> Past {
    let (dir, wallet, token) = (tempfile::tempdir().unwrap(), Wallet::new(), token());
    let then_s = now() as u64 - AGO_S;
    let then_ms = then_s * 1000 + 500;
    let file = Secrets::new_file([5; 32]);
    std::fs::write(dir.path().join("tollgate-secret.json"), &file).unwrap();
    let units = token.units(Money::parse("0.01 USD").unwrap()).unwrap();
    let resource = Resource { method: "GET", authority: "shop.example", path: "/paid/a", query: "", tool: "" };
    let term = Term::new(token.template("exact", TTL_S));
    let secrets = Secrets::parse(&file).unwrap();
    let id = SealedId::seal(&secrets, then_ms, [7; 7], &term, units, &resource).unwrap();
    let id_text = id.to_text();
    let offer_id = OfferId { id: &id_text, class: "public" };
    let requirements = token.requirements("exact", units, TTL_S, Some(offer_id));
    let draft = Draft {
        domain: Domain {
            name: "USDC".into(),
            version: Some("2".into()),
            chain_id: 84_532,
            verifying_contract: Address::parse(USDC).unwrap(),
        },
        authorization: Authorization {
            from: wallet.address,
            to: Address::parse(PAY_TO).unwrap(),
            value: U256::from(10_000_u64),
            valid_after: U256::from(0_u64),
            valid_before: U256::from(then_s + TTL_S),
            nonce: keccak256(&[b"late", &crate::support::wallet::fresh().to_be_bytes()]),
        },
        entry: requirements.to_v2(),
        resource: json!({ "url": URL }),
        version: 2,
    };
    let signed = wallet.sign(&draft);
    let key = PaymentKey::from_eip3009(
        &token.network,
        &Address::parse(USDC).unwrap(),
        &wallet.address,
        &draft.authorization.nonce,
    );
    let payload = Payload::from_json(signed.clone(), Version::V2).unwrap();
    let info = ResourceInfo { url: URL, description: "", mime_type: "" };
    let body = facilitator::request(&payload, &requirements, &info).unwrap().to_string();
    let clock = Clock::manual(then_ms + 1000);
    let store = LedgerStore::open(LedgerOptions::offline(
        Location::File(dir.path().join("tollgate.sqlite")),
        "UTC".into(),
        clock,
    ))
    .unwrap();
    if was != Was::Nothing {
        let agent: Arc<str> = format!("eip155:84532:{}", wallet.address.to_string().to_lowercase()).into();
        let request = ClaimRequest {
            within: None,
            key,
            paid_at_ms: then_ms,
            account: "wallets".into(),
            amount: units,
            asset: token.book.clone(),
            limit: Units::MAX,
            period: 0,
            purchase: Some(Purchase { payer: agent.clone(), what: format!("GET {URL}").into() }),
            payer: None,
        };
        let evidence = |receipt: &str| WalletEvidence {
            sealed_id: Some(*id.as_bytes()),
            template_digest: Some(term.digest),
            request: body.clone(),
            verified: b"{\"isValid\":true}".to_vec(),
            settled: Vec::new(),
            receipt: receipt.to_owned(),
            verified_ms: then_ms,
            method: "GET".into(),
            target: URL.into(),
            origin_status: 200,
            ..WalletEvidence::default()
        };
        let posting = |receipt: &str| Posting {
            agent: agent.clone(),
            agent_key: None,
            route: "/paid/*".into(),
            scheme: "exact",
            amount: units,
            list_amount: units,
            table_hash: [7; 32],
            status: 200,
            method: "GET".into(),
            target: URL.into(),
            evidence: evidence(receipt).encode(),
            key: None,
            grant: None,
        };
        let intent = Intent {
            posting: posting(""),
            facilitator: facilitator.url().into(),
            payload: body.clone().into_bytes(),
            hard_until_ms: (then_s + TTL_S) * 1000,
        };
        let settling = wait(store.intend(wait(store.claim(request)).unwrap(), intent)).unwrap();
        if was == Was::InDoubt {
            store.unknown(settling);
        } else {
            let captured = wait(store.settled(settling, posting(RECEIPT), was == Was::Owed)).unwrap();
            if was == Was::Delivered {
                store.outcome(Outcome { n: captured.n, delivery: Delivery::Complete, void: false, ms: 1, bytes: 4 });
            }
        }
    }
    store.close().unwrap();
    Past { dir, payload: signed }
}

/// The gateway of now over those books.
fn present(origin: &Origin, facilitator: &Facilitator, dir: tempfile::TempDir) -> Gateway {
    let toml =
        token_shop_toml(origin, facilitator, "").replace("[server]", "[server]\npublic_url = \"http://shop.example\"");
    Gateway::start_in(dir, &toml)
}

fn send(gateway: &Gateway, payload: &Value) -> Answer {
    let text = head(gateway.addr, "GET", "/paid/a", payload);
    exchange(gateway.addr, text.replace(&format!("Host: {}", gateway.addr), "Host: shop.example"))
}

fn audited(gateway: Gateway) {
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn what_was_never_sent_is_too_late() {
    let (origin, facilitator) = (Origin::start(), Facilitator::start());
    let Past { dir, payload } = past(Was::Nothing, &facilitator);
    let gateway = present(&origin, &facilitator, dir);
    let answer = send(&gateway, &payload);
    assert_eq!((answer.status, answer.reason()), (402, "offer_expired"), "{answer:?}");
    assert_eq!((facilitator.count("/verify"), facilitator.count("/settle"), origin.calls()), (0, 0, 0));
}

#[test]
fn what_is_owed_is_served() {
    let (origin, facilitator) = (Origin::start(), Facilitator::start());
    let Past { dir, payload } = past(Was::Owed, &facilitator);
    let gateway = present(&origin, &facilitator, dir);
    let answer = send(&gateway, &payload);
    assert_eq!((answer.status, answer.text().as_str()), (200, "content of /paid/a"), "{answer:?}");
    assert_eq!(
        (origin.last().header("tollgate-attempt"), &receipt(&answer).unwrap()["transaction"]),
        (Some("2"), &json!("0xabc"))
    );
    let answer = send(&gateway, &payload);
    assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"));
    assert_eq!((facilitator.count("/verify"), facilitator.count("/settle"), origin.calls()), (0, 0, 1));
    audited(gateway);
}

#[test]
fn what_is_in_doubt_is_asked_about_and_only_a_success_ends_it() {
    let (origin, facilitator) = (Origin::start(), Facilitator::start());
    let Past { dir, payload } = past(Was::InDoubt, &facilitator);
    let gateway = present(&origin, &facilitator, dir);
    // «Expired» would be no news, and may be said although the first attempt paid.
    let reason = "invalid_exact_evm_payload_authorization_valid_before";
    facilitator.next("/settle", Behaviour::Refused(reason));
    facilitator.next("/settle", Behaviour::Refused(reason));
    let answer = send(&gateway, &payload);
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"), "{answer:?}");
    assert!(answer.header("payment-required").is_none(), "nobody is asked to pay again");
    let answer = send(&gateway, &payload);
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    assert_eq!((facilitator.count("/verify"), facilitator.count("/settle"), origin.calls()), (0, 3, 1));
    audited(gateway);
}

#[test]
fn what_was_served_is_spent_with_its_receipt() {
    let (origin, facilitator) = (Origin::start(), Facilitator::start());
    let Past { dir, payload } = past(Was::Delivered, &facilitator);
    let gateway = present(&origin, &facilitator, dir);
    let answer = send(&gateway, &payload);
    assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{answer:?}");
    assert_eq!(receipt(&answer).unwrap()["transaction"], "0xabc");
    assert_eq!((facilitator.count("/settle"), origin.calls()), (0, 0));
    audited(gateway);
}

/// Late or not, what others make of it gets nothing.
#[test]
fn a_late_payment_is_still_its_payers() {
    let (origin, facilitator) = (Origin::start(), Facilitator::start());
    let Past { dir, payload } = past(Was::Owed, &facilitator);
    let gateway = present(&origin, &facilitator, dir);
    let mut other = payload.clone();
    other["extensions"] = json!({"x": 1});
    let answer = send(&gateway, &other);
    assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{answer:?}");
    let mut altered = payload.clone();
    altered["payload"]["authorization"]["value"] = json!("10001");
    assert_eq!(send(&gateway, &altered).status, 402);
    assert_eq!(origin.calls(), 0);
    assert_eq!(send(&gateway, &payload).status, 200);
}
