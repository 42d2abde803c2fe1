//! What may be ordered about a capture: a void, a refund, a dispute. Pure: what stands, and what may follow.
//!
//! ```text
//! charged ──► voided                          on credit; once, and the key stays burnt
//! charged ──► refund 1: sent ──► done         settled at once; all refunds that have not failed add up to the capture at most
//!                         └────► failed       its amount may be refunded again, under another reference
//! charged ──► dispute 1: open ──► upheld      within `ledger.dispute_days` of the capture; on credit it is voided with it
//!                         └────► rejected
//! ```
//!
//! Each step is a posting of its own, none is changed later. A posting about refund or dispute *w* has the number `w << 8 | s`
//! in its key, `s` 0 for its beginning and 1 for its end, so that each begins and ends at most once, whoever races. The column
//! `status` says what the step is ([`State::code`]), the amount is the refund's in both; so sums are recomputed from columns
//! that retention never drops. Reference, reason and who ordered it are in the evidence ([`super::evidence::Note`]).
//!
//! An agent contests its own charges by a request that it signs ([`Signed`]). That request counts once, whatever is repeated: what
//! was signed is in the evidence of its dispute, and is looked for in the transaction that would post another.
//!
//! | step | the process dies before its commit | after it |
//! |---|---|---|
//! | any | nothing has changed; order it again | it stands; the same refund again is that one, a second void or dispute is refused and says so |

mod error;

pub use error::CorrectError;

use std::{collections::BTreeMap, sync::Arc};

use super::entry::{Kind, is_settled_at_once};
use super::targets::KeepTargets;
use crate::wire::amount::{Asset, Money, Units};
use crate::wire::x402::assets;

/// Longest reason that is kept, bytes.
pub const REASON_BYTES_MAX: usize = 500;
/// Longest reference of a refund, bytes.
pub const REFERENCE_BYTES_MAX: usize = 200;
/// Disputes of one capture.
const DISPUTES_MAX: usize = 3;
/// Refunds of one capture, which are numbered in a byte.
const REFUNDS_MAX: usize = 255;
const DAY_MS: u64 = 86_400_000;

/// An order about one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The capture's number.
    pub n: i64,
    /// What is to happen.
    pub what: What,
    /// For whoever reads the books later: a line of text of at most [`REASON_BYTES_MAX`] bytes; may be empty for a refund,
    /// and where a dispute is upheld.
    pub reason: String,
    /// Who wants it.
    pub by: By,
}

/// The last batch of each writer, by its slot.
pub type Seen = BTreeMap<i64, i64>;

/// What is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Give back what was charged on credit.
    Void {
        /// Only if nobody knows what became of its answer: whoever orders it has seen the outcomes up to these batches.
        unproven_since: Option<Seen>,
    },
    /// Note that money goes back, or what became of that.
    Refund {
        /// Tells it from others of the same capture.
        reference: String,
        /// `None`: all that is left.
        amount: Option<Units>,
        /// What it is, or becomes; `None`: it is sent, if there is none of this reference.
        state: Option<State>,
    },
    /// Contest the charge.
    Dispute,
    /// The open dispute is right.
    Uphold,
    /// The open dispute is wrong.
    Reject,
}

/// Who orders something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Who owns the ledger.
    Operator,
    /// The agent that was charged. Only what it bought on this account is ordered about; anything else is not there for it.
    Agent(Arc<Signed>),
}

/// An order that an agent signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Whose charges it may order about.
    pub account: Arc<str>,
    /// The agent, `https://signer.example.com`.
    pub agent: Arc<str>,
    /// The thumbprint of its key.
    pub thumbprint: Arc<str>,
    /// The signature base (RFC 9421 §2.5), which covers a digest of the body.
    pub base: Arc<str>,
    /// The signature.
    pub signature: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

