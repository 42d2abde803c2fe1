//! How a route charges: whom, for what, when, by which schemes, and whether at all.

/// Who pays for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Whoever asks.
    Everyone,
    /// Agents, as far as they show that they are some; everybody else passes free.
    Agents,
}

/// When `exact` is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// When the head of the origin's success is there, before the first byte of the answer leaves.
    OnHead,
    /// Before the origin is asked; its failure leaves an answer owed.
    First,
    /// When all of the origin's answer is there, up to a cap: one that is cut is not paid.
    AfterBody,
}

/// How a route can be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Signed commitment, settled later from the ledger.
    Deferred,
    /// A token transfer that a facilitator settles while the request is served.
    Exact,
    /// The same, of at most the price: the origin says how much of it.
    Upto,
    /// Signed commitment as x402 v2 has it, settled later from the ledger.
    BatchSettlement,
    /// Pay per crawl: a signed price, settled later from the ledger.
    Crawl,
}

impl Scheme {
    /// Whether a facilitator moves a token for it.
    pub fn is_token(self) -> bool {
        matches!(self, Scheme::Exact | Scheme::Upto)
    }
}

/// Statuses of the origin that count as a success and are charged; 101 always is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChargeOn {
    /// 200 to 299.
    Success,
    /// Just these, each 200 to 299.
    These(Vec<u16>),
}

impl ChargeOn {
    /// Whether the origin's status is charged.
    pub fn charges(&self, status: u16) -> bool {
        match self {
            // What follows a switch of protocols is bought with it, whatever a list says.
            _ if status == 101 => true,
            ChargeOn::Success => (200..300).contains(&status),
            ChargeOn::These(list) => list.contains(&status),
        }
    }
}

/// Whether a route's price is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charging {
    /// Whoever does not pay is refused.
    #[default]
    Enforce,
    /// Everybody passes free; what would have followed is counted.
    Observe,
}
