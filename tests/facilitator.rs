//! Facilitators over real sockets: what each answer, and each lack of one, is taken for, and how often they are asked.

mod support;

#[path = "facilitator/health.rs"]
mod health;
#[path = "facilitator/sandbox.rs"]
mod sandbox;
#[path = "facilitator/secure.rs"]
mod secure;
#[path = "facilitator/verdicts.rs"]
mod verdicts;

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use support::facilitator::Facilitator;
use tollgate::facilitator::{Endpoint, Facilitators, Kind, Limits, SettleOutcome};
use tollgate::wire::x402::Version;
use tollgate::wire::x402::facilitator::SettleVerdict;

/// What `run` needs at least, with all waits of the breaker out of the way.
fn patient() -> Limits {
    Limits { failures: u32::MAX, ..Limits::default() }
}

/// The gateway's side of `doubles`, with what they support known.
async fn knows(doubles: &[&Facilitator], limits: Limits) -> Facilitators {
    let endpoint = |double: &&Facilitator| Endpoint::http(double.addr.to_string(), &double.url(), None, None).unwrap();
    let (facilitators, service) = Facilitators::new(doubles.iter().map(endpoint).collect(), limits);
    tokio::spawn(service.run());
    for i in 0..doubles.len() {
        until(|| facilitators.supports(i, &kind()).is_some()).await;
    }
    facilitators
}

/// Lets other tasks run until something holds.
async fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "it never came to pass");
        tokio::task::yield_now().await;
    }
}

fn kind() -> Kind {
    Kind { version: Version::V2, scheme: "exact".into(), network: "eip155:84532".into() }
}

fn body() -> Bytes {
    let from = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    let asked = json!({"scheme": "exact", "network": "eip155:84532", "amount": "10000", "payTo": "0x0"});
    let payload = json!({"x402Version": 2, "payload": {"authorization": {"from": from}, "signature": "0xs1gned"}});
    let body = json!({"x402Version": 2, "paymentPayload": payload, "paymentRequirements": asked});
    body.to_string().into()
}

/// `success 0x…`, `refused REASON`, `unknown WHY`, `pending 0x…`, `not sent WHY`.
fn said(outcome: &SettleOutcome) -> String {
    match outcome {
        SettleOutcome::NotSent(why) => format!("not sent {why}"),
        SettleOutcome::Verdict(SettleVerdict::Success(settled), raw) => {
            assert_eq!(serde_json::from_slice::<Value>(raw).unwrap()["transaction"], settled.transaction);
            format!("success {}", settled.transaction)
        }
        SettleOutcome::Verdict(SettleVerdict::Refused(reason, _), _) => format!("refused {reason}"),
        SettleOutcome::Verdict(SettleVerdict::Unknown { answer: Some(answer), .. }, _) => {
            format!("pending {}", answer.transaction)
        }
        SettleOutcome::Verdict(SettleVerdict::Unknown { why, .. }, _) => format!("unknown {why}"),
    }
}
