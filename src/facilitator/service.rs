//! The control thread's side: makes the calls, each in a task that ends with its deadline whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{SemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::calls::{RAW_BYTES_MAX, SettleOutcome};
use super::http::{Answer, Ask, Failed, Http, Stage};
use super::state::{Backend, Facilitator, Shared};
use super::supported;
use crate::wire::x402::facilitator::{SettleVerdict, VerifyVerdict, settle_verdict, verify_verdict};

/// Calls under way, those that wait for a slot included; more are turned away unsent.
const TASKS_MAX: usize = 4096;
/// Seconds, when nothing better is known.
const RETRY_AFTER: u64 = 5;
/// Statuses that blame the payment, so that they say nothing of the facilitator's health: malformed, in conflict with its state,
/// too large, not to be processed. Others of 4xx blame the gateway (401, 403, 404) or the load (408, 429).
const PAYMENTS_FAULT: [u16; 4] = [400, 409, 413, 422];

/// Makes the calls. [`Service::run`] it on the control thread, and keep that alive until the last payment has ended.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    calls: mpsc::Receiver<Call>,
}

/// A call from a core.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) facilitator: usize,
    pub(super) body: Bytes,
    pub(super) question: Question,
}

/// What is asked, and where the answer goes.
#[derive(Debug)]
pub(super) enum Question {
    /// The answer is never `Unknown`.
    Verify(oneshot::Sender<Result<(VerifyVerdict, Bytes), Missed>>),
    Settle(oneshot::Sender<SettleOutcome>),
}

