//! Claims: what is in hand, and on a server every payment above the replay floor.

use super::{Audit, Place, Stop, finding};
use crate::{
    ledger::{
        entry::{Kind, PostingKey},
        sql::{Session, SqlResult, params},
    },
    payment::key::{KeyKind, PaymentKey},
};

/// The row with which the writer of a file sees whether there is room.
const PROBE: &[u8] = &[0];

/// Checks each claim against the entries of its payment; on a server also that every capture that may come again has one.
pub(super) fn check(audit: &mut Audit<'_>) -> Result<(), Stop> {
    let connection = audit.connection;
    let on_server = connection.sqlite().is_none();
    // Below the floor nothing is claimed again: what was archived with such a payment need not be there.
    let below =
        if on_server { "CASE WHEN paid_at_ms < (SELECT replay_floor_ms FROM book) THEN 1 ELSE 0 END" } else { "0" };
    let select = format!("SELECT key, state, slot, CAST({below} AS BIGINT) FROM claims ORDER BY key");
    let mut statement = connection.prepare(&select)?;
    let mut rows = statement.query(&[])?;
    audit.place = Place::Claim("first".to_owned());
    while let Some(row) = rows.next()? {
        let bytes: &[u8] = row.get(0)?;
        if bytes == PROBE && !on_server {
            continue;
        }
        let place = Place::Claim(super::hex(bytes));
        audit.place = place.clone();
        let Some(key) = PaymentKey::from_bytes(bytes) else {
            return Err(finding(place, "its payment", "a payment key", super::hex(bytes)));
        };
        let state: &str = row.get(1)?;
        let known: &[&str] = if on_server { &["r", "s", "u", "c", "o", "v", "f", "b"] } else { &["s", "u"] };
        if !known.contains(&state) {
            return Err(finding(place, "its state", known.join(" or "), state));
        }
        let slot: i64 = row.get(2)?;
        if !audit.walked.iter().any(|walked| walked.slot == slot) {
            return Err(finding(place, "its writer", "one of this ledger", slot));
        }
        let find = |kind| find(connection, kind, &key);
        let none = |kind: Kind, what| match find(kind)? {
            None => Ok(()),
            Some(n) => Err(finding(place.clone(), what, "none", format!("entry {n}"))),
        };
        let one = |kind: Kind, what| match find(kind)? {
            Some(_) => Ok(()),
            None => Err(finding(place.clone(), what, "one", "none")),
        };
        match state {
            // Captured by one, and claimed by another: it would be served twice.
            "r" => none(Kind::Capture, "a capture of what is claimed")?,
            "s" | "u" => {
                one(Kind::Intent, "the intent of what is being settled")?;
                none(Kind::Capture, "a capture of what is being settled")?;
                none(Kind::Failed, "a failure of what is being settled")?;
            }
            "c" if row.get(3)? => {}
            "c" | "o" | "v" => one(Kind::Capture, "the capture of what is captured")?,
            _ => {}
        }
    }
    if on_server { tombstones(audit) } else { Ok(()) }
}

fn find(connection: &Session, kind: Kind, key: &PaymentKey) -> SqlResult<Option<i64>> {
    let key = PostingKey::new(kind, key, 0);
    connection.first("SELECT n FROM entries WHERE key = ?1", params![key.as_bytes()], |row| row.get(0))
}

/// A capture whose payment is not below the floor is known to the claims, or it could be claimed again. When a payment was made
/// stands in the keys of offers' ids alone: of others, the look at entries after each claim is what is left.
fn tombstones(audit: &mut Audit<'_>) -> Result<(), Stop> {
    let connection = audit.connection;
    let floor_ms: i64 = connection.cell("SELECT replay_floor_ms FROM book", &[])?;
    let mut from = PostingKey::new(Kind::Capture, &PaymentKey::from_offer_id(&[0; 48]), 0).as_bytes().to_vec();
    let mut until = from.clone();
    from[2..8].copy_from_slice(&floor_ms.to_be_bytes()[2..]);
    until[1] = KeyKind::OfferId as u8 + 1;
    let select = "SELECT e.n, e.key FROM entries e WHERE e.key >= ?1 AND e.key < ?2 AND NOT EXISTS (SELECT 1 FROM claims c \
                  WHERE c.key = substring(e.key FROM 2) AND c.state IN ('c', 'o', 'v')) ORDER BY e.n LIMIT 1";
    match connection.first(select, params![&from, &until], |row| Ok((row.get::<i64>(0)?, row.get::<Vec<u8>>(1)?)))? {
        None => Ok(()),
        Some((n, key)) => {
            let place = Place::Claim(super::hex(&key[1..]));
            Err(finding(
                place,
                "the row",
                format!("one of a payment that entry {n} captured"),
                "none, or one that is free",
            ))
        }
    }
}
