//! Sums that are kept beside entries, against those that were recomputed from them.

use std::collections::BTreeMap;

use super::{Audit, Place, Stop, finding, same};
use crate::ledger::open_accounts::total_of;
use crate::ledger::passes::is_of_pass;
use crate::ledger::rollup::{RollupKey, Rollups, Sums};
use crate::wire::amount::Asset;

impl Audit<'_> {
    pub(super) fn check_rollups(&mut self, mut recomputed: Rollups<String>) -> Result<(), Stop> {
        let connection = self.connection;
        let mut statement = connection.prepare(
            "SELECT book_day, account, agent, route, scheme, asset, slot, captures, captured, voids, voided, refunds, \
             refunded, observed, would_be FROM rollups ORDER BY book_day, account, agent, route, scheme, asset, slot",
        )?;
        let mut rows = statement.query(&[])?;
        self.place = Place::Rollup("first".to_owned());
        while let Some(row) = rows.next()? {
            let key = RollupKey {
                book_day: row.get(0)?,
                account: row.get(1)?,
                agent: row.get(2)?,
                route: row.get(3)?,
                scheme: row.get(4)?,
                asset: row.get(5)?,
                slot: row.get(6)?,
            };
            let found = Sums {
                captures: row.get(7)?,
                captured: row.get(8)?,
                voids: row.get(9)?,
                voided: row.get(10)?,
                refunds: row.get(11)?,
                refunded: row.get(12)?,
            };
            // A row of observed requests alone has no entries.
            let expected = recomputed.remove(&key).unwrap_or_default();
            self.place = rollup_place(&key);
            // Nothing is posted for what was only observed, so nothing else can tell of it.
            for (what, column) in [("what was observed", 13), ("what it would have been", 14)] {
                let found: i64 = row.get(column)?;
                if found < 0 {
                    return Err(finding(rollup_place(&key), what, "not negative", found));
                }
            }
            if expected != found {
                return Err(finding(rollup_place(&key), "its sums", format!("{expected:?}"), format!("{found:?}")));
            }
        }
        match recomputed.first() {
            None => Ok(()),
            Some((key, sums)) => Err(finding(rollup_place(key), "the row", format!("{sums:?}"), "none")),
        }
    }

    pub(super) fn check_use(&mut self) -> Result<(), Stop> {
        let connection = self.connection;
        let mut expected: BTreeMap<(String, String, i64), i64> = BTreeMap::new();
        for (key, units) in self.walked.iter().flat_map(|walked| &walked.used) {
            let used = expected.entry(key.clone()).or_default();
            *used = used.saturating_add(*units);
        }
        // On a server a claim takes credit where everybody sees it.
        if connection.sqlite().is_none() {
            let claims = "SELECT account, asset, period, CAST(sum(amount) AS BIGINT) FROM claims \
                          WHERE state IN ('r', 's', 'u') GROUP BY account, asset, period";
            for (key, claimed) in
                connection.all(claims, &[], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get::<i64>(3)?)))?
            {
                let used = expected.entry(key).or_default();
                *used = used.saturating_add(claimed);
            }
        }
        let mut totals: BTreeMap<(String, String, i64), i64> = BTreeMap::new();
        for ((account, asset, period), used) in &expected {
            if let Some(total) = total_of(account) {
                let sum = totals.entry((total.to_owned(), asset.clone(), *period)).or_default();
                *sum = sum.saturating_add(*used);
            }
        }
        expected.extend(totals);
        let mut statement = connection.prepare("SELECT account, asset, period, used FROM account_use")?;
        let mut rows = statement.query(&[])?;
        while let Some(row) = rows.next()? {
            let key: (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let found: i64 = row.get(3)?;
            let place = Place::AccountUse(format!("{} {} {}", key.0, key.1, key.2));
            self.place = place.clone();
            same(place.clone(), "what is used", expected.remove(&key).unwrap_or_default(), found)?;
            if found > 0 && matches!(Asset::parse(&key.1), Some(Asset::Prepaid(_))) {
                return Err(finding(place, "what is used of a balance", "at most what was paid in", found));
            }
            if is_of_pass(key.2) && found != 0 {
                let pass = self.walked.iter().find_map(|walked| walked.passes.get(&key.2));
                let Some(most) = pass else {
                    return Err(finding(place, "the pass that its requests are of", "one", "none"));
                };
                if *most > 0 && found > *most {
                    return Err(finding(place, "what is used of a pass", format!("at most {most}"), found));
                }
            }
        }
        if connection.sqlite().is_none() {
            // A claim that was swept left no row, where it was the first.
            expected.retain(|_, used| *used != 0);
        }
        match expected.first_key_value() {
            None => Ok(()),
            Some(((account, asset, period), used)) => {
                Err(finding(Place::AccountUse(format!("{account} {asset} {period}")), "the row", used, "none"))
            }
        }
    }
}

fn rollup_place(key: &RollupKey<String>) -> Place {
    let RollupKey { book_day, account, agent, route, scheme, asset, slot } = key;
    Place::Rollup(format!("day {book_day}, {account}, {agent}, {route}, {scheme}, {asset}, writer {slot}"))
}
