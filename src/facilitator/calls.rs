//! The cores' side: ask, and wait for what the control thread hears.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::service::{Call, Missed, Question, Service};
use super::state::{Endpoint, Facilitator, Limits, Shared};
use super::supported::same_network;
use crate::wire::x402::Version;
use crate::wire::x402::facilitator::{SettleVerdict, SupportedKind, VerifyVerdict};

/// Calls that may wait for the control thread.
const CALLS_MAX: usize = 1024;
/// How often one payment is verified at most, at all facilitators together.
const ATTEMPTS_MAX: usize = 3;
/// Bytes of a raw answer that are handed on, as evidence.
pub const RAW_BYTES_MAX: usize = 4096;
/// Seconds, when nothing better is known.
const RETRY_AFTER: u64 = 5;

/// A way to pay, as a payment names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// The version that the payment is written in.
    pub version: Version,
    /// `exact`
    pub scheme: String,
    /// `eip155:84532`, or v1's name for it.
    pub network: String,
}

/// Nobody could say whether the payment is good. It was not refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unavailable {
    /// When to try again, seconds, at least 1.
    pub retry_after: u64,
    /// For the log and the operator; names facilitators, not for clients.
    pub why: String,
}

/// What came of one attempt to settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleOutcome {
    /// The facilitator was asked. `Unknown` if it did not answer: then the money may have moved. The raw answer is cut
    /// at [`RAW_BYTES_MAX`] and empty when there was none.
    Verdict(SettleVerdict, Bytes),
    /// It was not asked: no connection, or too much to do. The attempt moved nothing.
    NotSent(String),
}

/// Facilitators, shared by all cores; clones are cheap.
#[derive(Debug, Clone)]
pub struct Facilitators {
    shared: Arc<Shared>,
    calls: mpsc::Sender<Call>,
}

impl Facilitators {
    /// The cores' side, and the part that the control thread runs. Facilitators are numbered in the order given.
    pub fn new(endpoints: Vec<Endpoint>, limits: Limits) -> (Facilitators, Service) {
        let all = endpoints.into_iter().map(|endpoint| Facilitator::new(endpoint, &limits)).collect();
        let shared = Arc::new(Shared { all, limits });
        let (calls, heard) = mpsc::channel(CALLS_MAX);
        (Facilitators { shared: shared.clone(), calls }, Service::new(shared, heard))
    }

    /// Asks whether a payment would settle. `body` is [`request`](crate::wire::x402::facilitator::request)'s.
    ///
    /// `fixed` is the facilitator that the payment is tied to; without one, those that can do `kind` are asked in order
    /// until one says something, each once, a single one twice, within twice the limit of one call. The answer names the
    /// facilitator and is never `Unknown`; beside it stands the raw text, cut at [`RAW_BYTES_MAX`].
    ///
    /// # Errors
    /// [`Unavailable`] when none of them said anything.
    pub async fn verify(
        &self,
        kind: &Kind,
        body: Bytes,
        fixed: Option<usize>,
    ) -> Result<(usize, VerifyVerdict, Bytes), Unavailable> {
        let mut candidates = match fixed {
            Some(i) => vec![i],
            None => self.candidates(kind),
        };
        if candidates.is_empty() {
            let why = format!("no facilitator takes {} on {}", kind.scheme, kind.network);
            return Err(Unavailable { retry_after: 60, why });
        }
        if let [only] = candidates[..] {
            candidates.push(only);
        }
        candidates.truncate(ATTEMPTS_MAX);
        let deadline = Instant::now() + self.shared.limits.verify * 2;
        let mut missed: Vec<(usize, Missed)> = Vec::new();
        for i in candidates {
            // A facilitator is asked again only if that may help: not if it kept everybody waiting.
            if missed.iter().any(|(other, missed)| *other == i && !missed.again) {
                continue;
            }
            match self.verify_at(i, body.clone(), deadline).await {
                Ok((verdict, raw)) => return Ok((i, verdict, raw)),
                Err(miss) => missed.push((i, miss)),
            }
        }
        let retry_after = missed.iter().map(|(_, missed)| missed.retry_after).min().unwrap_or(RETRY_AFTER).max(1);
        let said = missed.iter().map(|(i, missed)| format!("{}: {}", self.name(*i), missed.why));
        Err(Unavailable { retry_after, why: said.collect::<Vec<_>>().join("; ") })
    }

