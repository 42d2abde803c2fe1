//! A run is a list of steps. A step is data of its own: where it does not apply, nothing happens, so any of them can be
//! left out.

use tollgate::{
    ledger::correction::{self, By, State, What},
    wire::amount::Units,
};

use super::stores::{Answer, Fate};

/// Payments that are about at a time, and requests with each.
pub const PAYMENTS: u8 = 7;
pub const COPIES: u8 = 3;

/// `payment` and `copy` name a request, `luck` (0 to 99) decides what those outside do next: origin, client, facilitator,
/// chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A payment is signed in the place of an older one.
    Sign { payment: u8 },
    /// A request with it arrives at a replica; `spelling` writes the same payment differently.
    Send { payment: u8, copy: u8, replica: u8, spelling: u8 },
    /// The request goes one step further.
    Go { payment: u8, copy: u8, luck: u8 },
    /// Its client leaves.
    Leave { payment: u8, copy: u8 },
    /// Its client stops reading, or goes on.
    Stall { payment: u8, copy: u8 },
    /// Its task panics.
    Panic { payment: u8, copy: u8 },
    /// The chain takes in what was sent to it.
    Mine,
    /// Somebody looks a payment up on the chain and ends it, or does not.
    Reconcile { payment: u8, replica: u8 },
    /// The operator, or whoever paid, orders something about what the payment was captured for.
    Correct { payment: u8, replica: u8, order: Order },
    /// Time passes.
    Advance { ms: u32 },
    /// Time passes, until a little after (or before) midnight.
    Midnight { after_ms: i16 },
    /// Days are closed up to today, or `before` days ago.
    Close { replica: u8, before: u8 },
    /// Something happens to a replica's next commit.
    Arm { replica: u8, fate: Fate },
    /// A commit that hangs ends.
    Answer { replica: u8, answer: Answer },
    /// The disk is mended.
    Mend,
    /// A process dies.
    Crash { replica: u8, after: bool },
    /// A process starts.
    Open { replica: u8 },
    /// A process stands still.
    Freeze { replica: u8 },
    /// It goes on.
    Thaw { replica: u8 },
    /// The database dies and comes back.
    CrashDatabase,
    /// A wall clock is set this far from the true time.
    Wall { replica: u8, seconds: i16 },
    /// The operator says that it is right.
    Accept { replica: u8 },
}

/// What is ordered about a capture. A refund is told from others of it by its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Given back on credit.
    Void,
    /// So many units go back.
    Refund(u8),
    /// They have arrived.
    RefundDone(u8),
    /// They have not.
    RefundFailed(u8),
    /// The charge is contested.
    Dispute,
    /// It was wrong; on credit it is voided.
    Uphold,
    /// It was right.
    Reject,
}

impl Order {
    /// About the capture of this number.
    pub fn about(self, n: i64) -> correction::Order {
        let refund = |units: u8, state| What::Refund {
            reference: format!("of {units}"),
            amount: Units::new(i64::from(units)),
            state: Some(state),
        };
        let what = match self {
            Order::Void => What::Void { unproven_since: None },
            Order::Refund(units) => refund(units, State::Sent),
            Order::RefundDone(units) => refund(units, State::Done),
            Order::RefundFailed(units) => refund(units, State::Failed),
            Order::Dispute => What::Dispute,
            Order::Uphold => What::Uphold,
            Order::Reject => What::Reject,
        };
        correction::Order { n, what, reason: "asked for".to_owned(), by: By::Operator }
    }
}
