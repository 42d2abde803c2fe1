//! Books in a database of their own, on a server that a test starts for itself.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio_postgres::{NoTls, SimpleQueryMessage};
use tollgate::ledger::{
    ledger_store::LedgerStore,
    location::Location,
    store::{ClaimRequest, Store},
};

use crate::{payments::wait, postgres::Postgres, support::Row};

thread_local! {
    /// A test has a thread, and its ledgers share the server. With it, the databases that nobody uses any more.
    static SERVER: RefCell<Option<(Arc<Postgres>, Vec<String>)>> = const { RefCell::new(None) };
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

pub struct Home {
    server: Arc<Postgres>,
    database: String,
}

impl Home {
    /// A call takes its time: property tests have so much fewer cases.
    pub const SLOWER: u32 = 3;
    /// Turns at what is owed are counted in the database, for all processes.
    pub const TURNS_OF_A_PROCESS: bool = false;

    /// Where no server is installed, nothing in this binary can be checked: it ends, and says that it was skipped.
    pub fn new() -> Home {
        let (server, free) = SERVER.with_borrow_mut(|mine| {
            if mine.is_none() {
                let server = Postgres::start("ledger_on_postgres").map(Arc::new);
                *mine = server.map(|server| (server, vec!["books".to_owned()]));
            }
            mine.as_mut().map(|(server, free)| (server.clone(), free.pop())).unzip()
        });
        let Some(server) = server else { std::process::exit(0) };
        let database = match free.flatten() {
            // Emptied: making another one is dear.
            Some(database) => {
                ask(&url(&server, &database), "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
                database
            }
            None => {
                let database = format!("books{}", DATABASES.fetch_add(1, Ordering::Relaxed));
                ask(&url(&server, "postgres"), &format!("CREATE DATABASE {database}"));
                database
            }
        };
        Home { server, database }
    }

    pub fn location(&self) -> Location {
        Location::parse(&self.name(), None).unwrap()
    }

    /// What [`Location::parse`] reads.
    pub fn name(&self) -> String {
        url(&self.server, &self.database)
    }

    /// The database counts it.
    pub fn used(&self, store: &LedgerStore, request: &ClaimRequest) -> i64 {
        // Asked after everything that was said before: when there is an answer, that has arrived.
        wait(store.unresolved()).unwrap();
        let (account, asset, period) = (&request.account, request.asset.as_str(), request.period);
        let used = format!(
            "SELECT used FROM account_use WHERE account = '{account}' AND asset = '{asset}' AND period = {period}"
        );
        self.rows(&used).first().map_or(0, |row| row[0].as_ref().unwrap().parse().unwrap())
    }

    /// A process that was killed has left, and its lease has run out.
    pub fn bury(&self) {
        self.change("UPDATE writers SET lease_until = 0");
    }

    /// As an earlier version's, where that has the same tables.
    pub fn becomes_layout(&self, version: i64) {
        self.change(&format!("UPDATE book SET version = {version}"));
    }

    pub fn rows(&self, sql: &str) -> Vec<Row> {
        let text = |cell: Option<&str>| cell.map(|cell| cell.strip_prefix("\\x").unwrap_or(cell).to_owned());
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| text(row.get(i))).collect()),
            _ => None,
        };
        ask(&self.name(), &translated(sql)).into_iter().filter_map(row).collect()
    }

    pub fn change(&self, sql: &str) -> u64 {
        let count = |message| match message {
            SimpleQueryMessage::CommandComplete(count) => count,
            _ => 0,
        };
        ask(&self.name(), &translated(sql)).into_iter().map(count).sum()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.server.log();
            eprintln!("--- PostgreSQL log ---\n{}", &log[log.len().saturating_sub(8000)..]);
            return;
        }
        let others =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        // Whoever is still there might write into the next ledger.
        if self.rows(others)[0][0].as_deref() == Some("0") {
            let database = std::mem::take(&mut self.database);
            // A thread that ends has no server any more.
            let _ = SERVER.try_with(|mine| mine.borrow_mut().as_mut().map(|(_, free)| free.push(database)));
        }
    }
}

fn url(server: &Postgres, database: &str) -> String {
    server.url().strip_suffix("books").unwrap().to_owned() + database
}

fn ask(url: &str, sql: &str) -> Vec<SimpleQueryMessage> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let driven = tokio::spawn(connection);
        let answer = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        drop(client);
        driven.await.unwrap().unwrap();
        answer
    })
}

/// The few words of SQLite's that PostgreSQL has others for.
fn translated(sql: &str) -> String {
    let sql = sql.replace("AS BLOB", "AS BYTEA").replace("(x'", "( x'");
    let mut pieces = sql.split(" x'");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (hex, after) = piece.split_once('\'').unwrap();
        out += &format!(" '\\x{hex}'::bytea{after}");
    }
    while let Some((before, after)) = out.split_once("zeroblob(") {
        let (count, after) = after.split_once(')').unwrap();
        let zeros = "00".repeat(count.parse().unwrap());
        out = format!("{before}'\\x{zeros}'::bytea{after}");
    }
    out
}
