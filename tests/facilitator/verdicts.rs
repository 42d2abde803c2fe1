//! Each way to answer, for `/verify` and `/settle`.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use tollgate::facilitator::{Endpoint, Facilitators, Limits, RAW_BYTES_MAX, SettleOutcome, contradiction};
use tollgate::wire::x402::facilitator::{SettleVerdict, VerifyVerdict};
use tollgate::wire::x402::network::Network;
use tollgate::wire::x402::requirements::Requirements;

use super::support::facilitator::{Behaviour, Facilitator, Gate};
use super::{body, kind, knows, patient, said, until};

/// Answers that say nothing, with a word of why.
fn silent(canary: &Facilitator) -> Vec<(Behaviour, &'static str)> {
    vec![
        (Behaviour::Status(500), "status 500"),
        (Behaviour::Status(502), "status 502"),
        (Behaviour::Status(401), "status 401"),
        (Behaviour::Status(204), "status 204"),
        (Behaviour::Busy(1), "status 429"),
        (Behaviour::Json(200, json!({})), "missing or malformed"),
        (Behaviour::Json(200, json!([true])), "not a JSON object"),
        (Behaviour::Json(200, json!({"isValid": "true", "success": "true"})), "missing or malformed"),
        (Behaviour::Redirect(308, canary.url()), "redirects are not followed"),
        (Behaviour::Redirect(302, canary.url()), "redirects are not followed"),
        (Behaviour::Garbage, "not a JSON object"),
        (Behaviour::Huge, "longer than"),
        (Behaviour::Half, "broke off"),
        (Behaviour::Reset, "connection broke"),
    ]
}

#[tokio::test]
async fn what_verify_says() {
    let double = Facilitator::start();
    let facilitators = knows(&[&double], patient()).await;
    let (i, verdict, raw) = facilitators.verify(&kind(), body(), None).await.unwrap();
    assert!(i == 0 && matches!(verdict, VerifyVerdict::Valid(_)) && raw.starts_with(b"{\"isValid\":true"));
    // A refusal counts whatever the status.
    let refusal = json!({"isValid": false, "invalidReason": "insufficient_funds"});
    for behaviour in [
        Behaviour::Invalid("insufficient_funds"),
        Behaviour::Json(400, refusal.clone()),
        Behaviour::Json(500, refusal.clone()),
    ] {
        double.next("/verify", behaviour);
        let (_, verdict, _) = facilitators.verify(&kind(), body(), None).await.unwrap();
        let VerifyVerdict::Invalid(verified) = verdict else { panic!("{verdict:?}") };
        assert_eq!(verified.reason.as_deref(), Some("insufficient_funds"));
    }
    assert_eq!(double.count("/verify"), 4, "each once");
}

#[tokio::test]
async fn what_verify_leaves_open_is_asked_again_once() {
    let (double, canary) = (Facilitator::start(), Facilitator::start());
    let facilitators = knows(&[&double], patient()).await;
    let cases = [
        silent(&canary),
        vec![(Behaviour::Json(500, json!({"isValid": true})), "status 500")],
        vec![(Behaviour::Json(308, json!({"isValid": false})), "status 308")],
    ];
    for (behaviour, why) in cases.concat() {
        let before = double.count("/verify");
        double.always("/verify", behaviour);
        let unavailable = facilitators.verify(&kind(), body(), None).await.unwrap_err();
        assert!(unavailable.why.contains(why) && unavailable.retry_after >= 1, "{why}: {unavailable:?}");
        // A call over a kept connection that breaks is repeated besides: it may have been closed for idleness.
        let asked = double.count("/verify") - before;
        assert!(asked == 2 || (asked == 3 && why == "connection broke"), "{why}: {asked}");
        double.next("/verify", Behaviour::Status(500));
        double.always("/verify", Behaviour::Good);
        assert!(facilitators.verify(&kind(), body(), Some(0)).await.is_ok(), "the second attempt");
    }
    assert_eq!(canary.calls().len(), 0);
}

#[tokio::test]
async fn what_settle_says_is_asked_once() {
    let (double, canary) = (Facilitator::start(), Facilitator::start());
    let facilitators = knows(&[&double], patient()).await;
    let failed = json!({"success": false, "errorReason": "insufficient_funds", "transaction": "", "network": "n"});
    let mut cases = silent(&canary).into_iter().map(|(b, why)| (b, format!("unknown {why}"))).collect::<Vec<_>>();
    for (behaviour, expect) in [
        (Behaviour::Good, "success 0x"),
        (Behaviour::Refused("insufficient_funds"), "refused insufficient_funds"),
        (Behaviour::Json(402, failed.clone()), "refused insufficient_funds"),
        (Behaviour::Json(500, failed), "refused insufficient_funds"),
        (Behaviour::Json(200, json!({"success": false})), "refused unexpected_settle_error"),
        (Behaviour::Pending(500), "pending 0x"),
        (Behaviour::Pending(200), "pending 0x"),
        (Behaviour::Json(301, json!({"success": false, "errorReason": "x"})), "unknown redirects are not followed"),
    ] {
        cases.push((behaviour, expect.to_owned()));
    }
    for (n, (behaviour, expect)) in cases.into_iter().enumerate() {
        double.next("/settle", behaviour);
        let outcome = said(&facilitators.settle(0, body()).await);
        let (class, words) = expect.split_once(' ').unwrap();
        assert!(outcome.starts_with(class) && outcome.contains(words), "{expect}: {outcome}");
        assert_eq!(double.count("/settle"), n + 1, "{expect}");
    }
    assert_eq!(canary.calls().len(), 0);
    // Each over a connection of its own, so that none meets one that is being closed.
    let mut connections: Vec<_> = double.calls().iter().map(|call| call.connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), double.calls().len());
}

