//! Postings that only make sense after others: what was settled was intended, what failed did not settle, what is owed, served
//! again or lapsed was captured.

use std::collections::HashMap;

use super::{Audit, Place, Stop, corrections, finding, same};
use crate::ledger::{
    archive::Referred,
    day,
    entry::{Entry, EntryNumber, Kind, PostingKey, is_settled_at_once},
    sql::{Session, SqlResult, params},
    top_up::Way,
};
use crate::wire::amount::Asset;

/// Checks that what `entry` builds on stands before it.
pub(super) fn check(known: &Known<'_>, entry: &Entry<'_>) -> Result<(), Stop> {
    let before = |kind| earlier(known, entry, kind);
    let none = |kind: Kind, what| match before(kind)? {
        None => Ok(()),
        Some(other) => Err(finding(Place::Entry(entry.n), what, "none", format!("entry {}", other.n))),
    };
    match entry.kind {
        // One that another writer took over may be captured there, whenever.
        Kind::Intent => {
            let none = |kind: Kind, what| match before(kind)? {
                Some(other) if EntryNumber::from_n(other.n).slot == EntryNumber::from_n(entry.n).slot => {
                    none(kind, what)
                }
                _ => Ok(()),
            };
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
            // What a crash left unproven is served again on credit, too.
            if entry.kind == Kind::Owed && !is_settled_at_once(entry.scheme) {
                return Err(finding(place, "its scheme", "one that is settled at once", entry.scheme));
            }
            let Some(capture) = before(Kind::Capture)? else {
                return Err(finding(place, "the capture that it is about", "an earlier entry of its payment", "none"));
            };
            let named = entry.ref_n.map_or_else(|| "none".to_owned(), |n| n.to_string());
            same(place.clone(), "the capture that it names", capture.n.to_string(), named)?;
            same(place.clone(), "its scheme", &*capture.scheme, entry.scheme)?;
            same(place, "its amount", capture.amount, entry.amount)
        }
        Kind::Refund | Kind::Dispute => corrections::check(known, entry),
        Kind::Void if is_settled_at_once(entry.scheme) => {
            Err(finding(Place::Entry(entry.n), "its scheme", "one on credit", entry.scheme))
        }
        Kind::Void => void(known, entry),
        Kind::Topup => topped_up(entry),
        Kind::Pass => pass(entry),
        _ => Ok(()),
    }
}

/// What was intended is what is settled; in `upto` at most the maximum: an intent that could not be told to be written may have
/// been for another amount than the one that followed.
fn intended(entry: &Entry<'_>, intent: Option<Referred>) -> Result<(), Stop> {
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

/// The posting of this kind for the same payment, if it stands before.
fn earlier(known: &Known<'_>, entry: &Entry<'_>, kind: Kind) -> Result<Option<Referred>, Stop> {
    let found = known.find(&PostingKey::new(kind, &entry.key.payment(), 0))?;
    Ok(found.filter(|found| stands_before(found.n, entry.n)))
}

/// Postings that others build on: those of the ledger, and those that were dropped from it.
pub(super) struct Known<'c> {
    connection: &'c Session,
    gone: &'c HashMap<PostingKey, Referred>,
}

impl Known<'_> {
    pub(super) fn find(&self, key: &PostingKey) -> SqlResult<Option<Referred>> {
        let find = "SELECT n, amount, list_amount, scheme, status FROM entries WHERE key = ?1";
        let found = self.connection.first(find, params![key.as_bytes()], |row| {
            let (amount, list_amount, scheme, status) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok(Referred { n: row.get(0)?, key: *key, amount, list_amount, scheme, status })
        })?;
        Ok(found.or_else(|| self.gone.get(key).cloned()))
    }
}

impl Audit<'_> {
    pub(super) fn known(&self) -> Known<'_> {
        Known { connection: self.connection, gone: &self.gone.referred }
    }
}

/// Whether an entry may have been posted before another. Numbers tell it of one writer; of two, nothing does.
pub(super) fn stands_before(n: i64, other: i64) -> bool {
    EntryNumber::from_n(n).slot != EntryNumber::from_n(other).slot || n < other
}

/// A top-up is more than nothing of a balance, one way or the other.
fn topped_up(entry: &Entry<'_>) -> Result<(), Stop> {
    let place = || Place::Entry(entry.n);
    if !matches!(Asset::parse(entry.asset), Some(Asset::Prepaid(_))) {
        return Err(finding(place(), "its asset", "a balance, `prepaid:USD`", entry.asset));
    }
    same(place(), "its period", day::BALANCE, entry.period)?;
    if entry.status.and_then(Way::from_code).is_none() {
        return Err(finding(place(), "which way it went", "1 or 2", format!("{:?}", entry.status)));
    }
    if entry.amount < 1 { Err(finding(place(), "its amount", "at least 1", entry.amount)) } else { Ok(()) }
}

/// A pass is for a time, of requests.
fn pass(entry: &Entry<'_>) -> Result<(), Stop> {
    let place = || Place::Entry(entry.n);
    same(place(), "its asset", Asset::REQUESTS, entry.asset)?;
    if entry.period < 1 { Err(finding(place(), "its seconds", "at least 1", entry.period)) } else { Ok(()) }
}

/// A void names an earlier capture of its payment and gives back what that charged.
fn void(known: &Known<'_>, void: &Entry<'_>) -> Result<(), Stop> {
    let place = Place::Entry(void.n);
    let n = void.ref_n.unwrap_or_default();
    let capture = known.find(&PostingKey::new(Kind::Capture, &void.key.payment(), 0))?;
    match capture.filter(|capture| stands_before(capture.n, void.n)) {
        Some(capture) if capture.n == n => same(place, "its amount", capture.amount, void.amount),
        Some(capture) => {
            Err(finding(place, "the capture that it voids", format!("number {}", capture.n), format!("number {n}")))
        }
        None => {
            Err(finding(place, "the capture that it voids", "an earlier entry of its payment", format!("number {n}")))
        }
    }
}
