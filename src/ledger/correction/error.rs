//! Why an order is not followed, in words that say what would be.

use super::{REASON_BYTES_MAX, REFERENCE_BYTES_MAX, State};

/// Why an order is not followed; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorrectError {
    /// No such entry.
    #[error("no entry of this ledger is {0}")]
    NoEntry(i64),
    /// Not something that was charged.
    #[error("entry {n} is no charge: it is {} {kind}{}", article(kind), of.map_or_else(String::new, |of| format!(" of entry {of}")))]
    NoCapture {
        /// Which.
        n: i64,
        /// `void`
        kind: &'static str,
        /// The capture that it is about.
        of: Option<i64>,
    },
    /// On a chain nothing is taken back by a posting.
    #[error(
        "the money of entry {0} moved when it was bought: send it back, then say `ledger refund {0} --reference TEXT`"
    )]
    Moved(i64),
    /// Nothing was paid yet.
    #[error("entry {0} was charged on credit, and nothing was paid for it: say `ledger void {0} --reason TEXT`")]
    OnCredit(i64),
    /// Once is all there is.
    #[error("entry {n} is voided already, by entry {by}")]
    Voided {
        /// Which.
        n: i64,
        /// The void.
        by: i64,
    },
    /// It was to be voided only if nobody knew.
    #[error("by now it is known what became of the answer to entry {0}")]
    Proven(i64),
    /// The same, sooner or later.
    #[error("the answer to entry {0} is on its way")]
    OnItsWay(i64),
    /// Nothing is left.
    #[error("entry {n}: all of {amount} was given back already")]
    Refunded {
        /// Which.
        n: i64,
        /// What was charged.
        amount: String,
    },
    /// More than there is.
    #[error(
        "entry {n}: {asked} can't be refunded: expected more than nothing and at most {left}, what is left of {of}"
    )]
    TooMuch {
        /// Which.
        n: i64,
        /// What was asked for.
        asked: String,
        /// What may be.
        left: String,
        /// What was charged.
        of: String,
    },
    /// A refund has one amount.
    #[error("the refund `{reference}` is of {is}, not of {asked}: name another reference for another refund")]
    OtherAmount {
        /// Whose.
        reference: String,
        /// As it is.
        is: String,
        /// As it was asked for.
        asked: String,
    },
    /// A refund ends once.
    #[error("the refund `{reference}` is {} for good: name another reference for another refund", is.name())]
    Ended {
        /// Whose.
        reference: String,
        /// As it is.
        is: State,
    },
    /// Nothing to note that of.
    #[error("entry {n} has no refund `{reference}` that could have failed")]
    NoRefund {
        /// Which.
        n: i64,
        /// Whose.
        reference: String,
    },
    /// The window is over.
    #[error("entry {n} could be disputed for {days} days (ledger.dispute_days), until {}", time(*ended_ms))]
    Over {
        /// Which.
        n: i64,
        /// How long.
        days: u32,
        /// When it ended, Unix ms.
        ended_ms: u64,
    },
    /// One at a time.
    #[error("entry {n} is disputed already, by entry {by}")]
    Disputed {
        /// Which.
        n: i64,
        /// The dispute.
        by: i64,
    },
    /// Nothing to judge.
    #[error("entry {0} has no open dispute; `tollgate ledger list --state disputed` lists those that have")]
    NotDisputed(i64),
    /// There is an end to it.
    #[error("entry {n} has {most} {what} already, which is as many as a charge may have")]
    TooMany {
        /// Which.
        n: i64,
        /// Of what.
        what: &'static str,
        /// How many.
        most: usize,
    },
    /// The reason is not what is kept.
    #[error("the reason must be a line of 1 to {REASON_BYTES_MAX} bytes of text")]
    Reason,
    /// Neither is the reference.
    #[error("the reference must be a line of 1 to {REFERENCE_BYTES_MAX} bytes of text")]
    Reference,
    /// The file refused it.
    #[error("nothing was posted: {0}")]
    Refused(String),
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['i', 'o']) { "an" } else { "a" }
}

fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| format!("{ms} ms"), |at| format!("{at:.3}"))
}
