//! What accounts have used of each asset in each period, as the ledger sums it.

use std::collections::BTreeMap;

use super::{
    day::BALANCE,
    read::{LedgerReader, ReadError},
    sql::{Begin, Session, SqlResult, params},
};

/// A row of `account_use`. Ledger units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub account: String,
    /// `USD`, `requests`, `prepaid:USD`.
    pub asset: String,
    /// `202611`, `20261124`; of a balance [`BALANCE`].
    pub period: i64,
    /// Bought less given back; of a balance less what was paid in, too. On a server with what is being served.
    pub used: i64,
    /// Of a balance: paid in less paid back.
    pub paid_in: i64,
    /// Of a balance: bought less given back.
    pub spent: i64,
}

impl LedgerReader {
    /// In order of their names and periods, of one account or all.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn standings(&self, account: Option<&str>) -> Result<Vec<Standing>, ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let select = "SELECT account, asset, period, used FROM account_use \
                      WHERE CAST(?1 AS TEXT) IS NULL OR account = ?1 ORDER BY account, asset, period";
        let mut standings = transaction.all(select, params![account], |row| {
            let (account, asset, period, used) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Standing { account, asset, period, used, paid_in: 0, spent: 0 })
        })?;
        if !standings.iter().any(|standing| standing.period == BALANCE) {
            return Ok(standings);
        }
        let (spent, claimed) = (spent(&transaction)?, claimed(&transaction)?);
        for standing in standings.iter_mut().filter(|standing| standing.period == BALANCE) {
            let key = (standing.account.clone(), standing.asset.clone());
            standing.spent = spent.get(&key).copied().unwrap_or_default();
            let stored = standing.used - claimed.get(&key).copied().unwrap_or_default();
            standing.paid_in = standing.spent - stored;
        }
        Ok(standings)
    }
}

type Sums = BTreeMap<(String, String), i64>;

/// From the roll-ups, which stay when entries are archived.
fn spent(session: &Session) -> SqlResult<Sums> {
    let sums = "SELECT account, asset, CAST(SUM(captured) - SUM(voided) AS BIGINT) FROM rollups WHERE asset LIKE 'prepaid:%' \
                GROUP BY account, asset";
    Ok(session.all(sums, &[], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?.into_iter().collect())
}

/// What is being served, where a claim is a row.
fn claimed(session: &Session) -> SqlResult<Sums> {
    if session.sqlite().is_some() {
        return Ok(Sums::new());
    }
    let sums = "SELECT account, asset, CAST(SUM(amount) AS BIGINT) FROM claims \
                WHERE state IN ('r', 's', 'u') AND asset LIKE 'prepaid:%' GROUP BY account, asset";
    Ok(session.all(sums, &[], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?.into_iter().collect())
}