impl Signed {
    /// For the evidence: each field with its length before it, in this order: thumbprint, base, signature, body.
    pub fn proof(&self) -> Vec<u8> {
        let mut out = self.base();
        for field in [&self.signature, &self.body] {
            push(&mut out, field);
        }
        out
    }

    /// Whether this was ordered before, with that proof. Of one base there may be several valid signatures.
    fn is_in(&self, proof: Option<&[u8]>) -> bool {
        proof.is_some_and(|proof| proof.starts_with(&self.base()))
    }

    fn base(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for field in [&self.thumbprint, &self.base] {
            push(&mut out, field.as_bytes());
        }
        out
    }
}

fn push(out: &mut Vec<u8>, field: &[u8]) {
    // Far below 4 GiB: it came in a request.
    out.extend_from_slice(&(field.len() as u32).to_be_bytes());
    out.extend_from_slice(field);
}

/// What a posting says of a refund or a dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A refund is on its way.
    Sent,
    /// It has arrived.
    Done,
    /// It has not, and will not.
    Failed,
    /// A dispute waits for its end.
    Open,
    /// The agent is right.
    Upheld,
    /// It is not.
    Rejected,
}

impl State {
    const REFUND: [State; 3] = [State::Sent, State::Done, State::Failed];
    const DISPUTE: [State; 3] = [State::Open, State::Upheld, State::Rejected];

    /// As listings show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Sent => "sent",
            State::Done => "done",
            State::Failed => "failed",
            State::Open => "open",
            State::Upheld => "upheld",
            State::Rejected => "rejected",
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<State> {
        State::REFUND.into_iter().chain(State::DISPUTE).find(|state| state.name() == name)
    }

    /// The column `status` of its posting.
    pub fn code(self) -> i64 {
        match self {
            State::Sent | State::Open => 1,
            State::Done | State::Upheld => 2,
            State::Failed | State::Rejected => 3,
        }
    }

    /// Reads the column of a posting of this kind; `None` for other kinds and numbers.
    pub fn from_code(kind: Kind, code: i64) -> Option<State> {
        let states = match kind {
            Kind::Refund => State::REFUND,
            Kind::Dispute => State::DISPUTE,
            _ => return None,
        };
        states.into_iter().find(|state| state.code() == code)
    }
}

/// The number in the key of a posting about the refund or dispute `which`, at its beginning or its end.
pub fn number(which: u8, is_end: bool) -> u16 {
    u16::from(which) << 8 | u16::from(is_end)
}

/// A refund or a dispute, as its postings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matter {
    /// From 1.
    pub number: u8,
    /// The entry that began it.
    pub n: i64,
    /// When, Unix ms.
    pub at_ms: i64,
    /// Of a refund what goes back, of a dispute what was charged, ledger units.
    pub amount: i64,
    /// What it is now.
    pub state: State,
    /// The entry that ended it.
    pub ended_n: Option<i64>,
    /// Of a refund; none where retention dropped it.
    pub reference: Option<String>,
    /// Why it began.
    pub reason: String,
    /// `operator`, `agent`.
    pub by: String,
    /// What the agent signed that began it; none where retention dropped it.
    pub proof: Option<Vec<u8>>,
}

/// What of these refunds has not failed, ledger units.
pub fn refunded(refunds: &[Matter]) -> i64 {
    let live = refunds.iter().filter(|refund| refund.state != State::Failed);
    live.fold(0, |sum: i64, refund| sum.saturating_add(refund.amount))
}

/// What the books say about a capture when something is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub n: i64,
    /// Its scheme.
    pub scheme: String,
    /// Of what.
    pub asset: String,
    /// What was charged.
    pub amount: i64,
    /// When, Unix ms.
    pub at_ms: i64,
    /// The entry that reversed it.
    pub void_n: Option<i64>,
    /// The entry that says that it was served once more.
    pub redelivered_n: Option<i64>,
    /// Its refunds, in order of their numbers.
    pub refunds: Vec<Matter>,
    /// Its disputes, likewise.
    pub disputes: Vec<Matter>,
}

