//! Which server, how it is reached, and whether it can be trusted with books.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio_postgres::config::{Host, SslMode};

use super::tls::Tls;
use crate::ledger::{
    file::OpenError,
    sql::{Session, SqlError, SqlResult, Trouble, params, postgres::Connection},
};

/// The longest that connecting, and then each call, may take.
const LIMIT: Duration = Duration::from_secs(3);
/// PostgreSQL 15 is the oldest that this was tried with.
const OLDEST: i64 = 150_000;

/// A database on a server.
#[derive(Clone)]
pub struct Server {
    config: tokio_postgres::Config,
    tls: Arc<ClientConfig>,
    shown: Arc<str>,
}

impl Server {
    /// Reads `postgres://user:password@host:5432/database?sslmode=require`, or a socket's directory, percent-encoded, as the
    /// host. `password` stands for one in the URL; `ca_file` (PEM) replaces the built-in roots.
    ///
    /// `sslmode`: `disable`, `prefer` (TLS if the server has it), `require`. With TLS the certificate is always verified.
    ///
    /// # Errors
    /// What is wrong, without the password.
    pub fn parse(url: &str, password: Option<&str>, ca_file: Option<&Path>) -> Result<Server, String> {
        let mut config: tokio_postgres::Config = url.parse().map_err(|error: tokio_postgres::Error| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        })?;
        if config.get_hosts().is_empty() {
            return Err("the host is missing".to_owned());
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err("the database's name is missing".to_owned());
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err("the user's name is missing".to_owned());
        }
        if let Some(password) = password {
            config.password(password);
        }
        let tls = crate::tls::client::database(ca_file).map_err(|why| format!("ca_file {why}"))?;
        config
            .application_name("tollgate")
            .connect_timeout(LIMIT)
            .tcp_user_timeout(LIMIT)
            .keepalives_idle(Duration::from_secs(10))
            // The server gives up before we do, so that a call that was given up leaves no lock behind. A gateway looks rows up by
            // their keys, always: a plan that was made for a small table must not read all of one that has grown since.
            .options(
                "-c statement_timeout=2500 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=5000 \
                 -c standard_conforming_strings=on -c jit=off -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off",
            );
        Ok(Server { shown: shown(&config), config, tls })
    }

    /// Without password and options: `postgres://books@db.example:5432/tollgate`.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether the connection may be in the clear although the server is on another machine.
    pub fn is_in_the_clear(&self) -> bool {
        let local = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        };
        self.config.get_ssl_mode() != SslMode::Require && !self.config.get_hosts().iter().all(local)
    }

    /// A connection for this thread.
    pub(in crate::ledger) fn connect(&self) -> SqlResult<Session> {
        self.connect_for(LIMIT)
    }

    /// The same for a command that reads for as long as it takes.
    pub(in crate::ledger) fn connect_to_read(&self) -> SqlResult<Session> {
        let session = self.connect_for(Duration::from_secs(3600))?;
        session.run(
            "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET enable_seqscan = on; SET enable_hashjoin = on; SET enable_mergejoin = on",
        )?;
        Ok(session)
    }

    fn connect_for(&self, limit: Duration) -> SqlResult<Session> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| SqlError::new(Trouble::Unreachable, error.to_string()))?;
        let connecting = async {
            let (client, connection) = self.config.connect(Tls(self.tls.clone())).await?;
            // Driven whenever this thread waits for the client; what ends it is told by the client's next call.
            tokio::spawn(async move { _ = connection.await });
            Ok::<_, tokio_postgres::Error>(client)
        };
        match runtime.block_on(async { tokio::time::timeout(LIMIT, connecting).await }) {
            Ok(Ok(client)) => Ok(Session::Postgres(Connection::new(runtime, client, limit))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(SqlError::new(Trouble::Unreachable, format!("no connection within {} s", LIMIT.as_secs()))),
        }
    }

    /// Sorts an error of this server.
    pub(in crate::ledger) fn error(&self, error: &SqlError) -> OpenError {
        let (server, what) = (self.shown.clone(), error.to_string());
        match error.trouble {
            Trouble::Unreachable | Trouble::Conflict => OpenError::Unreachable { server, what },
            Trouble::Refused => OpenError::Refused { server, what },
            Trouble::Foreign => OpenError::NotALedger { path: self.shown.as_ref().into(), what },
            Trouble::Damaged | Trouble::Shape | Trouble::Row => {
                OpenError::Corrupt { path: self.shown.as_ref().into(), what }
            }
        }
    }

    /// Whether what this server calls durable is.
    pub(in crate::ledger) fn check(&self, session: &Session) -> Result<(), OpenError> {
        let server = self.shown.clone();
        let setting = |name: &'static str| {
            session.cell::<String>("SELECT current_setting(?1)", params![name]).map_err(|error| self.error(&error))
        };
        let version: i64 = setting("server_version_num")?.parse().unwrap_or_default();
        if version < OLDEST {
            let what = format!("it is PostgreSQL {}; 15 or later is needed", version / 10_000);
            return Err(OpenError::Unfit { server, what });
        }
        for (name, fits) in [("fsync", "on"), ("full_page_writes", "on")] {
            let found = setting(name)?;
            if found != fits {
                let what = format!("its setting {name} is {found}: payments would be lost with the machine's power");
                return Err(OpenError::Unfit { server, what });
            }
        }
        if setting("synchronous_commit")? == "off" {
            let what =
                "synchronous_commit is off, for it or for this user: payments would be lost in a crash".to_owned();
            return Err(OpenError::Unfit { server, what });
        }
        Ok(())
    }
}

fn shown(config: &tokio_postgres::Config) -> Arc<str> {
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        })
        .collect();
    let (user, database) = (config.get_user().unwrap_or_default(), config.get_dbname().unwrap_or_default());
    format!("postgres://{user}@{}/{database}", hosts.join(",")).into()
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.shown).finish()
    }
}

impl PartialEq for Server {
    fn eq(&self, other: &Server) -> bool {
        self.config == other.config
    }
}

impl Eq for Server {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let server =
            Server::parse("postgres://books:s3cret@db.example:6432/tollgate?sslmode=require", None, None).unwrap();
        assert_eq!(server.shown(), "postgres://books@db.example:6432/tollgate");
        assert!(!format!("{server:?}").contains("s3cret"));
        assert!(!server.is_in_the_clear());
        let socket = Server::parse("postgres://books@%2Fvar%2Frun%2Fpg/tollgate", None, None).unwrap();
        assert_eq!(socket.shown(), "postgres://books@/var/run/pg:5432/tollgate");
        assert!(!socket.is_in_the_clear());
        assert!(Server::parse("postgres://books@db.example/tollgate", None, None).unwrap().is_in_the_clear());
    }

    #[test]
    fn what_is_missing_is_named_without_the_rest() {
        for (url, what) in [
            ("postgres://books:s3cret@/tollgate", "host"),
            ("postgres://books:s3cret@db.example", "database"),
            ("postgres://db.example/tollgate", "user"),
            ("postgres://books:s3cret@db.example:none/tollgate", "port"),
            ("postgres://books:s3cret@db.example/tollgate?colour=red", "colour"),
        ] {
            let error = Server::parse(url, None, None).unwrap_err();
            assert!(error.contains(what) && !error.contains("s3cret"), "{url}: {error}");
        }
    }
}
