//! Rows that no chain covers: the book's, the writers', keys, terms. What can be recomputed is; of the rest it is looked at
//! whether it can be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use super::{Audit, Place, Stop, finding, hex, same, same_hash};
use crate::ledger::{chain, day::BookZone, file, postgres::lease, postgres::schema, sql::SqlError, verify::public_key};

/// The largest slot: numbers of entries have 15 bits for it.
const SLOT_MAX: i64 = 32_767;
/// Clocks may differ by this much: further apart, a gateway sells nothing.
const CLOCKS_MS: i64 = 300_000;

impl Audit<'_> {
    pub(super) fn check_standing(&mut self) -> Result<(), Stop> {
        self.book()?;
        self.writers()?;
        self.keys()?;
        self.terms()
    }

    /// The latest time that anything may name.
    fn latest_ms(&self) -> i64 {
        let posted = self.walked.iter().map(|walked| walked.at_ms).max().unwrap_or_default();
        let now = self.options.now_ms.map_or(0, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
        posted.max(now).saturating_add(CLOCKS_MS)
    }

    /// Without a clock of its own an audit does not know what is in the future.
    fn time(&self, place: Place, what: &'static str, found: i64) -> Result<(), Stop> {
        if found < 0 {
            return Err(finding(place, what, "at least 0", found));
        }
        let latest = self.latest_ms();
        if self.options.now_ms.is_some() && found > latest {
            return Err(finding(place, what, format!("at most {latest}"), found));
        }
        Ok(())
    }

    fn book(&mut self) -> Result<(), Stop> {
        self.place = Place::Book;
        let connection = self.connection;
        let rows: i64 = connection.cell("SELECT count(*) FROM book", &[])?;
        same(Place::Book, "rows", 1, rows)?;
        let read = "SELECT version, zone, replay_floor_ms FROM book";
        let (version, zone, floor_ms) =
            connection.one(read, &[], |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<i64>(2)?)))?;
        let known = match connection.sqlite() {
            Some(file) => file::layout(file).map_err(SqlError::from)?,
            // One that is only read may be of an earlier version.
            None => version.clamp(1, schema::LAYOUT),
        };
        same(Place::Book, "its version", known, version)?;
        if BookZone::from_name(&zone).is_none() {
            return Err(finding(Place::Book, "its zone", "an IANA time zone", zone));
        }
        self.time(Place::Book, "its replay floor", floor_ms)
    }

    fn writers(&mut self) -> Result<(), Stop> {
        let connection = self.connection;
        let on_server = connection.sqlite().is_none();
        let now_ms: Option<i64> =
            if on_server { Some(connection.cell(&format!("SELECT {}", lease::NOW_MS), &[])?) } else { None };
        let mut statement = connection.prepare("SELECT slot, epoch, lease_until FROM writers ORDER BY slot")?;
        let mut rows = statement.query(&[])?;
        while let Some(row) = rows.next()? {
            let place = Place::Writer(row.get(0)?);
            self.place = place.clone();
            within(place.clone(), "its number", row.get(0)?, 1, SLOT_MAX)?;
            within(place.clone(), "its epoch", row.get(1)?, 1, if on_server { i64::MAX } else { 1 })?;
            let lease: Option<i64> = row.get(2)?;
            match (lease, now_ms) {
                (Some(until), Some(now_ms)) => {
                    within(
                        place,
                        "the end of its lease",
                        until,
                        lease::RETIRED_MS,
                        now_ms + lease::LEASE_MS + CLOCKS_MS,
                    )?;
                }
                (None, None) => {}
                (found, _) => {
                    let expected = if on_server { "a time" } else { "none, for a file is locked" };
                    return Err(finding(place, "the end of its lease", expected, format!("{found:?}")));
                }
            }
        }
        Ok(())
    }

    /// Each key is the one of its thumbprint, and every capture that was signed has its key.
    fn keys(&mut self) -> Result<(), Stop> {
        let connection = self.connection;
        let mut signers: BTreeSet<&(String, String)> = self.walked.iter().flat_map(|walked| &walked.signers).collect();
        let select = "SELECT thumbprint, agent, jwk, directory_digest, seen_ms FROM keys";
        let mut statement = connection.prepare(select)?;
        let mut rows = statement.query(&[])?;
        self.place = Place::Key("first".to_owned());
        while let Some(row) = rows.next()? {
            let (thumbprint, agent): (String, String) = (row.get(0)?, row.get(1)?);
            let place = Place::Key(format!("{thumbprint} of {agent}"));
            self.place = place.clone();
            let jwk: &str = row.get(2)?;
            match public_key(Some(jwk)) {
                None => return Err(finding(place, "its key", "a usable public key as JWK", jwk)),
                Some(key) => same(place.clone(), "the thumbprint of its key", &*thumbprint, key.thumbprint())?,
            }
            let _: [u8; 32] = row.get(3)?;
            self.time(place, "when it was seen", row.get(4)?)?;
            signers.remove(&(thumbprint, agent));
        }
        match signers.first() {
            None => Ok(()),
            Some((thumbprint, agent)) => {
                let place = Place::Key(format!("{thumbprint} of {agent}"));
                Err(finding(place, "the row", "one, for captures are signed with it", "none"))
            }
        }
    }

    /// Each template is the one of its digest, and everything that was sold under one has it.
    fn terms(&mut self) -> Result<(), Stop> {
        let connection = self.connection;
        // Of entries whose evidence is dropped, what was noted before that.
        let noted = self.gone.kept.iter().map(|kept| &kept.part.state);
        let mut sold: BTreeMap<&[u8], i64> = BTreeMap::new();
        for (digest, n) in self.walked.iter().chain(noted).flat_map(|walked| &walked.templates) {
            sold.entry(digest).or_insert(*n);
        }
        let mut statement = connection.prepare("SELECT digest, bytes, loaded_ms FROM terms")?;
        let mut rows = statement.query(&[])?;
        self.place = Place::Terms("first".to_owned());
        while let Some(row) = rows.next()? {
            let digest: &[u8] = row.get(0)?;
            let place = Place::Terms(hex(digest));
            self.place = place.clone();
            same_hash(place.clone(), "the digest of its bytes", digest, &chain::evidence_digest(row.get(1)?))?;
            self.time(place, "when it was loaded", row.get(2)?)?;
            sold.remove(digest);
        }
        match sold.first_key_value() {
            None => Ok(()),
            Some((digest, n)) => {
                let expected = format!("one, for entry {n} was sold under it");
                Err(finding(Place::Terms(hex(digest)), "the row", expected, "none"))
            }
        }
    }
}

fn within<T: PartialOrd + Display>(place: Place, what: &'static str, found: T, least: T, most: T) -> Result<(), Stop> {
    if found < least || found > most {
        return Err(finding(place, what, format!("{least} to {most}"), found));
    }
    Ok(())
}