/// What the operator has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `ledger.dispute_days`: how long after a capture a dispute may be opened.
    pub dispute_days: u32,
    /// `ledger.voids_per_day`: how many charges of an account are reversed by the gateway itself on one book day.
    pub voids_per_day: u32,
    /// `ledger.keep_targets`: what of a target its column keeps.
    pub keep_targets: KeepTargets,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { dispute_days: 30, voids_per_day: 1000, keep_targets: KeepTargets::Full }
    }
}

/// A posting to make about a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Void, refund or dispute.
    pub kind: Kind,
    /// In its key; 0 for a void.
    pub number: u16,
    /// Ledger units.
    pub amount: i64,
    /// Of a refund or dispute.
    pub state: Option<State>,
}

/// What follows from an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Post these.
    Post(Vec<Step>),
    /// It has happened before: this refund.
    Was(Matter),
}

/// What follows from an order, given what stands.
///
/// # Errors
/// Says why it is not followed, and what would be.
pub fn decide(standing: &Standing, order: &Order, rules: Rules, now_ms: u64) -> Result<Decision, CorrectError> {
    let n = standing.n;
    let needs_reason = !matches!(order.what, What::Refund { .. } | What::Uphold);
    if !is_line(&order.reason, REASON_BYTES_MAX) || (needs_reason && order.reason.trim().is_empty()) {
        return Err(CorrectError::Reason);
    }
    if let (What::Dispute, By::Agent(signed)) = (&order.what, &order.by)
        && let Some(known) =
            standing.disputes.iter().find(|d| d.state == State::Open || signed.is_in(d.proof.as_deref()))
    {
        // It wants what is so already; and what it signed once counts once, also after that had its end.
        return Ok(Decision::Was(known.clone()));
    }
    let at_once = is_settled_at_once(&standing.scheme);
    let step = |kind, which, is_end, amount, state| Step { kind, number: number(which, is_end), amount, state };
    let void = step(Kind::Void, 0, false, standing.amount, None);
    let open = standing.disputes.iter().find(|dispute| dispute.state == State::Open);
    match &order.what {
        What::Void { .. } if at_once => Err(CorrectError::Moved(n)),
        What::Refund { .. } if !at_once => Err(CorrectError::OnCredit(n)),
        What::Void { .. } | What::Dispute if standing.void_n.is_some() => {
            Err(CorrectError::Voided { n, by: standing.void_n.unwrap_or_default() })
        }
        What::Void { unproven_since: Some(_) } if standing.redelivered_n.is_some() => Err(CorrectError::Proven(n)),
        What::Void { .. } => Ok(Decision::Post(vec![void])),
        What::Refund { reference, amount, state } => refund(standing, reference.trim(), *amount, *state),
        What::Dispute => {
            if standing.amount == 0 || refunded(&standing.refunds) >= standing.amount {
                return Err(CorrectError::Refunded { n, amount: text(standing.amount, &standing.asset) });
            }
            let window_ms = u64::from(rules.dispute_days).saturating_mul(DAY_MS);
            let ended_ms = standing.at_ms.unsigned_abs().saturating_add(window_ms);
            if now_ms >= ended_ms {
                return Err(CorrectError::Over { n, days: rules.dispute_days, ended_ms });
            }
            // One that was right has done what it can.
            let stands = |dispute: &&Matter| matches!(dispute.state, State::Open | State::Upheld);
            if let Some(other) = standing.disputes.iter().find(stands) {
                return Err(CorrectError::Disputed { n, by: other.n });
            }
            if standing.disputes.len() >= DISPUTES_MAX {
                return Err(CorrectError::TooMany { n, what: "disputes", most: DISPUTES_MAX });
            }
            // Fewer than `DISPUTES_MAX`.
            let which = standing.disputes.len() as u8 + 1;
            Ok(Decision::Post(vec![step(Kind::Dispute, which, false, standing.amount, Some(State::Open))]))
        }
        What::Uphold | What::Reject => {
            let open = open.ok_or(CorrectError::NotDisputed(n))?;
            let upheld = order.what == What::Uphold;
            let state = if upheld { State::Upheld } else { State::Rejected };
            let mut steps = vec![step(Kind::Dispute, open.number, true, open.amount, Some(state))];
            if upheld && !at_once && standing.void_n.is_none() {
                steps.push(void);
            }
            Ok(Decision::Post(steps))
        }
    }
}