/// Nothing was learned from one `/verify`.
#[derive(Debug, Clone)]
pub(super) struct Missed {
    pub(super) why: String,
    /// Seconds.
    pub(super) retry_after: u64,
    /// Asking the same facilitator again at once may help.
    pub(super) again: bool,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>, calls: mpsc::Receiver<Call>) -> Service {
        Service { shared, calls }
    }

    /// Makes calls until the last [`Facilitators`](super::Facilitators) is gone and its calls have ended. Dropping it
    /// gives all of them up, which leaves settlements with an unknown outcome.
    pub async fn run(mut self) {
        let mut looks = JoinSet::new();
        for i in 0..self.shared.all.len() {
            looks.spawn(supported::keep(self.shared.clone(), i));
        }
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = tasks.join_next() => {}
                call = self.calls.recv() => match call {
                    Some(call) if tasks.len() < TASKS_MAX => drop(tasks.spawn(perform(self.shared.clone(), call))),
                    Some(call) => call.refuse(),
                    None => break,
                },
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Call {
    fn refuse(self) {
        let why = "too many calls are under way".to_owned();
        // A dropped receiver waits for nothing.
        match self.question {
            Question::Verify(answer) => {
                drop(answer.send(Err(Missed { why, retry_after: RETRY_AFTER, again: false })));
            }
            Question::Settle(answer) => drop(answer.send(SettleOutcome::NotSent(why))),
        }
    }
}

async fn perform(shared: Arc<Shared>, call: Call) {
    let Some(facilitator) = shared.all.get(call.facilitator) else { return call.refuse() };
    match call.question {
        Question::Verify(mut answer) => {
            // A question that nobody waits for any more costs the facilitator nothing.
            let said = tokio::select! {
                said = verify(&shared, facilitator, call.body) => said,
                () = answer.closed() => return,
            };
            drop(answer.send(said));
        }
        Question::Settle(answer) => drop(answer.send(settle(&shared, facilitator, call.body).await)),
    }
}

async fn verify(shared: &Shared, facilitator: &Facilitator, body: Bytes) -> Result<(VerifyVerdict, Bytes), Missed> {
    let busy = || Missed { why: "too many calls are under way".to_owned(), retry_after: 1, again: false };
    let until = Instant::now() + shared.limits.slot;
    let _verify = slot(&facilitator.verifies, until).await.ok_or_else(busy)?;
    let _slot = slot(&facilitator.slots, until).await.ok_or_else(busy)?;
    let probe = facilitator.breaker(|breaker| breaker.admit(Instant::now())).map_err(Missed::open)?;
    let _turn = probe.then_some(Turn(facilitator));
    let (mut late, mut payments_fault) = (false, false);
    let (verdict, raw) = match &facilitator.endpoint.backend {
        Backend::Sandbox(sandbox) => {
            let answer = sandbox.verify(&body);
            (verify_verdict(200, &answer), answer)
        }
        Backend::Http(http) => {
            match ask(http, "/verify", body, true, shared.limits.connect, shared.limits.verify).await {
                Ok(answer) => {
                    payments_fault = PAYMENTS_FAULT.contains(&answer.status.as_u16());
                    (judge(&answer, verify_verdict, VerifyVerdict::Unknown), answer.body)
                }
                Err(Failed::NotSent(why)) => (VerifyVerdict::Unknown(why), Bytes::new()),
                Err(Failed::Lost { why, at }) => {
                    late = at == Stage::Late;
                    (VerifyVerdict::Unknown(why), Bytes::new())
                }
            }
        }
    };
    match &verdict {
        // Else whoever finds a payment that it chokes on could have it left alone.
        VerifyVerdict::Unknown(why) if payments_fault => {
            tracing::warn!(facilitator = %facilitator.endpoint.name, "/verify did not take a payment: {why}");
        }
        VerifyVerdict::Unknown(why) => note(shared, facilitator, "/verify", Some(why)),
        VerifyVerdict::Valid(_) | VerifyVerdict::Invalid(_) => note(shared, facilitator, "/verify", None),
    }
    match verdict {
        VerifyVerdict::Unknown(why) => Err(Missed { why, retry_after: RETRY_AFTER, again: !late }),
        verdict => Ok((verdict, cut(raw))),
    }
}

async fn settle(shared: &Shared, facilitator: &Facilitator, body: Bytes) -> SettleOutcome {
    let Some(_slot) = slot(&facilitator.slots, Instant::now() + shared.limits.slot).await else {
        return SettleOutcome::NotSent("too many calls are under way".to_owned());
    };
    let http = match &facilitator.endpoint.backend {
        Backend::Http(http) => http,
        Backend::Sandbox(sandbox) => {
            let answer = sandbox.settle(&body);
            return SettleOutcome::Verdict(settle_verdict(200, &answer), cut(answer));
        }
    };
    let unknown = |why| SettleVerdict::Unknown { why, answer: None };
    let (verdict, raw) = match ask(http, "/settle", body, false, shared.limits.connect, shared.limits.settle).await {
        Ok(answer) => (judge(&answer, settle_verdict, unknown), answer.body),
        Err(Failed::Lost { why, .. }) => (unknown(why), Bytes::new()),
        Err(Failed::NotSent(why)) => {
            note(shared, facilitator, "/settle", Some(&why));
            return SettleOutcome::NotSent(why);
        }
    };
    note(
        shared,
        facilitator,
        "/settle",
        match &verdict {
            // One that is pending was answered all the same.
            SettleVerdict::Unknown { why, answer: None } => Some(why),
            _ => None,
        },
    );
    SettleOutcome::Verdict(verdict, cut(raw))
}

async fn ask(
    http: &Http,
    path: &str,
    body: Bytes,
    repeatable: bool,
    connect: Duration,
    within: Duration,
) -> Result<Answer, Failed> {
    let deadline = Instant::now() + within;
    http.ask(Ask { path, body: Some(body), repeatable, connect, deadline }).await
}

/// What an answer says. A redirect says nothing, whatever is written in it: the one who was asked did not answer.
fn judge<T>(answer: &Answer, read: fn(u16, &[u8]) -> T, unknown: impl FnOnce(String) -> T) -> T {
    let status = answer.status.as_u16();
    if answer.status.is_redirection() {
        return unknown(format!("status {status}: redirects are not followed"));
    }
    read(status, &answer.body)
}

/// Tells the breaker how a call ended.
fn note(shared: &Shared, facilitator: &Facilitator, path: &str, failure: Option<&String>) {
    let name = &facilitator.endpoint.name;
    match failure {
        None => {
            if facilitator.breaker(|breaker| breaker.succeeded()) {
                tracing::info!(facilitator = %name, "answers again");
            }
        }
        Some(why) => {
            tracing::warn!(facilitator = %name, path, "no verdict: {why}");
            if facilitator.breaker(|breaker| breaker.failed(Instant::now(), &shared.limits)) {
                tracing::error!(facilitator = %name, "left alone for a while: it failed too often");
            }
        }
    }
}

async fn slot(slots: &tokio::sync::Semaphore, until: Instant) -> Option<SemaphorePermit<'_>> {
    timeout_at(until, slots.acquire()).await.ok()?.ok()
}

/// The turn of a probe, given back however the probe ends.
struct Turn<'a>(&'a Facilitator);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.breaker(|breaker| breaker.ended());
    }
}

/// Copied, so that evidence does not hold a large answer in memory.
fn cut(raw: Bytes) -> Bytes {
    if raw.len() <= RAW_BYTES_MAX { raw } else { Bytes::copy_from_slice(&raw[..RAW_BYTES_MAX]) }
}
