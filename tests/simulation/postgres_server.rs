//! The server of a test's thread, and its one database, which is emptied for each run.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{postgres::ByName, server::Postgres};

/// Its log is written late: what was committed asynchronously is lost in a crash.
const SETTINGS: [&str; 3] = ["wal_writer_delay=10s", "autovacuum=off", "checkpoint_timeout=1h"];

/// What tells the time in place of the server's own clock.
const CLOCK: &str = "CREATE SCHEMA sim; CREATE TABLE sim.time (ms BIGINT NOT NULL); INSERT INTO sim.time VALUES (0); \
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE \
    AS $$ SELECT timestamptz 'epoch' + ms * interval '1 millisecond' FROM sim.time $$; \
    ALTER DATABASE books SET search_path = public, pg_catalog";

thread_local! {
    static SERVER: RefCell<Option<Rc<RefCell<Postgres>>>> = const { RefCell::new(None) };
}

/// The driver's own way to the database.
pub struct Database {
    server: Rc<RefCell<Postgres>>,
    runtime: tokio::runtime::Runtime,
    client: Option<Client>,
}

impl Database {
    /// Whether there is a server; says that `test` is skipped where there is none.
    pub fn is_there(test: &str) -> bool {
        SERVER.with_borrow_mut(|mine| {
            if mine.is_none() {
                let server = Postgres::start_with(test, &SETTINGS);
                *mine = server.map(|server| {
                    server.sql(CLOCK);
                    Rc::new(RefCell::new(server))
                });
            }
            mine.is_some()
        })
    }

    /// Without any books, at this time.
    pub fn empty(now_ms: u64) -> Database {
        let server = SERVER.with_borrow(Clone::clone).expect("a test asks first whether there is a server");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut database = Database { server, runtime, client: None };
        let tables = "SELECT string_agg(quote_ident(relname), ', ') FROM pg_class \
                      WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'book'";
        let tables = database.rows(tables).pop().and_then(|mut row| row.pop()?);
        if let Some(tables) = tables {
            database.rows(&format!("TRUNCATE {tables}; UPDATE book SET replay_floor_ms = 0"));
        }
        database.rows(&format!("UPDATE sim.time SET ms = {now_ms}"));
        database
    }

    pub fn url(&self) -> String {
        self.server.borrow().url()
    }

    pub fn socket(&self) -> PathBuf {
        self.server.borrow().folder().join(".s.PGSQL.5432")
    }

    /// It loses what was not durable, and comes back.
    pub fn crash(&mut self) {
        self.client = None;
        let mut server = self.server.borrow_mut();
        server.crash();
        server.resume_service();
    }

    /// The rows that statements return, one after the other.
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.answers(sql).into_iter().flatten().collect()
    }

    /// The same, by statement.
    pub fn answers(&mut self, sql: &str) -> Vec<Vec<Vec<Option<String>>>> {
        let url = self.url();
        let client = &mut self.client;
        let messages = self.runtime.block_on(async {
            if client.as_ref().is_none_or(Client::is_closed) {
                let (new, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
                tokio::spawn(connection);
                *client = Some(new);
            }
            let client = client.as_ref().unwrap();
            client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        });
        let mut answers = vec![Vec::new()];
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect();
                    answers.last_mut().unwrap().push(cells);
                }
                SimpleQueryMessage::CommandComplete(_) => answers.push(Vec::new()),
                _ => {}
            }
        }
        answers.pop();
        answers
    }

    /// Time passes. Processes of these names have renewed their leases meanwhile.
    pub fn pass(&mut self, ms: u64, renewed: &[String]) {
        let names: Vec<String> = renewed.iter().map(|name| format!("'{name}'")).collect();
        let names = if names.is_empty() { "NULL".to_owned() } else { names.join(", ") };
        // Whose row is locked, could not.
        self.rows(&format!(
            "BEGIN; UPDATE sim.time SET ms = ms + {ms}; UPDATE writers SET lease_until = lease_until + {ms} WHERE slot IN \
             (SELECT slot FROM writers WHERE secret_fps IN ({names}) FOR UPDATE SKIP LOCKED); COMMIT"
        ));
    }

    /// When leases end.
    pub fn leases(&mut self) -> ByName {
        let rows = self.rows("SELECT secret_fps, lease_until FROM writers WHERE secret_fps IS NOT NULL");
        rows.into_iter().filter_map(|row| Some((row[0].clone()?, row[1].as_ref()?.parse().ok()?))).collect()
    }

    /// Whether one of these processes of the server waits for a lock.
    pub fn waiting(&mut self, pids: &[i32]) -> bool {
        let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid";
        !pids.is_empty() && !self.rows(&format!("{waiting} IN ({})", list(pids))).is_empty()
    }

    /// Ends these processes of the server, whatever they wait for.
    pub fn end(&mut self, pids: &[i32]) {
        if !pids.is_empty() {
            self.rows(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN ({})", list(pids)));
        }
    }
}

fn list(pids: &[i32]) -> String {
    pids.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}
