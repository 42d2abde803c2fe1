//! The layer over a client that answers from a script.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::sync::Mutex;

use ed25519_dalek::SigningKey;
use http::HeaderMap;
use http_body_util::Full;
use serde_json::json;

use super::*;
use crate::agent::Agent;
use crate::wire::amount::Money;
use crate::wire::deferred::Payment;
use crate::wire::signature::LabelledSignature;

/// One answer, or the end of the connection.
type Answer = Result<Response<Full<Bytes>>, String>;

/// Answers in order; keeps what was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Request<String>>>>,
    waits: Arc<Mutex<Vec<u64>>>,
}

impl Service<Request<String>> for Script {
    type Response = Response<Full<Bytes>>;
    type Error = String;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.asked.lock().unwrap().push(request);
        ready(self.answers.lock().unwrap().pop_front().expect("asked more often than the script answers"))
    }
}

fn answer(status: u16, fields: &[(&'static str, &str)], body: &str) -> Answer {
    let mut answer = Response::new(Full::from(body.to_owned()));
    *answer.status_mut() = status.try_into().unwrap();
    for (name, value) in fields {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    Ok(answer)
}

fn offer(id: &str, price: &str) -> Answer {
    let entry =
        json!({"scheme": "deferred", "network": "tollgate:deferred", "extras": {"id": id, "price": price, "ttl": 300}});
    answer(402, &[("tollgate-reason", "payment_required")], &json!({"accepts": [entry]}).to_string())
}

fn busy(reason: &str, retry_after: &str) -> Answer {
    answer(503, &[("tollgate-reason", reason), ("retry-after", retry_after)], "")
}

fn lost() -> Answer {
    Err("connection lost".to_owned())
}

impl Script {
    fn of(answers: impl IntoIterator<Item = Answer>) -> Script {
        let script = Script::default();
        script.answers.lock().unwrap().extend(answers);
        script
    }

    /// Sends one request through a layer that may spend 0.10 USD; waiting moves the clock.
    fn send(&self, change: impl FnOnce(PayLayer) -> PayLayer) -> Result<Response<Full<Bytes>>, PayError<String>> {
        let agent =
            Agent::new(AgentUrl::parse("https://signer.example.com").unwrap(), SigningKey::from_bytes(&[7; 32]));
        let (clock, waits) = (Clock::manual(1_700_000_000_000), self.waits.clone());
        let moved = clock.clone();
        let layer = PayLayer::new(agent, Budget::up_to(Money::parse("0.10 USD").unwrap())).time(clock, move |wait| {
            waits.lock().unwrap().push(wait.as_millis() as u64);
            moved.advance(wait.as_millis() as u64);
            Box::pin(ready(()))
        });
        let request = Request::post("http://Shop.example:80/p?q=1").body("the body".to_owned()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(change(layer).layer(self.clone()).oneshot(request))
    }

    /// The ids that were paid with, attempt by attempt.
    fn paid_ids(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let payment = |r: &Request<String>| Some(r.headers().get("payment")?.to_str().unwrap().to_owned());
        asked.iter().filter_map(payment).map(|text| Payment::parse(&text).unwrap().id).collect()
    }

    fn signatures(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter_map(|r| Some(r.headers().get("signature")?.to_str().unwrap().to_owned())).collect()
    }

    fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[test]
fn what_is_free_passes_through() {
    for status in [200, 304, 403, 404, 503] {
        let script = Script::of([answer(status, &[], "free")]);
        let answer = script.send(|l| l).unwrap();
        assert_eq!((answer.status().as_u16(), script.calls()), (status, 1));
        assert!(answer.extensions().get::<Paid>().is_none());
    }
}

#[test]
fn a_402_is_paid_once_with_the_same_request() {
    let script = Script::of([offer("a", "0.01 USD"), answer(200, &[], "bought")]);
    let answer = script.send(|l| l).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.extensions().get::<Paid>().map(|paid| (paid.offer.id(), paid.resends)), Some((Some("a"), 0)));
    let asked = script.asked.lock().unwrap();
    assert_eq!((asked[0].body(), asked[1].body()), (&"the body".to_owned(), &"the body".to_owned()));
    let (mut head, _) = asked[1].clone().into_parts();
    let signature = LabelledSignature::parse_all(&head.headers, false).unwrap().remove(0);
    assert!(signature.params.nonce.as_ref().is_some_and(|nonce| nonce.len() == 22));
    let headers: HeaderMap = std::mem::take(&mut head.headers);
    let view = RequestView {
        method: "POST",
        scheme: "http",
        authority: "shop.example",
        path: "/p",
        query: Some("q=1"),
        headers: &headers,
    };
    let key = crate::agent::signer::public_jwk(&SigningKey::from_bytes(&[7; 32])).public_key(false).unwrap();
    assert!(key.verifies(signature.base(&view).unwrap().as_bytes(), &signature.signature));
}

#[test]
fn over_budget_nothing_is_signed() {
    let script = Script::of([offer("a", "0.11 USD")]);
    let error = script.send(|l| l).unwrap_err();
    assert!(matches!(error, PayError::OverBudget(_)), "{error}");
    assert_eq!(error.to_string(), "the offer asks 0.11 USD, the budget is 0.10 USD");
    let script = Script::of([offer("a", "0.01 EUR")]);
    assert!(matches!(script.send(|l| l), Err(PayError::OverBudget(_))));
    assert_eq!(script.calls(), 1);
}

#[test]
fn the_callback_decides() {
    let script = Script::of([offer("a", "0.01 USD")]);
    let error = script.send(|l| l.ask(|offer| offer.id() != Some("a"))).unwrap_err();
    assert_eq!((error.to_string().as_str(), script.calls()), ("the offer of 0.01 USD was declined", 1));
}

#[test]
fn a_402_without_a_payable_offer_is_an_error() {
    for (body, expect) in [
        ("", "carries no offer"),
        ("<html>", "not JSON"),
        (r#"{"accepts":[{"scheme":"upto"}]}"#, "takes only `upto`"),
        (r#"{"accepts":[{"scheme":"deferred","network":"n"}]}"#, "offer 1: `id` is missing"),
        (&" ".repeat(BODY_BYTES_MAX + 1), "length limit exceeded"),
    ] {
        let script = Script::of([answer(402, &[], body)]);
        let error = script.send(|l| l).unwrap_err().to_string();
        assert!(error.contains(expect) && script.calls() == 1, "{error}");
    }
    let script = Script::of([answer(402, &[("crawler-price", "USD 0.01")], "A crawler can pay for this.")]);
    let error = script.send(|l| l).unwrap_err().to_string();
    assert!(error.contains("takes only crawl (pay per crawl)"), "{error}");
}

#[test]
fn after_an_unclear_end_the_same_payment_goes_out_again() {
    for unclear in [
        lost(),
        busy("payment_in_flight", "2"),
        busy("directory_unavailable", "2"),
        busy("ledger_unavailable", "2"),
        busy("overloaded", "2"),
    ] {
        let script = Script::of([offer("a", "0.01 USD"), unclear, answer(200, &[], "bought")]);
        let answer = script.send(|l| l).unwrap();
        assert_eq!((answer.status(), answer.extensions().get::<Paid>().unwrap().resends), (StatusCode::OK, 1));
        assert_eq!(script.paid_ids(), ["a", "a"]);
        let signatures = script.signatures();
        assert_eq!(signatures[0], signatures[1]);
    }
}

#[test]
fn waits_follow_retry_after_and_grow_without_it() {
    let script = Script::of([
        offer("a", "0.01 USD"),
        busy("payment_in_flight", "7"),
        lost(),
        busy("payment_in_flight", "0"),
        answer(200, &[], ""),
    ]);
    script.send(|l| l).unwrap();
    assert_eq!(*script.waits.lock().unwrap(), [7000, 500, 250]);
}

#[test]
fn a_fresh_offer_after_an_unclear_end_is_not_paid() {
    let used = answer(402, &[("tollgate-reason", "already_used")], r#"{"accepts":[]}"#);
    let script = Script::of([offer("a", "0.01 USD"), lost(), used]);
    assert_eq!(script.send(|l| l).unwrap().status(), 402);
    assert_eq!(script.paid_ids(), ["a", "a"]);
    let script = Script::of([offer("a", "0.01 USD"), lost(), offer("b", "0.01 USD")]);
    assert_eq!(script.send(|l| l).unwrap().status(), 402);
    assert_eq!(script.paid_ids(), ["a", "a"]);
}

#[test]
fn a_refusal_is_final() {
    for status in [400, 402, 403, 429, 500, 503] {
        let script = Script::of([offer("a", "0.01 USD"), answer(status, &[("retry-after", "1")], "")]);
        assert_eq!(script.send(|l| l).unwrap().status().as_u16(), status);
        assert_eq!(script.paid_ids(), ["a"]);
    }
}

#[test]
fn it_gives_up_within_bounds_and_says_that_money_may_have_moved() {
    let script = Script::of([offer("a", "0.01 USD"), lost(), lost(), lost()]);
    let error = script.send(|l| l.resends(2)).unwrap_err();
    assert_eq!(error.to_string(), "0.01 USD may have been charged; no answer came: connection lost");
    assert_eq!(script.paid_ids(), ["a"; 3]);
    // A wait that is too long is not begun; the answer is handed on.
    let script = Script::of([offer("a", "0.01 USD"), busy("ledger_unavailable", "3600")]);
    assert_eq!(script.send(|l| l).unwrap().status(), 503);
    assert!(script.waits.lock().unwrap().is_empty());
}

#[test]
fn a_signature_that_ended_while_waiting_is_renewed_for_the_same_id_while_the_offer_stands() {
    let busy = || busy("ledger_unavailable", "30");
    let script = Script::of([offer("a", "0.01 USD"), busy(), busy(), answer(200, &[], "")]);
    assert_eq!(script.send(|l| l).unwrap().status(), 200);
    assert_eq!(script.paid_ids(), ["a"; 3]);
    let signatures = script.signatures();
    assert_eq!(signatures[0], signatures[1]);
    assert_ne!(signatures[1], signatures[2]);
    // 300 s of offer are over before the eleventh attempt.
    let script = Script::of(std::iter::once(offer("a", "0.01 USD")).chain(std::iter::repeat_with(busy).take(20)));
    assert_eq!(script.send(|l| l.resends(20)).unwrap().status(), 503);
    assert_eq!(script.paid_ids().len(), 10);
}

#[test]
fn a_request_that_pays_itself_is_left_alone() {
    let script = Script::of([offer("a", "0.01 USD")]);
    let agent = Agent::new(AgentUrl::parse("https://a.example").unwrap(), SigningKey::from_bytes(&[7; 32]));
    let layer = PayLayer::new(agent, Budget::up_to(Money::parse("1 USD").unwrap()));
    let request = Request::get("http://shop.example/").header("payment", "x").body(String::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime.block_on(layer.layer(script.clone()).oneshot(request)).unwrap();
    assert_eq!((answer.status().as_u16(), script.calls()), (402, 1));
}

#[test]
fn events_are_told_in_order() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = told.clone();
    let script = Script::of([offer("a", "0.01 USD"), lost(), answer(200, &[], "")]);
    let watch = move |event: Event<'_>| {
        keep.lock().unwrap().push(match event {
            Event::Offered(offers) => format!("offered {}", offers.len()),
            Event::Paying { offer, payment } => format!("paying {} {}", offer.price, payment.fields.len()),
            Event::Resending { why, .. } => format!("again: {why}"),
        });
    };
    script.send(|l| l.watch(watch)).unwrap();
    assert_eq!(*told.lock().unwrap(), ["offered 1", "paying 0.01 USD 4", "again: connection lost"]);
}

impl PayLayer {
    /// Other means in a layer of [`Script::send`].
    fn with(mut self, means: impl Into<Means>) -> PayLayer {
        self.0.means = means.into();
        self
    }
}

#[path = "token_tests.rs"]
mod token;
