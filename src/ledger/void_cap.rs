//! How many charges of an account the gateway reverses by itself on one book day, because the origin cut an answer off or
//! nothing of it was sent. Above `ledger.voids_per_day` the charge stands and is listed; what the operator voids does not count.
//!
//! Counts are those of the books: the first void of an account on a day takes them from there, a restart changes nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    report::{Days, ranges},
    sql::{Session, SqlResult, params},
};

/// The counts of one book day.
#[derive(Debug, Default)]
pub(super) struct Voids {
    /// `ledger.voids_per_day`
    pub(super) most: u32,
    day: i64,
    accounts: HashMap<Arc<str>, Count>,
    /// Captures whose answer the gateway withheld: their voids are its own doing.
    withheld: HashSet<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    voids: u64,
    /// Of the gateway's own voids alone; else the operator's may be among them.
    exact: bool,
    warned: bool,
}

impl Voids {
    /// The same after the file was opened anew: counts are read again.
    pub(super) fn reopened(&mut self) -> Voids {
        Voids { most: self.most, withheld: std::mem::take(&mut self.withheld), ..Voids::default() }
    }

    /// Whoever paid was never answered: its void is not counted.
    pub(super) fn withhold(&mut self, n: i64) {
        self.withheld.insert(n);
    }

    /// Whether a void of this capture counts.
    pub(super) fn counts(&self, n: i64) -> bool {
        !self.withheld.contains(&n)
    }

    /// Whether the account has a void left on this day, beside so many that are about to be posted.
    pub(super) fn has_left(
        &mut self,
        connection: &Session,
        day: i64,
        account: &Arc<str>,
        pending: u64,
    ) -> SqlResult<bool> {
        if day != self.day {
            (self.day, self.accounts) = (day, HashMap::new());
        }
        if connection.sqlite().is_none()
            && let Some(count) = self.accounts.get_mut(account)
        {
            // Other gateways count too.
            (count.voids, count.exact) = (voids_of(connection, day, account)?, false);
        }
        let most = u64::from(self.most);
        let count = match self.accounts.get_mut(account) {
            Some(count) => count,
            None => {
                let voids = voids_of(connection, day, account)?;
                self.accounts.entry(account.clone()).or_insert(Count { voids, exact: voids == 0, warned: false })
            }
        };
        if !count.exact && count.voids + pending >= most {
            // What is pending is not in the writer's row yet, nor in the roll-ups.
            count.voids = own_voids_of(connection, day, account)?;
            count.exact = true;
        }
        Ok(count.voids + pending < most)
    }

    /// These voids are on disk.
    pub(super) fn posted(&mut self, account: &Arc<str>, voids: u64) {
        if let Some(count) = self.accounts.get_mut(account) {
            count.voids += voids;
        }
    }

    /// The void of this capture is posted.
    pub(super) fn told(&mut self, n: i64) {
        self.withheld.remove(&n);
    }

    /// A charge stands because of the cap: said once an account and day.
    pub(super) fn warn(&mut self, account: &Arc<str>) {
        let most = self.most;
        if let Some(count) = self.accounts.get_mut(account).filter(|count| !count.warned) {
            count.warned = true;
            tracing::warn!(
                %account,
                most,
                "no more charges of this account are reversed today (ledger.voids_per_day), although their answers were cut \
                 off or not sent: look at its origin, then at `tollgate ledger list --state cut`"
            );
        }
    }
}

/// All voids of an account on a day, from the roll-ups.
fn voids_of(connection: &Session, day: i64, account: &str) -> SqlResult<u64> {
    let sum = "SELECT CAST(coalesce(sum(voids), 0) AS BIGINT) FROM rollups WHERE book_day = ?1 AND account = ?2";
    connection.cell(sum, params![day, account]).map(i64::unsigned_abs)
}

/// Those that nobody ordered: without a word of evidence. Reads the entries of the day, once for a day and account that has
/// so many voids.
fn own_voids_of(connection: &Session, day: i64, account: &str) -> SqlResult<u64> {
    let count = "SELECT count(*) FROM entries WHERE n BETWEEN ?1 AND ?2 AND kind = 2 AND account = ?3 \
                 AND evidence_digest IS NULL";
    let mut voids = 0;
    for (first, last) in ranges(connection, Days { since: day, until: day + 1 })? {
        voids += connection.cell::<i64>(count, params![first, last, account])?.unsigned_abs();
    }
    Ok(voids)
}