#[tokio::test]
async fn before_the_request_nothing_was_sent_and_after_it_nothing_is_known() {
    let double = Facilitator::start();
    let facilitators = knows(&[&double], patient()).await;
    double.reset_unread();
    let outcome = said(&facilitators.settle(0, body()).await);
    // A reset that comes before the request is written is known to have sent nothing.
    assert!(outcome.starts_with("unknown ") || outcome.starts_with("not sent "), "{outcome}");
    assert_eq!(double.count("/settle"), 0);

    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let closed = Endpoint::http("closed", &format!("http://{address}"), None, None).unwrap();
    // Nobody answers the TLS handshake.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("https://{}", silent.local_addr().unwrap());
    let endpoints = vec![closed, Endpoint::http("silent", &silent_url, None, None).unwrap()];
    let limits = Limits { connect: Duration::from_millis(50), ..patient() };
    let (facilitators, service) = Facilitators::new(endpoints, limits);
    tokio::spawn(service.run());
    for i in [0, 1] {
        let outcome = facilitators.settle(i, body()).await;
        assert!(said(&outcome).starts_with("not sent no connection"), "{outcome:?}");
    }
    let unavailable = facilitators.verify(&kind(), body(), None).await.unwrap_err();
    assert!(unavailable.why.contains("closed: no connection") && unavailable.why.contains("silent: no connection"));
    assert!(matches!(facilitators.settle(7, body()).await, SettleOutcome::NotSent(_)));
}

#[tokio::test]
async fn a_late_answer_is_an_unknown_outcome() {
    let double = Facilitator::start();
    let short = Duration::from_millis(100);
    let facilitators = knows(&[&double], Limits { verify: short, settle: short, ..patient() }).await;
    let gate = Gate::default();
    double.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    double.next("/verify", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    assert_eq!(said(&facilitators.settle(0, body()).await), "unknown no answer in time");
    // It kept one client waiting for long enough.
    let unavailable = facilitators.verify(&kind(), body(), None).await.unwrap_err();
    assert!(unavailable.why.ends_with("no answer in time"), "{unavailable:?}");
    gate.open();
    assert_eq!((double.count("/settle"), double.count("/verify")), (1, 1));
}

#[tokio::test]
async fn a_settlement_goes_on_when_its_caller_leaves() {
    let double = Facilitator::start();
    let facilitators = knows(&[&double], Limits { failures: 1, ..Limits::default() }).await;
    let gate = Gate::default();
    double.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Garbage)));
    let caller = tokio::spawn({
        let facilitators = facilitators.clone();
        async move { facilitators.settle(0, body()).await }
    });
    until(|| double.count("/settle") == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert!(facilitators.failing().is_empty());
    gate.open();
    // The answer was still read.
    until(|| !facilitators.failing().is_empty()).await;
    assert_eq!(double.count("/settle"), 1);
}

#[tokio::test]
async fn a_lie_is_handed_on_and_found() {
    let double = Facilitator::start();
    let facilitators = knows(&[&double], patient()).await;
    let asked = Requirements {
        scheme: "exact".into(),
        network: Network::parse("eip155:84532").unwrap(),
        amount: 10_000,
        asset: String::new(),
        pay_to: String::new(),
        max_timeout_seconds: 60,
        extra: serde_json::Map::new(),
    };
    for (network, amount, lie) in [
        ("eip155:84532", "10000", None),
        ("eip155:8453", "10000", Some("eip155:8453")),
        ("eip155:84532", "1", Some("\"1\"")),
    ] {
        double.next("/settle", Behaviour::Lie { network, amount });
        let outcome = facilitators.settle(0, body()).await;
        let SettleOutcome::Verdict(SettleVerdict::Success(settled), _) = &outcome else { panic!("{outcome:?}") };
        let found = contradiction(settled, &asked, None);
        assert_eq!(found.is_some(), lie.is_some());
        assert!(found.unwrap_or_default().contains(lie.unwrap_or_default()));
    }
}

#[tokio::test]
async fn evidence_of_an_answer_is_short() {
    let double = Facilitator::start();
    let facilitators = knows(&[&double], patient()).await;
    let long = json!({"isValid": true, "success": true, "transaction": "0x1", "more": "m".repeat(100_000)});
    double.always("/verify", Behaviour::Json(200, long.clone()));
    double.next("/settle", Behaviour::Json(200, long));
    let (_, verdict, raw) = facilitators.verify(&kind(), body(), None).await.unwrap();
    assert!(matches!(verdict, VerifyVerdict::Valid(_)) && raw.len() == RAW_BYTES_MAX);
    let SettleOutcome::Verdict(SettleVerdict::Success(_), raw) = facilitators.settle(0, body()).await else { panic!() };
    assert_eq!(raw.len(), RAW_BYTES_MAX);
}

#[tokio::test]
async fn checks_share_connections_and_survive_one_that_was_closed() {
    let double = Facilitator::start();
    let facilitators = knows(&[&double], patient()).await;
    for _ in 0..3 {
        facilitators.verify(&kind(), body(), None).await.unwrap();
    }
    let connections = |double: &Facilitator| double.calls().iter().map(|c| c.connection).collect::<Vec<_>>();
    assert_eq!(connections(&double), [0, 0, 0, 0], "`/supported` and three checks");
    double.next("/verify", Behaviour::GoodThenClose);
    for _ in 0..3 {
        facilitators.verify(&kind(), body(), None).await.unwrap();
    }
    assert_eq!(connections(&double)[4..], [0, 1, 1]);
}
