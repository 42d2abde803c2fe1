//! Roll-ups: sums per day, account, agent, route, scheme, asset and writer, grouped from rows that were inserted.

use std::{borrow::Borrow, collections::BTreeMap};

use super::correction::State;
use super::entry::{Entry, EntryNumber, Kind};

/// What one row of `rollups` is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupKey<S> {
    /// See [`Entry::book_day`].
    pub book_day: i64,
    /// Who owes.
    pub account: S,
    /// The signature agent.
    pub agent: S,
    /// The route's name.
    pub route: S,
    /// The scheme.
    pub scheme: S,
    /// The currency.
    pub asset: S,
    /// Which writer.
    pub slot: i64,
}

/// Sums of one row; counts and ledger units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Captures.
    pub captures: i64,
    /// Their amounts.
    pub captured: i64,
    /// Voids.
    pub voids: i64,
    /// Their amounts.
    pub voided: i64,
    /// Refunds, less those that failed: negative on a day on which an earlier one did.
    pub refunds: i64,
    /// Their amounts, likewise.
    pub refunded: i64,
}

/// What an entry changes of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Capture, void or refund.
    pub kind: Kind,
    /// How many: one less where a refund failed.
    pub count: i64,
    /// Ledger units, likewise.
    pub amount: i64,
}

/// What an entry changes of the sums; none for most kinds, and for a refund that is done after it was sent.
pub fn change(entry: &Entry<'_>) -> Option<Change> {
    let count = match entry.kind {
        Kind::Capture | Kind::Void => 1,
        // Its beginning counts, and a failure takes that back.
        Kind::Refund if entry.key.number() & 1 == 0 => 1,
        Kind::Refund if entry.status == Some(State::Failed.code()) => -1,
        _ => return None,
    };
    Some(Change { kind: entry.kind, count, amount: count * entry.amount })
}

impl Sums {
    /// What one entry adds. Sums saturate; the store keeps them far below by its limits on credit.
    pub fn add(&mut self, change: Change) {
        let (count, sum) = match change.kind {
            Kind::Capture => (&mut self.captures, &mut self.captured),
            Kind::Void => (&mut self.voids, &mut self.voided),
            Kind::Refund => (&mut self.refunds, &mut self.refunded),
            _ => return,
        };
        *count = count.saturating_add(change.count);
        *sum = sum.saturating_add(change.amount);
    }
}

/// The grouping of one batch, or of a whole ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollups<S: Ord>(BTreeMap<RollupKey<S>, Sums>);

impl<S: Ord> Default for Rollups<S> {
    fn default() -> Rollups<S> {
        Rollups(BTreeMap::new())
    }
}

impl<S: Ord + Borrow<str>> Rollups<S> {
    /// Nothing yet.
    pub fn new() -> Rollups<S> {
        Rollups(BTreeMap::new())
    }

    /// Adds an inserted row.
    pub fn add(&mut self, key: RollupKey<S>, change: Change) {
        self.0.entry(key).or_default().add(change);
    }

    /// Puts a row in as it is.
    pub fn put(&mut self, key: RollupKey<S>, sums: Sums) {
        self.0.insert(key, sums);
    }

    /// The rows, in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&RollupKey<S>, &Sums)> {
        self.0.iter()
    }

    /// Takes one row out.
    pub fn remove(&mut self, key: &RollupKey<S>) -> Option<Sums> {
        self.0.remove(key)
    }

    /// The first row that was not taken out.
    pub fn first(&self) -> Option<(&RollupKey<S>, &Sums)> {
        self.0.first_key_value()
    }
}

impl<'a> RollupKey<&'a str> {
    /// The row that an entry belongs to.
    pub fn of(entry: &Entry<'a>) -> RollupKey<&'a str> {
        RollupKey {
            book_day: entry.book_day,
            account: entry.account,
            agent: entry.agent,
            route: entry.route,
            scheme: entry.scheme,
            asset: entry.asset,
            slot: EntryNumber::from_n(entry.n).slot,
        }
    }

    /// The same with owned texts.
    pub fn to_owned(&self) -> RollupKey<String> {
        RollupKey {
            book_day: self.book_day,
            account: self.account.to_owned(),
            agent: self.agent.to_owned(),
            route: self.route.to_owned(),
            scheme: self.scheme.to_owned(),
            asset: self.asset.to_owned(),
            slot: self.slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_grouped_and_voids_are_counted_apart() {
        let key = |account| RollupKey {
            book_day: 1,
            account,
            agent: "a",
            route: "r",
            scheme: "deferred",
            asset: "USD",
            slot: 1,
        };
        let mut rollups = Rollups::new();
        let one = |kind, amount| Change { kind, count: 1, amount };
        rollups.add(key("x"), one(Kind::Capture, 10));
        rollups.add(key("y"), one(Kind::Capture, 1));
        rollups.add(key("x"), one(Kind::Capture, 5));
        rollups.add(key("x"), one(Kind::Void, 5));
        let rows: Vec<_> = rollups.iter().map(|(k, s)| (k.account, *s)).collect();
        let x = Sums { captures: 2, captured: 15, voids: 1, voided: 5, ..Sums::default() };
        assert_eq!(rows, [("x", x), ("y", Sums { captures: 1, captured: 1, ..Sums::default() })]);
    }
}
