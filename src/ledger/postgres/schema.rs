//! The layout on a server: made, brought to this version, or refused.

use super::{lease, server::Server};
use crate::ledger::{
    chain,
    day::BookZone,
    file::{self, Book, OpenError},
    sql::{Begin, Session, SqlError, SqlResult, params},
    witnessed,
};

/// Each entry brings a database from its index to the next version.
const MIGRATIONS: [&str; 3] = [
    include_str!("../schema/postgres/0001.sql"),
    include_str!("../schema/postgres/0002.sql"),
    include_str!("../schema/postgres/0003.sql"),
];
/// The layout of this version.
pub(in crate::ledger) const LAYOUT: i64 = MIGRATIONS.len() as i64;
/// Who makes or changes the layout, and who opens or closes days, holds this lock. `Toll`, as a number.
pub(super) const LOCK: i64 = 0x546f_6c6c;

/// Brings the database to this version. One that is made gets the replay floor `floor_ms`.
pub(in crate::ledger) fn open_to_write(
    server: &Server,
    session: &Session,
    zone: &str,
    floor_ms: i64,
) -> Result<Book, OpenError> {
    BookZone::from_name(zone).ok_or_else(|| OpenError::NoSuchZone(zone.to_owned()))?;
    let sql = |error: SqlError| server.error(&error);
    let transaction = session.begin(Begin::Write).map_err(sql)?;
    lock(&transaction).map_err(sql)?;
    let version = version(server, &transaction)?;
    for migration in &MIGRATIONS[version..] {
        transaction.run(migration).map_err(sql)?;
    }
    if version == 0 {
        let mut ledger_id = [0; 16];
        getrandom::fill(&mut ledger_id)
            .map_err(|error| OpenError::Unreachable { server: server.shown().into(), what: error.to_string() })?;
        transaction
            .execute(
                "INSERT INTO book (one, version, zone, replay_floor_ms, ledger_id) VALUES (1, ?1, ?2, ?3, ?4)",
                params![MIGRATIONS.len() as i64, zone, floor_ms, &ledger_id],
            )
            .map_err(sql)?;
    } else if version < MIGRATIONS.len() {
        if version < witnessed::LAYOUT as usize {
            make_up(&transaction).map_err(sql)?;
        }
        transaction.execute("UPDATE book SET version = ?1", params![MIGRATIONS.len() as i64]).map_err(sql)?;
    }
    let (found, book) = book(&transaction).map_err(sql)?;
    transaction.commit().map_err(sql)?;
    if found != zone {
        return Err(OpenError::Zone { path: server.shown().into(), found, wanted: zone.to_owned() });
    }
    Ok(Book { made: version == 0, ..book })
}

/// Has a chain say what rows of an earlier layout are: one of its own, for the others may each have a gateway.
fn make_up(transaction: &Session) -> SqlResult<()> {
    if witnessed::all(transaction)?.is_empty() {
        return Ok(());
    }
    let ledger_id: [u8; 16] = transaction.cell("SELECT ledger_id FROM book", &[])?;
    let slot: i64 = transaction.cell("SELECT coalesce(max(slot), 0) + 1 FROM writers", &[])?;
    let new = "INSERT INTO writers (slot, epoch, lease_until, seq, batch_seq, head, at_ms, open_day) \
               VALUES (?1, 1, ?2, 0, 0, ?3, (SELECT coalesce(max(at_ms), 0) FROM writers), \
               (SELECT coalesce(max(open_day), 0) FROM writers))";
    transaction.execute(new, params![slot, lease::RETIRED_MS, &chain::genesis(&ledger_id, slot)])?;
    let mut head = file::head(transaction, slot)?.ok_or_else(|| SqlError::shape("a row is missing"))?;
    witnessed::make_up(transaction, slot, &mut head)
}

/// Looks at the database, changing nothing.
pub(in crate::ledger) fn open_to_read(server: &Server, session: &Session) -> Result<Book, OpenError> {
    match version(server, session)? {
        0 => {
            let what = "the database is empty".to_owned();
            Err(OpenError::NotALedger { path: server.shown().into(), what })
        }
        _ => book(session).map(|(_, book)| book).map_err(|error| server.error(&error)),
    }
}

/// Waits for its turn among those who change what all writers have in common.
pub(in crate::ledger) fn lock(transaction: &Session) -> SqlResult<()> {
    transaction.first("SELECT pg_advisory_xact_lock(?1)", params![LOCK], |_| Ok(())).map(drop)
}

/// The layout's version; 0 for an empty schema.
fn version(server: &Server, session: &Session) -> Result<usize, OpenError> {
    let sql = |error: SqlError| server.error(&error);
    let tables = "SELECT count(*) FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') AND relnamespace = \
                  coalesce(to_regnamespace(current_schema()), 0)";
    let tables: i64 = session.cell(tables, &[]).map_err(sql)?;
    if tables == 0 {
        return Ok(0);
    }
    let ours = "SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('book') \
                AND attname IN ('ledger_id', 'replay_floor_ms')";
    if session.cell::<i64>(ours, &[]).map_err(sql)? != 2 {
        let what = format!("a database of another program, with {tables} tables");
        return Err(OpenError::NotALedger { path: server.shown().into(), what });
    }
    let found: i64 = session.cell("SELECT version FROM book", &[]).map_err(sql)?;
    let known = MIGRATIONS.len();
    match usize::try_from(found) {
        Ok(version) if (1..=known).contains(&version) => Ok(version),
        _ => Err(OpenError::Newer { path: server.shown().into(), found, known: known as i64 }),
    }
}

fn book(session: &Session) -> SqlResult<(String, Book)> {
    session.one("SELECT zone, ledger_id, replay_floor_ms FROM book", &[], |row| {
        Ok((row.get(0)?, Book { ledger_id: row.get(1)?, floor_ms: row.get(2)?, made: false }))
    })
}
