//! What gateways that are gone have left: freed, or handed on. Only here is a claim ended that its own gateway did not end.

use super::{claims::give_back, lease::NOW_MS};
use crate::ledger::sql::{Begin, Session, SqlResult, params};

/// Rows that one transaction looks at.
const ROWS: i64 = 1000;

/// Frees what dead slots, and tasks that overstayed every deadline, still hold, and gives the credit back; drops what is below
/// the replay floor. How many rows were touched.
pub(super) fn sweep(session: &Session) -> SqlResult<u64> {
    let transaction = session.begin(Begin::Write)?;
    transaction.run("SET LOCAL synchronous_commit = off")?;
    // Locked in the order of their keys; what another transaction has in hand is looked at the next time.
    let dead = format!(
        "SELECT c.key, c.state FROM claims c JOIN writers w ON w.slot = c.slot \
         WHERE c.state IN ('r', 's', 'v') AND (c.epoch <> w.epoch OR w.lease_until < {NOW_MS} \
         OR (c.state = 'r' AND c.hard_until_ms < {NOW_MS})) ORDER BY c.key LIMIT {ROWS} FOR UPDATE OF c SKIP LOCKED"
    );
    let dead = transaction.all(&dead, &[], |row| Ok((row.get::<Vec<u8>>(0)?, row.get::<String>(1)?)))?;
    let mut touched = 0;
    let mut freed = Vec::new();
    for (key, state) in &dead {
        let next = match state.as_str() {
            // It was never captured, and can't be any more: the fence looks for this state.
            "r" => "f",
            "s" => "u",
            _ => "o",
        };
        let update = "UPDATE claims SET state = ?2, doubtful = CASE WHEN ?2 = 'u' THEN 1 ELSE 0 END WHERE key = ?1 \
                      RETURNING account, asset, period, amount";
        let held = transaction.one(update, params![key, next], |row| {
            Ok((row.get::<String>(0)?, row.get::<String>(1)?, row.get::<i64>(2)?, row.get::<i64>(3)?))
        })?;
        touched += 1;
        if next == "f" {
            freed.push(held);
        }
    }
    let freed =
        freed.iter().map(|(account, asset, period, amount)| (account.as_str(), asset.as_str(), *period, *amount));
    give_back(&transaction, freed)?;
    touched += transaction.execute(
        "DELETE FROM claims WHERE key IN (SELECT key FROM claims \
         WHERE paid_at_ms < (SELECT replay_floor_ms FROM book) AND state IN ('c', 'f', 'b') LIMIT ?1)",
        params![ROWS * 5],
    )?;
    transaction.commit()?;
    Ok(touched)
}
