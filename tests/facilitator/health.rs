//! Failover, limits, the breaker, what is supported, and what is logged.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use serde_json::json;
use tollgate::facilitator::{Endpoint, Facilitators, Kind, Limits};
use tollgate::wire::x402::Version;
use tollgate::wire::x402::facilitator::VerifyVerdict;

use super::support::facilitator::{Behaviour, Facilitator, Gate};
use super::{body, kind, knows, patient, said, until};

#[tokio::test]
async fn a_check_fails_over_and_a_refusal_does_not() {
    let (first, second) = (Facilitator::start(), Facilitator::start());
    let facilitators = knows(&[&first, &second], patient()).await;
    assert_eq!(facilitators.verify(&kind(), body(), None).await.unwrap().0, 0);
    for behaviour in
        [Behaviour::Status(503), Behaviour::Reset, Behaviour::Garbage, Behaviour::Redirect(308, second.url())]
    {
        let before = second.count("/verify");
        first.always("/verify", behaviour);
        let (i, verdict, _) = facilitators.verify(&kind(), body(), None).await.unwrap();
        assert!(i == 1 && matches!(verdict, VerifyVerdict::Valid(_)));
        assert_eq!(second.count("/verify"), before + 1);
    }
    let before = second.count("/verify");
    // A payment that is fixed to one is nobody else's.
    let unavailable = facilitators.verify(&kind(), body(), Some(0)).await.unwrap_err();
    assert!(unavailable.why.contains(&first.addr.to_string()) && !unavailable.why.contains(&second.addr.to_string()));
    first.always("/verify", Behaviour::Invalid("insufficient_funds"));
    let (i, verdict, _) = facilitators.verify(&kind(), body(), None).await.unwrap();
    assert!(i == 0 && matches!(verdict, VerifyVerdict::Invalid(_)));
    assert_eq!(second.count("/verify"), before);
    first.always("/verify", Behaviour::Status(500));
    second.always("/verify", Behaviour::Status(500));
    let unavailable = facilitators.verify(&kind(), body(), None).await.unwrap_err();
    assert!([&first, &second].iter().all(|double| unavailable.why.contains(&double.addr.to_string())));
    first.always("/settle", Behaviour::Reset);
    assert!(said(&facilitators.settle(0, body()).await).starts_with("unknown"));
    assert_eq!((first.count("/settle"), second.count("/settle")), (1, 0), "a settlement goes nowhere else");
}

#[tokio::test]
async fn who_can_do_it_is_asked() {
    let (other, able) = (Facilitator::start(), Facilitator::start());
    let solana = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1";
    let kinds = json!({"kinds": [
        {"x402Version": 2, "scheme": "exact", "network": solana, "extra": {"feePayer": "F"}},
        {"x402Version": 1, "scheme": "exact", "network": "solana-devnet"}, {"broken": true},
    ]});
    other.next("/supported", Behaviour::Json(200, kinds));
    let facilitators = knows(&[&other, &able], patient()).await;
    assert_eq!(facilitators.verify(&kind(), body(), None).await.unwrap().0, 1);
    let v1 = Kind { version: Version::V1, network: "eip155:84532".into(), ..kind() };
    assert_eq!(facilitators.verify(&v1, body(), None).await.unwrap().0, 1, "either name of the network");
    assert_eq!(facilitators.extra(Version::V2, "exact", solana).unwrap()["feePayer"], "F");
    assert_eq!(facilitators.first_for(Version::V2, "exact", solana), Some(0));
    assert_eq!(facilitators.extra(Version::V2, "exact", "eip155:84532").unwrap().len(), 0);
    assert_eq!(facilitators.extra(Version::V2, "later", "eip155:84532"), None);
    let none = Kind { scheme: "later".into(), ..kind() };
    let unavailable = facilitators.verify(&none, body(), None).await.unwrap_err();
    assert!(unavailable.why.contains("later"));
    assert_eq!((other.count("/verify"), able.count("/verify")), (0, 2));
    assert_eq!((facilitators.find(&able.url()), facilitators.find("http://x")), (Some(1), None));
    assert_eq!((facilitators.url(1), facilitators.len()), (able.url().as_str(), 2));
}

