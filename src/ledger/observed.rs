//! What was observed, in the rows of `rollups` and back.

use super::{
    observation::{Row, Sum, Would},
    read::{LedgerReader, ReadError},
    report::Days,
    sql::{Row as SqlRow, Session, SqlResult, Value, params},
};

/// What one kind of request was on one day, over all writers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Days since 1970-01-01.
    pub book_day: i64,
    /// See [`super::observation::Observed`].
    pub account: String,
    /// Likewise.
    pub agent: String,
    /// Likewise.
    pub route: String,
    /// `USD`, or a token's CAIP-19 name.
    pub asset: String,
    /// How many, and what they would have earned.
    pub sum: Sum,
    would: String,
}

impl Line {
    /// What would have followed.
    pub fn would(&self) -> Would<'_> {
        Would::read(&self.would)
    }
}

/// Adds rows to those of a writer: one statement for all of them on a server, where each call is dear.
pub(super) fn write(connection: &Session, slot: i64, book_day: i64, rows: &[Row]) -> SqlResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    if connection.sqlite().is_some() {
        for (observed, sum) in rows {
            connection.execute(
                "INSERT INTO rollups (book_day, account, agent, route, scheme, asset, slot, observed, would_be) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (book_day, account, agent, route, scheme, asset, \
                 slot) DO UPDATE SET observed = rollups.observed + excluded.observed, \
                 would_be = rollups.would_be + excluded.would_be",
                params![
                    book_day,
                    &*observed.account,
                    &*observed.agent,
                    &*observed.route,
                    &*observed.would.text(),
                    observed.asset.as_str(),
                    slot,
                    sum.requests,
                    sum.would_be,
                ],
            )?;
        }
        return Ok(());
    }
    let schemes: Vec<String> = rows.iter().map(|(observed, _)| observed.would.text()).collect();
    let schemes: Vec<Option<&str>> = schemes.iter().map(|text| Some(&**text)).collect();
    let ints = |of: fn(&Sum) -> i64| -> Vec<Option<i64>> { rows.iter().map(|(_, sum)| Some(of(sum))).collect() };
    let texts = |of: fn(&Row) -> &str| -> Vec<Option<&str>> { rows.iter().map(|row| Some(of(row))).collect() };
    let values = [
        Value::Int(book_day),
        Value::Texts(&texts(|(observed, _)| &observed.account)),
        Value::Texts(&texts(|(observed, _)| &observed.agent)),
        Value::Texts(&texts(|(observed, _)| &observed.route)),
        Value::Texts(&schemes),
        Value::Texts(&texts(|(observed, _)| observed.asset.as_str())),
        Value::Int(slot),
        Value::Ints(&ints(|sum| sum.requests)),
        Value::Ints(&ints(|sum| sum.would_be)),
    ];
    let add = "INSERT INTO rollups AS r (book_day, account, agent, route, scheme, asset, slot, observed, would_be) \
               SELECT CAST(?1 AS BIGINT), account, agent, route, scheme, asset, CAST(?7 AS BIGINT), observed, would_be \
               FROM unnest(?2::text[], ?3::text[], ?4::text[], ?5::text[], ?6::text[], ?8::bigint[], ?9::bigint[]) \
               AS u (account, agent, route, scheme, asset, observed, would_be) \
               ON CONFLICT (book_day, account, agent, route, scheme, asset, slot) DO UPDATE SET \
               observed = r.observed + excluded.observed, would_be = r.would_be + excluded.would_be";
    connection.execute(add, &values).map(drop)
}

impl LedgerReader {
    /// What was observed on these days, of one route or all, in the order of day, route, agent.
    ///
    /// # Errors
    /// [`ReadError::Sql`], also for sums beyond 64 bits.
    pub fn observed(&self, days: Days, route: Option<&str>) -> Result<Vec<Line>, ReadError> {
        let select = "SELECT book_day, account, agent, route, scheme, asset, CAST(SUM(observed) AS BIGINT), \
                      CAST(SUM(would_be) AS BIGINT) FROM rollups WHERE observed <> 0 AND book_day >= ?1 AND book_day < ?2 \
                      AND (CAST(?3 AS TEXT) IS NULL OR route = ?3) \
                      GROUP BY book_day, account, agent, route, scheme, asset \
                      ORDER BY book_day, route, agent, account, asset, scheme";
        let line = |row: &SqlRow<'_>| {
            Ok(Line {
                book_day: row.get(0)?,
                account: row.get(1)?,
                agent: row.get(2)?,
                route: row.get(3)?,
                would: row.get(4)?,
                asset: row.get(5)?,
                sum: Sum { requests: row.get(6)?, would_be: row.get(7)? },
            })
        };
        Ok(self.connection.all(select, params![days.since, days.until, route], line)?)
    }
}
