//! A signed POST: `{"entry": "281474976710657", "reason": "the page was empty"}` → `{"entry": "281474976710657", "n":
//! "281474976710690", "number": 1, "state": "open", "posted": true}`.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::Who;
use crate::ledger::correction::State;
use crate::ledger::day::{self, CreditPeriod};
use crate::ledger::store::{By, CorrectError, Corrected, Order, Signed, What};
use crate::payment::reason::{Reason, Refusal};
use crate::proxy::body::RequestBody;
use crate::proxy::core::Core;

/// Longest body, bytes.
const BODY_BYTES_MAX: usize = 4096;
/// Longest signature base that is kept.
const BASE_BYTES_MAX: usize = 32 * 1024;
/// How long the writer may take. Whoever is told nothing may ask again: it counts once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many charges each account contests today, in this process.
#[derive(Debug, Default)]
pub struct Disputes(Mutex<(i64, HashMap<Arc<str>, u32>)>);

impl Disputes {
    /// Counts one more.
    fn take(&self, account: &Arc<str>, most: u32, now_ms: u64) -> Result<(), Refusal> {
        let today = day::credit_period(CreditPeriod::Day, now_ms);
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0 != today {
            *counted = (today, HashMap::new());
        }
        let count = counted.1.entry(account.clone()).or_default();
        if *count >= most {
            let ends_s = day::credit_period_end_s(CreditPeriod::Day, now_ms);
            let detail = format!("an account contests at most {most} charges a day by itself; ask the operator");
            return Err(
                Refusal::new(Reason::RateLimited, detail).retry_after(ends_s.saturating_sub(now_ms / 1000).max(1))
            );
        }
        *count += 1;
        Ok(())
    }

    /// One changed nothing.
    fn give_back(&self, account: &str) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counted.1.get_mut(account) {
            *count = count.saturating_sub(1);
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contested {
    entry: String,
    reason: String,
}

/// Opens a dispute; the answer's body.
pub(super) async fn open(core: &Rc<Core>, who: &Who<'_>, request: Request<Incoming>) -> Result<String, Refusal> {
    let Who { candidate, key, account } = who;
    let shared = &*core.shared;
    let bad = |detail: &str| Refusal::new(Reason::BadRequest, detail);
    // Held to the end: what was ordered is to be told.
    let _sale = core.thread.sales.begin().ok_or_else(|| Refusal::from(Reason::LedgerUnavailable).retry_after(1))?;
    let body = RequestBody::read(core, request.into_body(), BODY_BYTES_MAX).await?;
    // The cover says that it is there.
    let digest = candidate.content.as_ref().ok_or(Reason::InvalidSignature)?;
    let mut checking = digest.check();
    checking.feed(&body);
    if !checking.fits() {
        let detail = "the body is not the one whose `Content-Digest` the signature covers";
        return Err(Refusal::new(Reason::ContentDigestMismatch, detail));
    }
    if candidate.base.len() > BASE_BYTES_MAX {
        return Err(bad("the signature covers more than is kept of it"));
    }
    let asked: Contested = serde_json::from_slice(&body)
        .map_err(|_| bad("the body must be JSON: {\"entry\": \"281474976710657\", \"reason\": \"…\"}"))?;
    let is_number = asked.entry.bytes().all(|b| b.is_ascii_digit());
    let n =
        asked.entry.parse().ok().filter(|_| is_number).ok_or_else(|| bad("`entry` must be the number of an entry"))?;
    let now_ms = shared.clock.now_ms();
    shared.disputes.take(&account.name, shared.config.ledger.disputes_per_day, now_ms)?;
    let signed = Signed {
        account: account.name.clone(),
        agent: key.record.agent.clone(),
        thumbprint: key.record.thumbprint.clone(),
        base: candidate.base.as_str().into(),
        signature: candidate.signature.clone(),
        body: body.to_vec(),
    };
    let order = Order { n, what: What::Dispute, reason: asked.reason, by: By::Agent(Arc::new(signed)) };
    let late =
        || Refusal::new(Reason::LedgerUnavailable, "whether it was noted is not known; send it again").retry_after(5);
    let ordered = core.thread.ticker.timeout(PATIENCE, shared.store.correct(vec![order])).await.map_err(|_| late())?;
    let result = ordered.map_err(|_| late())?.pop().ok_or(Reason::Internal)?;
    if !matches!(&result, Ok(Corrected { was: false, .. })) {
        shared.disputes.give_back(&account.name);
    }
    let done = result.map_err(refusal)?;
    if !done.was {
        let agent = &*key.record.agent;
        tracing::info!(entry = n, n = done.n, number = done.number, agent, "an agent disputes a charge");
    }
    let answer = json!({"entry": n.to_string(), "n": done.n.to_string(), "number": done.number,
        "state": done.state.map(State::name), "posted": !done.was});
    Ok(answer.to_string())
}

fn refusal(error: CorrectError) -> Refusal {
    let detail = match &error {
        // Not the words for operators.
        CorrectError::Reason => "`reason` must be a line of 1 to 500 bytes of text".to_owned(),
        CorrectError::NoEntry(_) => return Reason::EntryUnknown.into(),
        CorrectError::Refused(_) => "the books did not take it".to_owned(),
        error => error.to_string(),
    };
    let reason = match error {
        CorrectError::Reason => Reason::BadRequest,
        _ => Reason::DisputeRefused,
    };
    Refusal::new(reason, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_MS: u64 = 1_795_521_600_000;

    #[test]
    fn an_account_contests_so_many_charges_a_day() {
        let (disputes, a, b): (_, Arc<str>, Arc<str>) = (Disputes::default(), "a".into(), "b".into());
        let take = |account, now_ms| disputes.take(account, 2, now_ms);
        assert!(take(&a, NOON_MS).is_ok() && take(&a, NOON_MS).is_ok() && take(&b, NOON_MS).is_ok());
        let refused = take(&a, NOON_MS).unwrap_err();
        assert_eq!((refused.reason, refused.retry_after), (Reason::RateLimited, Some(43_200)));
        disputes.give_back("a");
        assert!(take(&a, NOON_MS).is_ok() && take(&a, NOON_MS).is_err());
        assert!(take(&a, NOON_MS + 43_200_000).is_ok());
        assert!(Disputes::default().take(&a, 0, NOON_MS).is_err());
    }
}