fn refund(
    standing: &Standing,
    reference: &str,
    amount: Option<Units>,
    state: Option<State>,
) -> Result<Decision, CorrectError> {
    let n = standing.n;
    let shown = |units| text(units, &standing.asset);
    if reference.is_empty() || !is_line(reference, REFERENCE_BYTES_MAX) {
        return Err(CorrectError::Reference);
    }
    let step = |which, is_end, amount, state| {
        let number = number(which, is_end);
        Ok(Decision::Post(vec![Step { kind: Kind::Refund, number, amount, state: Some(state) }]))
    };
    let known = standing.refunds.iter().find(|refund| refund.reference.as_deref() == Some(reference));
    if let Some(known) = known {
        if let Some(asked) = amount.filter(|asked| asked.get() != known.amount) {
            let (is, asked) = (shown(known.amount), shown(asked.get()));
            return Err(CorrectError::OtherAmount { reference: reference.to_owned(), is, asked });
        }
        return match (known.state, state) {
            (State::Sent, Some(to @ (State::Done | State::Failed))) => step(known.number, true, known.amount, to),
            // What is done was sent, too.
            (State::Sent | State::Done, None | Some(State::Sent)) => Ok(Decision::Was(known.clone())),
            (is, Some(to)) if is == to => Ok(Decision::Was(known.clone())),
            (is, _) => Err(CorrectError::Ended { reference: reference.to_owned(), is }),
        };
    }
    let state = match state.unwrap_or(State::Sent) {
        state @ (State::Sent | State::Done) => state,
        _ => return Err(CorrectError::NoRefund { n, reference: reference.to_owned() }),
    };
    let left = standing.amount.saturating_sub(refunded(&standing.refunds));
    if left <= 0 {
        return Err(CorrectError::Refunded { n, amount: shown(standing.amount) });
    }
    let amount = amount.map_or(left, Units::get);
    if amount <= 0 || amount > left {
        let (asked, of) = (shown(amount), shown(standing.amount));
        return Err(CorrectError::TooMuch { n, asked, left: shown(left), of });
    }
    if standing.refunds.len() >= REFUNDS_MAX {
        return Err(CorrectError::TooMany { n, what: "refunds", most: REFUNDS_MAX });
    }
    // Fewer than `REFUNDS_MAX`.
    step(standing.refunds.len() as u8 + 1, false, amount, state)
}

/// A line of text of at most so many bytes.
fn is_line(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.contains(char::is_control)
}

/// `0.01 USD`, `0.01 USDC`; where decimals are not known, `7 units of …`.
pub fn text(units: i64, asset: &str) -> String {
    if let Some(token) = assets::find_caip19(asset) {
        let decimals = token.decimals.min(crate::payment::token::UNIT_DECIMALS_MAX) as usize;
        let digits = format!("{units:0width$}", width = decimals + 1);
        let (whole, part) = digits.split_at(digits.len() - decimals);
        let kept = part.trim_end_matches('0').len().max(2.min(part.len()));
        return format!("{whole}.{} {}", &part[..kept], token.symbol);
    }
    let known = Asset::parse(asset);
    match (Units::new(units), known.as_ref().and_then(Asset::currency)) {
        (Some(units), Some(currency)) => Money { units, currency }.to_string(),
        _ if known == Some(Asset::Requests) => format!("{units} {asset}"),
        _ => format!("{units} units of {asset}"),
    }
}

#[cfg(test)]
mod tests;