#[tokio::test]
async fn what_is_supported_is_asked_until_it_is_known_and_then_kept() {
    let double = Facilitator::start();
    for behaviour in [Behaviour::Busy(0), Behaviour::Status(500), Behaviour::Garbage, Behaviour::Reset] {
        double.next("/supported", behaviour);
    }
    let endpoint = Endpoint::http("double", &format!("{}/", double.url()), None, None).unwrap();
    let limits = Limits { retry: Duration::from_millis(1), refresh: Duration::from_millis(5), ..patient() };
    let (facilitators, service) = Facilitators::new(vec![endpoint], limits);
    // Nothing waits for it: a payment is checked, and no offer has anything of it.
    assert_eq!(facilitators.extra(Version::V2, "exact", "eip155:84532"), None);
    tokio::spawn(service.run());
    assert!(facilitators.verify(&kind(), body(), None).await.is_ok());
    until(|| facilitators.supports(0, &kind()) == Some(true)).await;
    let known = double.count("/supported");
    assert!(known >= 5);
    double.always("/supported", Behaviour::Status(500));
    until(|| double.count("/supported") >= known + 3).await;
    assert_eq!(facilitators.supports(0, &kind()), Some(true));
}

#[tokio::test]
async fn calls_at_once_are_bounded_and_settlements_have_room() {
    let double = Facilitator::start();
    let limits = Limits { concurrency: 4, slot: Duration::from_millis(100), ..patient() };
    let facilitators = knows(&[&double], limits).await;
    let gate = Gate::default();
    double.rule({
        let gate = gate.clone();
        move |_| Behaviour::Held(gate.clone(), Box::new(Behaviour::Good))
    });
    let verify = || {
        let facilitators = facilitators.clone();
        tokio::spawn(async move { facilitators.verify(&kind(), body(), None).await })
    };
    let settle = || {
        let facilitators = facilitators.clone();
        tokio::spawn(async move { facilitators.settle(0, body()).await })
    };
    let held: Vec<_> = (0..3).map(|_| verify()).collect();
    until(|| double.count("/verify") == 3).await;
    let unavailable = verify().await.unwrap().unwrap_err();
    assert!(unavailable.why.ends_with("too many calls are under way"), "{unavailable:?}");
    let settled = settle();
    until(|| double.count("/settle") == 1).await;
    let turned_away = settle().await.unwrap();
    assert_eq!(said(&turned_away), "not sent too many calls are under way");
    assert_eq!((double.most_at_once(), double.count("/verify"), double.count("/settle")), (4, 3, 1));
    gate.open();
    for call in held {
        call.await.unwrap().unwrap();
    }
    assert!(said(&settled.await.unwrap()).starts_with("success"));
    assert!(facilitators.failing().is_empty(), "being busy is no failure of the facilitator");
}

#[tokio::test]
async fn what_does_not_fit_the_queue_is_not_sent_and_what_is_given_up_is_unknown() {
    let double = Facilitator::start();
    let endpoint = Endpoint::http("double", &double.url(), None, None).unwrap();
    let (facilitators, service) = Facilitators::new(vec![endpoint], patient());
    let asked = Arc::new(AtomicUsize::new(0));
    let waiting: Vec<_> = (0..1024)
        .map(|_| {
            let facilitators = facilitators.clone();
            let asked = asked.clone();
            tokio::spawn(async move {
                asked.fetch_add(1, Ordering::Relaxed);
                facilitators.settle(0, body()).await
            })
        })
        .collect();
    until(|| asked.load(Ordering::Relaxed) == 1024).await;
    assert!(said(&facilitators.settle(0, body()).await).starts_with("not sent"));
    assert!(facilitators.verify(&kind(), body(), None).await.unwrap_err().why.contains("too many"));
    drop(service);
    for call in waiting {
        assert!(said(&call.await.unwrap()).starts_with("unknown"), "it may have been taken");
    }
    assert!(said(&facilitators.settle(0, body()).await).starts_with("not sent"));
}

#[tokio::test]
async fn a_facilitator_that_fails_is_left_alone_but_still_settles() {
    let double = Facilitator::start();
    let limits = Limits { failures: 4, hold: Duration::from_secs(3600), ..Limits::default() };
    let facilitators = knows(&[&double], limits).await;
    double.always("/verify", Behaviour::Status(500));
    for _ in 0..2 {
        assert!(facilitators.failing().is_empty());
        facilitators.verify(&kind(), body(), None).await.unwrap_err();
    }
    assert_eq!((facilitators.failing().len(), double.count("/verify")), (1, 4));
    let unavailable = facilitators.verify(&kind(), body(), Some(0)).await.unwrap_err();
    assert!((3500..=3600).contains(&unavailable.retry_after), "{unavailable:?}");
    assert_eq!(double.count("/verify"), 4, "left alone");
    double.next("/settle", Behaviour::Status(500));
    assert!(said(&facilitators.settle(0, body()).await).starts_with("unknown"));
    assert_eq!(facilitators.failing().len(), 1);
    assert!(said(&facilitators.settle(0, body()).await).starts_with("success"));
    assert!(facilitators.failing().is_empty(), "it answers again");
    // Refusals and what is pending are answers.
    double.always("/verify", Behaviour::Invalid("insufficient_funds"));
    for _ in 0..6 {
        facilitators.verify(&kind(), body(), None).await.unwrap();
        double.next("/settle", Behaviour::Pending(500));
        facilitators.settle(0, body()).await;
    }
    assert!(facilitators.failing().is_empty());
}

