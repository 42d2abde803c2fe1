//! Postings that only make sense after others: what was settled was intended, what failed did not settle, what is owed, served
//! again or lapsed was captured.

use super::{Place, Stop, corrections, finding, same};
use crate::ledger::{
    entry::{Entry, Kind, PostingKey, is_settled_at_once},
    sql::{Session, params},
};

/// Checks that what `entry` builds on stands before it.
pub(super) fn check(connection: &Session, entry: &Entry<'_>) -> Result<(), Stop> {
    let before = |kind| earlier(connection, entry, kind);
    let none = |kind: Kind, what| match before(kind)? {
        None => Ok(()),
        Some(other) => Err(finding(Place::Entry(entry.n), what, "none", format!("entry {}", other.n))),
    };
    match entry.kind {
        Kind::Intent => {
            none(Kind::Capture, "an earlier capture of what is intended")?;
            none(Kind::Failed, "an earlier failure of what is intended")
        }
        // Where nothing was taken, nobody was asked to settle.
        Kind::Capture if is_settled_at_once(entry.scheme) && entry.amount > 0 => {
            none(Kind::Failed, "an earlier failure of what is captured")?;
            intended(entry, before(Kind::Intent)?)
        }
        Kind::Failed => {
            none(Kind::Capture, "an earlier capture of what failed")?;
            intended(entry, before(Kind::Intent)?)
        }
        Kind::Owed | Kind::Redelivered | Kind::Lapsed => {
            let place = Place::Entry(entry.n);
            match entry.kind {
                Kind::Lapsed => none(Kind::Redelivered, "an earlier answer to what has lapsed")?,
                Kind::Redelivered => none(Kind::Lapsed, "an earlier lapse of what is served")?,
                _ => {}
            }
            if !is_settled_at_once(entry.scheme) {
                return Err(finding(place, "its scheme", "one that is settled at once", entry.scheme));
            }
            let Some(capture) = before(Kind::Capture)? else {
                return Err(finding(place, "the capture that it is about", "an earlier entry of its payment", "none"));
            };
            let named = entry.ref_n.map_or_else(|| "none".to_owned(), |n| n.to_string());
            same(place.clone(), "the capture that it names", capture.n.to_string(), named)?;
            same(place, "its amount", capture.amount, entry.amount)
        }
        Kind::Refund | Kind::Dispute => corrections::check(connection, entry),
        Kind::Void if is_settled_at_once(entry.scheme) => {
            Err(finding(Place::Entry(entry.n), "its scheme", "one on credit", entry.scheme))
        }
        _ => Ok(()),
    }
}

/// What was intended is what is settled; in `upto` at most the maximum: an intent that could not be told to be written may have
/// been for another amount than the one that followed.
fn intended(entry: &Entry<'_>, intent: Option<Earlier>) -> Result<(), Stop> {
    let place = Place::Entry(entry.n);
    let Some(intent) = intent else {
        return Err(finding(place, "its intent", "an earlier entry of its payment", "none"));
    };
    if entry.scheme != "upto" {
        return same(place, "its amount, of what was intended", intent.amount, entry.amount);
    }
    let most = intent.list_amount.unwrap_or(intent.amount);
    if entry.amount > most {
        return Err(finding(place, "its amount, of what was intended", format!("at most {most}"), entry.amount));
    }
    Ok(())
}

/// A posting that stands before.
struct Earlier {
    n: i64,
    amount: i64,
    list_amount: Option<i64>,
}

/// The posting of this kind for the same payment, if it stands before.
fn earlier(connection: &Session, entry: &Entry<'_>, kind: Kind) -> Result<Option<Earlier>, Stop> {
    let key = PostingKey::new(kind, &entry.key.payment(), 0);
    let find = "SELECT n, amount, list_amount FROM entries WHERE key = ?1 AND n < ?2";
    let mut statement = connection.prepare(find)?;
    let mut rows = statement.query(params![key.as_bytes(), entry.n])?;
    Ok(match rows.next()? {
        Some(row) => Some(Earlier { n: row.get(0)?, amount: row.get(1)?, list_amount: row.get(2)? }),
        None => None,
    })
}