    async fn verify_at(&self, i: usize, body: Bytes, deadline: Instant) -> Result<(VerifyVerdict, Bytes), Missed> {
        let miss = |why: &str, again| Missed { why: why.to_owned(), retry_after: RETRY_AFTER, again };
        let Some(facilitator) = self.shared.all.get(i) else {
            return Err(miss("no such facilitator", false));
        };
        // Told here already when it is left alone: the control thread need not be troubled.
        facilitator.breaker(|breaker| breaker.available(Instant::now())).map_err(Missed::open)?;
        let (answer, heard) = oneshot::channel();
        let call = Call { facilitator: i, body, question: Question::Verify(answer) };
        self.calls.try_send(call).map_err(|_| miss("too many payments are being checked", false))?;
        match timeout_at(deadline, heard).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(miss("the call was given up", false)),
            Err(_) => Err(miss("no answer in time", false)),
        }
    }

    /// Asks `facilitator` to settle, once: nothing is repeated and nobody else is asked. A payment is settled where it was
    /// verified, even if that facilitator failed a lot since.
    ///
    /// Once the call was taken it goes on to its end on the control thread, whatever becomes of this future. Dropping the
    /// future loses the answer, so it has to be awaited by a task that outlives the client. An answer that was lost is an
    /// unknown outcome.
    pub async fn settle(&self, facilitator: usize, body: Bytes) -> SettleOutcome {
        if facilitator >= self.shared.all.len() {
            return SettleOutcome::NotSent("no such facilitator".to_owned());
        }
        let (answer, heard) = oneshot::channel();
        let call = Call { facilitator, body, question: Question::Settle(answer) };
        if self.calls.try_send(call).is_err() {
            return SettleOutcome::NotSent("too many payments are being settled".to_owned());
        }
        // Given up by a control thread that ends or panics: it may have been sent.
        let lost = || SettleVerdict::Unknown { why: "the call was given up".to_owned(), answer: None };
        heard.await.unwrap_or_else(|_| SettleOutcome::Verdict(lost(), Bytes::new()))
    }

    /// What offers of this kind have to carry (`feePayer`, `facilitatorAddress`): from the first facilitator that is known
    /// to take it, healthy or not, so that offers do not change with the weather. `None` while none is known to.
    pub fn extra(&self, version: Version, scheme: &str, network: &str) -> Option<Map<String, Value>> {
        let kind = Kind { version, scheme: scheme.to_owned(), network: network.to_owned() };
        self.shared.all.iter().find_map(|facilitator| find(&facilitator.supported()?, &kind).map(|k| k.extra.clone()))
    }

    /// The facilitator that [`Facilitators::extra`] asks about this kind: who made the members of `extra`, and so the one
    /// that an offer with a `feePayer` is fixed to.
    pub fn first_for(&self, version: Version, scheme: &str, network: &str) -> Option<usize> {
        let kind = Kind { version, scheme: scheme.to_owned(), network: network.to_owned() };
        (0..self.shared.all.len()).find(|i| self.supports(*i, &kind) == Some(true))
    }

    /// The facilitator that settles this kind from `address`, which the payer has signed; the first that takes the kind
    /// where none says so. `None` while none is known to.
    pub fn named(&self, kind: &Kind, address: &str) -> Option<usize> {
        let says = |facilitator: &Facilitator| {
            let kinds = facilitator.supported()?;
            let said = find(&kinds, kind)?.extra.get("facilitatorAddress")?.as_str()?.to_owned();
            said.eq_ignore_ascii_case(address).then_some(())
        };
        let named = self.shared.all.iter().position(|facilitator| says(facilitator).is_some());
        let first = || self.first_for(kind.version, &kind.scheme, &kind.network);
        if named.is_none() && first().is_some() {
            tracing::warn!(address, "no facilitator says that this is its `facilitatorAddress`");
        }
        named.or_else(first)
    }

    /// Whether a facilitator takes this kind; `None` while it has not said.
    pub fn supports(&self, facilitator: usize, kind: &Kind) -> Option<bool> {
        let kinds = self.shared.all.get(facilitator)?.supported()?;
        Some(find(&kinds, kind).is_some())
    }

    /// Who may verify: first those that said that they can and are well, then those that did not say, then the rest.
    fn candidates(&self, kind: &Kind) -> Vec<usize> {
        let now = Instant::now();
        let rank = |i: &usize| {
            let well = self.shared.all[*i].breaker(|breaker| breaker.available(now)).is_ok();
            (!well, self.supports(*i, kind).is_none())
        };
        let mut able: Vec<usize> =
            (0..self.shared.all.len()).filter(|i| self.supports(*i, kind) != Some(false)).collect();
        able.sort_by_key(rank);
        able
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shared.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shared.all.is_empty()
    }

    /// As the configuration calls it; empty for a number that none has.
    pub fn name(&self, facilitator: usize) -> &str {
        self.shared.all.get(facilitator).map_or("", |f| &f.endpoint.name)
    }

    /// What the books call it; empty for a number that none has.
    pub fn url(&self, facilitator: usize) -> &str {
        self.shared.all.get(facilitator).map_or("", |f| f.endpoint.url())
    }

    /// Whether its operator says that a settlement may be sent to it twice.
    pub fn idempotent(&self, facilitator: usize) -> bool {
        self.shared.all.get(facilitator).is_some_and(|f| f.endpoint.idempotent)
    }

    /// The facilitator of a URL from the books.
    pub fn find(&self, url: &str) -> Option<usize> {
        self.shared.all.iter().position(|f| f.endpoint.url() == url)
    }

    /// The names of those that are left alone because they failed again and again.
    pub fn failing(&self) -> Vec<Arc<str>> {
        let failing = self.shared.all.iter().filter(|f| f.breaker(|breaker| breaker.is_open()));
        failing.map(|f| f.endpoint.name.clone()).collect()
    }
}

impl Missed {
    /// Its breaker is open.
    pub(super) fn open(wait: Duration) -> Missed {
        let retry_after = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Missed { why: "left alone after failures".to_owned(), retry_after, again: false }
    }
}

fn find<'a>(kinds: &'a [SupportedKind], kind: &Kind) -> Option<&'a SupportedKind> {
    kinds.iter().find(|k| {
        k.version == kind.version.number() && k.scheme == kind.scheme && same_network(&k.network, &kind.network)
    })
}