/// Whoever finds a payment that it chokes on must not be able to have it left alone.
#[tokio::test]
async fn a_payment_that_is_not_taken_says_nothing_of_the_facilitators_health() {
    let (double, second) = (Facilitator::start(), Facilitator::start());
    let limits = Limits { failures: 2, hold: Duration::from_secs(3600), ..Limits::default() };
    let facilitators = knows(&[&double, &second], limits).await;
    for status in [400, 409, 413, 422] {
        double.always("/verify", Behaviour::Status(status));
        for _ in 0..3 {
            assert_eq!(facilitators.verify(&kind(), body(), None).await.unwrap().0, 1, "{status}: the next is asked");
        }
        assert!(facilitators.failing().is_empty(), "{status}");
        // Nor does it say that it is well again.
        double.next("/verify", Behaviour::Status(500));
        double.next("/verify", Behaviour::Status(status));
        for _ in 0..2 {
            facilitators.verify(&kind(), body(), None).await.unwrap();
        }
        double.next("/verify", Behaviour::Good);
        assert_eq!(facilitators.verify(&kind(), body(), None).await.unwrap().0, 0);
    }
    for status in [401, 403, 404, 405, 408, 429, 500] {
        double.always("/verify", Behaviour::Good);
        double.next("/verify", Behaviour::Status(status));
        double.next("/verify", Behaviour::Status(400));
        double.next("/verify", Behaviour::Status(status));
        // It takes a success to close it: a settlement is made in any case.
        for _ in 0..3 {
            assert_eq!(facilitators.verify(&kind(), body(), None).await.unwrap().0, 1);
        }
        assert_eq!(facilitators.failing().len(), 1, "{status}");
        facilitators.settle(0, body()).await;
        assert!(facilitators.failing().is_empty());
    }
}

#[tokio::test]
async fn a_probe_finds_out_that_a_facilitator_is_back() {
    let (double, second) = (Facilitator::start(), Facilitator::start());
    let (hold, hold_max) = (Duration::from_millis(20), Duration::from_millis(40));
    let facilitators = knows(&[&double, &second], Limits { failures: 1, hold, hold_max, ..Limits::default() }).await;
    double.always("/verify", Behaviour::Reset);
    assert_eq!(facilitators.verify(&kind(), body(), None).await.unwrap().0, 1);
    assert_eq!(facilitators.failing().len(), 1);
    let failed = double.count("/verify");
    while double.count("/verify") < failed + 2 {
        assert_eq!(facilitators.verify(&kind(), body(), None).await.unwrap().0, 1, "clients do not notice");
    }
    double.always("/verify", Behaviour::Good);
    while facilitators.verify(&kind(), body(), None).await.unwrap().0 != 0 {
        tokio::task::yield_now().await;
    }
    assert!(facilitators.failing().is_empty());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn authorization_is_sent_with_every_call_and_neither_it_nor_a_payment_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let double = Facilitator::start();
    let secret = HeaderValue::from_static("Bearer s3cret");
    let endpoint = Endpoint::http("cdp", &double.url(), Some(secret), None).unwrap();
    let (facilitators, service) = Facilitators::new(vec![endpoint], Limits { failures: 2, ..Limits::default() });
    let shown = format!("{facilitators:?}");
    tokio::spawn(service.run());
    until(|| facilitators.supports(0, &kind()).is_some()).await;
    for behaviour in [Behaviour::Good, Behaviour::Garbage, Behaviour::Reset, Behaviour::Status(401)] {
        double.next("/verify", behaviour.clone());
        double.next("/settle", behaviour);
        drop(facilitators.verify(&kind(), body(), None).await);
        drop(facilitators.settle(0, body()).await);
    }
    let calls = double.calls();
    assert!(["/supported", "/verify", "/settle"].iter().all(|path| calls.iter().any(|call| call.path == *path)));
    for call in &calls {
        assert_eq!(call.header("authorization"), Some("Bearer s3cret"), "{}", call.path);
        let posted = call.path != "/supported";
        assert_eq!(call.header("content-type"), posted.then_some("application/json"));
        assert_eq!(call.body, if posted { serde_json::from_slice(&body()).unwrap() } else { json!(null) });
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("no verdict") && text.contains("left alone"), "{text}");
    for secret in ["s3cret", "s1gned", "0xf39F"] {
        assert!(!text.contains(secret) && !shown.contains(secret), "{secret} in {text}{shown}");
    }
}
