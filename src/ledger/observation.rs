//! What requests would have been on routes that only observe: counted in `rollups.observed` and `rollups.would_be`, and never
//! posted. Pure.
//!
//! A row's account, agent, route and asset say who, where and of what; its scheme says what was presented and what would have
//! followed:
//!
//! | `scheme` | the request | `would_be` is |
//! |---|---|---|
//! | empty | carried no payment, and would have been asked for one | the public price of answers that would have been charged |
//! | `deferred` | carried a payment that holds | what would have been charged |
//! | `deferred:invalid_signature` | carried one that would have been refused, with this reason; `:invalid_payment` where not even the scheme can be read | 0 |
//! | `deferred:unjudged` | carried one on which no verdict came in time | 0 |
//!
//! Nothing in it is taken from a client as it is, or the books would grow with every name that somebody invents: who is not
//! proven is `unknown`, and under the name of a crawler that the gateway knows, else `other`; wallets are not told apart.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::sync::Arc;

use crate::wire::amount::{Asset, Units};

/// The account of whoever is not proven.
pub const UNKNOWN: &str = "unknown";
/// The agent of whoever is none that the gateway knows.
pub const OTHER: &str = "other";
/// In the place of a reason: no verdict came in time.
const UNJUDGED: &str = "unjudged";

/// Agents that are counted by name in the life of a process; later ones are [`OTHER`].
const AGENTS_MAX: usize = 1024;
/// Rows that wait for the disk; what would make one more is counted nowhere.
const ROWS_MAX: usize = 8192;

/// What would have become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Would<'a> {
    /// It carried no payment, and would have been asked for one.
    Ask,
    /// Its payment holds: in this scheme.
    Pay(&'a str),
    /// Its payment would have been refused.
    Refuse {
        /// What was presented; empty where it can't be read.
        scheme: &'a str,
        /// The code of the reason.
        reason: &'a str,
    },
    /// No verdict came in time.
    Unjudged(&'a str),
}

impl<'a> Would<'a> {
    /// As the books have it, in the place of a scheme.
    pub fn text(&self) -> String {
        match self {
            Would::Ask => String::new(),
            Would::Pay(scheme) => (*scheme).to_owned(),
            Would::Refuse { scheme, reason } => format!("{scheme}:{reason}"),
            Would::Unjudged(scheme) => format!("{scheme}:{UNJUDGED}"),
        }
    }

    /// Reads what the books have.
    pub fn read(text: &'a str) -> Would<'a> {
        match text.split_once(':') {
            None if text.is_empty() => Would::Ask,
            None => Would::Pay(text),
            Some((scheme, UNJUDGED)) => Would::Unjudged(scheme),
            Some((scheme, reason)) => Would::Refuse { scheme, reason },
        }
    }
}

/// Who was observed, where, and what would have followed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observed {
    /// Who would owe it: an account, `wallets`, or [`UNKNOWN`].
    pub account: Arc<str>,
    /// A proven agent, the network of a wallet, the name of a crawler, or [`OTHER`].
    pub agent: Arc<str>,
    /// The route's name.
    pub route: Arc<str>,
    /// What would have followed.
    pub would: Would<'static>,
    /// What it is priced in.
    pub asset: Asset,
}

/// One request that was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What it counts for.
    pub observed: Observed,
    /// What it would have earned, in ledger units of the asset.
    pub amount: Units,
}

/// Requests of one kind, and what they would have earned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub requests: i64,
    /// Ledger units.
    pub would_be: i64,
}

/// A row on its way to the books.
pub type Row = (Observed, Sum);

/// What was observed and is not written, in bounded memory.
#[derive(Debug, Default)]
pub struct Observations {
    rows: BTreeMap<Observed, Sum>,
    agents: HashSet<Arc<str>>,
    lost: u64,
}

impl Observations {
    /// Counts one.
    pub fn add(&mut self, observation: Observation) {
        let Observation { mut observed, amount } = observation;
        if !self.agents.contains(&observed.agent) {
            if self.agents.len() < AGENTS_MAX {
                self.agents.insert(observed.agent.clone());
            } else {
                observed.agent = OTHER.into();
            }
        }
        self.sum((observed, Sum { requests: 1, would_be: amount.get() }));
    }

    /// Takes rows back that could not be written.
    pub fn take_back(&mut self, rows: Vec<Row>) {
        rows.into_iter().for_each(|row| self.sum(row));
    }

    fn sum(&mut self, (observed, more): Row) {
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&observed) {
            self.lost = self.lost.saturating_add(more.requests.unsigned_abs());
            return;
        }
        let sum = self.rows.entry(observed).or_default();
        sum.requests = sum.requests.saturating_add(more.requests);
        sum.would_be = sum.would_be.saturating_add(more.would_be);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Everything that waits, in order, and how many requests had no room since the last time.
    pub fn take(&mut self) -> (Vec<Row>, u64) {
        (mem::take(&mut self.rows).into_iter().collect(), mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(agent: &str, route: &str, would: Would<'static>) -> Observation {
        let observed = Observed {
            account: UNKNOWN.into(),
            agent: agent.into(),
            route: route.into(),
            would,
            asset: Asset::parse("USD").unwrap(),
        };
        Observation { observed, amount: Units::new(5).unwrap() }
    }

    #[test]
    fn what_would_have_followed_is_read_as_it_was_written() {
        for (would, text) in [
            (Would::Ask, ""),
            (Would::Pay("batch-settlement"), "batch-settlement"),
            (Would::Refuse { scheme: "exact", reason: "payment_refused" }, "exact:payment_refused"),
            (Would::Refuse { scheme: "", reason: "invalid_payment" }, ":invalid_payment"),
            (Would::Unjudged("crawl"), "crawl:unjudged"),
        ] {
            assert_eq!(would.text(), text);
            assert_eq!(Would::read(text), would);
        }
    }

    #[test]
    fn names_and_rows_are_bounded_however_many_come() {
        let mut all = Observations::default();
        for i in 0..AGENTS_MAX + 5 {
            all.add(seen(&format!("https://a{i}.example"), "r", Would::Ask));
        }
        // A name that is known stays, also after everything was written.
        let (rows, lost) = all.take();
        let other = rows.iter().find(|(row, _)| &*row.agent == OTHER).unwrap();
        assert_eq!((rows.len(), other.1, lost), (AGENTS_MAX + 1, Sum { requests: 5, would_be: 25 }, 0));
        all.add(seen("https://a0.example", "r", Would::Ask));
        all.add(seen("https://new.example", "r", Would::Ask));
        assert_eq!(all.take().0.iter().map(|(row, _)| &*row.agent).collect::<Vec<_>>(), ["https://a0.example", OTHER]);
        for i in 0..ROWS_MAX + 3 {
            all.add(seen(OTHER, &format!("r{i}"), Would::Ask));
        }
        all.add(seen(OTHER, "r0", Would::Ask));
        let (rows, lost) = all.take();
        assert_eq!((rows.len(), lost, rows[0].1.requests), (ROWS_MAX, 3, 2));
    }

    #[test]
    fn what_could_not_be_written_is_added_to_what_came_since() {
        let mut all = Observations::default();
        all.add(seen("GPTBot", "r", Would::Ask));
        let (rows, _) = all.take();
        assert!(all.is_empty());
        all.add(seen("GPTBot", "r", Would::Ask));
        all.take_back(rows);
        assert_eq!(all.take().0[0].1, Sum { requests: 2, would_be: 10 });
    }
}
