//! Configuration → running parts: one thread per core, one control thread, the ledger's writer; how they go over to another
//! configuration, and how they stop.
//!
//! ```text
//! core 0..n   listener, connections, origin pool        one single-threaded runtime each
//! control     key directories, clock rule, live terms    one single-threaded runtime
//! ledger      SQLite or PostgreSQL                       one thread, inside the store
//! ```
//!
//! How it ends, each line when the one before is done:
//!
//! ```text
//! Draining    no new connections; open ones end after their answers
//! Sold        no core needs the books (`proxy::sales`); the control thread lets go of them, and of the admin socket
//!             they are written and closed: the next process may have them
//! Drained     every connection has ended, or `server.drain_seconds` are over
//! ```

pub mod admin;
mod control;
mod core_thread;
mod entrances;
mod errors;
mod facilitators;
pub mod files;
mod hand_on;
mod parts;
mod reconcile;
mod reload;
mod status;
mod terms;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::ledger_store::{APART_MAX_MS, LedgerOptions, LedgerStore};
use crate::ledger::store::{Health, Store as _};
use crate::proxy::listener::{At, Bound, Endpoint};
use crate::telemetry::Telemetry;
use crate::telemetry::access::AccessLog;
use crate::tls::server::Certificates;

use self::control::{Control, Work};
use self::core_thread::{CoreStart, Serving};
pub use self::errors::{ReloadError, StartError};
pub use self::hand_on::{HandOnError, tell_ready};
use self::parts::{Files, Parts};
use self::status::Status;
use self::terms::LiveTerms;

/// A running gateway; dropped, it drains and stops.
pub struct Gateway {
    endpoints: Vec<Endpoint>,
    admin_endpoints: Vec<Endpoint>,
    /// What another process would get.
    originals: Vec<(String, Bound)>,
    drain: watch::Sender<Phase>,
    serve: watch::Sender<Serving>,
    work: mpsc::UnboundedSender<Work>,
    certificates: Option<Arc<Certificates>>,
    cores: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    /// Ends when no core needs the books, and when the control thread does not.
    books_needed: Option<(Receiver<()>, Receiver<()>)>,
    clock: Clock,
    store: Arc<LedgerStore>,
}

/// How far a gateway has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serving,
    /// Told to end: not ready any more, but still accepting.
    Leaving,
    /// Cores end what is open.
    Draining,
    /// No core needs the books any more; some may serve what is free.
    Sold,
    /// The cores are done; the control thread, which answered them, may end too.
    Drained,
}

impl Gateway {
    /// Starts all parts. When this returns, connections are accepted. A ledger that is out of reach does not hinder it: free
    /// routes are served, priced ones when it can be opened.
    ///
    /// # Errors
    /// [`StartError`]; whatever was started is stopped again.
    pub fn start(config: Config) -> Result<Gateway, StartError> {
        let clock = Clock::system();
        let telemetry = Telemetry::new(clock.wall_ms());
        telemetry.set_access(access_log(&config, &telemetry)?);
        let files = Files::read(&config)?;
        let secured = entrances::certificates(&config)?;
        let (mut entrances, mut admin) = entrances::open(&config, secured.as_ref().map(|(_, tls)| tls))?;
        let originals = entrances.iter_mut().chain(&mut admin);
        let originals = originals.flat_map(|entrance| std::mem::take(&mut entrance.originals)).collect();
        let admin_endpoints = admin.iter().map(|entrance| entrance.endpoint.clone()).collect();
        let endpoints = entrances.iter().map(|entrance| entrance.endpoint.clone()).collect();
        let store = open_store(&config, &files, &clock)?;
        store.set_rules(admin::orders::ledger_rules(&config));
        let Parts { serving, work } = Parts::new(config, files, &store, (&clock, &telemetry), None)?;
        if store.has_opened()
            && let Err(error) = block_on(LiveTerms::new(serving.shared.clone(), store.clone()).load())
        {
            tracing::warn!(%error, "priced routes are closed: the terms of offers are not durable yet");
        }
        let cores = serving.shared.config.server.cores.max(1);
        let (drain, draining) = watch::channel(Phase::Serving);
        let (serve, serving) = watch::channel(serving);
        let (begin, to_begin) = mpsc::unbounded_channel();
        let certificates = secured.map(|(certificates, _)| certificates);
        let file = serving.borrow().shared.config.ledger.location.file().map(Path::to_owned);
        let (control_needs, control_needed) = sync_channel(0);
        let control = Control {
            door: file.as_deref().filter(|_| store.has_opened()).and_then(admin::Door::open),
            status: (
                admin.into_iter().flat_map(|entrance| entrance.sockets).flatten().collect(),
                Status { store: store.clone(), serving: serving.clone(), phase: draining.clone() },
            ),
            store: store.clone(),
            serving: serving.clone(),
            certificates: certificates.clone(),
            work: to_begin,
            draining: draining.clone(),
            needs_books: control_needs,
        };
        let mut gateway = Gateway {
            endpoints,
            admin_endpoints,
            originals,
            drain,
            serve,
            work: begin,
            certificates,
            cores: Vec::new(),
            control: None,
            books_needed: None,
            clock,
            store,
        };
        gateway.begin(work);
        gateway.control = Some(control.spawn()?);
        // Behind the gateway: should a core not start, this end goes before the gateway waits for it.
        let (needs_books, cores_needed) = sync_channel(0);
        gateway.books_needed = Some((cores_needed, control_needed));
        for (number, doors) in core_thread::doors(entrances, cores).into_iter().enumerate() {
            let (serving, draining, needs_books) = (serving.clone(), draining.clone(), needs_books.clone());
            let start = CoreStart { serving, doors, draining, needs_books };
            gateway.cores.push(start.spawn(number)?);
        }
        Ok(gateway)
    }

    /// Serves by another configuration from now on. Connections stay open, requests under way end as they began, offers that
    /// are out stay good; all of it is taken over, or nothing.
    ///
    /// # Errors
    /// [`ReloadError`]; then everything is as it was.
    pub fn reload(&self, config: Config) -> Result<(), ReloadError> {
        let telemetry = self.serve.borrow().shared.telemetry.clone();
        let taken = self.take_over(config);
        let counted = if taken.is_ok() { &telemetry.reloads_taken } else { &telemetry.reloads_refused };
        counted.fetch_add(1, Ordering::Relaxed);
        taken
    }

    fn take_over(&self, config: Config) -> Result<(), ReloadError> {
        if self.control.is_none() {
            return Err(ReloadError::Ending);
        }
        let before = self.serve.borrow().clone();
        let fixed = reload::fixed(&before.shared.config, &config);
        if !fixed.is_empty() {
            return Err(ReloadError::Restart(fixed));
        }
        let telemetry = before.shared.telemetry.clone();
        // Opened anew: whoever moves log files away sends HUP.
        let access = access_log(&config, &telemetry)?;
        let files = Files::read(&config)?;
        let prints = files.secrets.fingerprints();
        let rules = admin::orders::ledger_rules(&config);
        let pairs = config.server.tls.as_ref().map(entrances::pairs);
        let Parts { serving, work } = Parts::new(config, files, &self.store, (&self.clock, &telemetry), Some(&before))?;
        if let (Some(certificates), Some(pairs)) = (&self.certificates, pairs) {
            // The last that can fail.
            certificates.replace(pairs).map_err(StartError::from)?;
        }
        telemetry.set_access(access);
        self.store.set_rules(rules);
        self.store.set_secret_prints(prints);
        self.store.raise_ttl_max(serving.shared.config.offers.ttl.as_millis() as u64);
        self.begin(work);
        let terms = LiveTerms::new(serving.shared.clone(), self.store.clone());
        if let Err(error) = block_on(terms.load()) {
            tracing::warn!(%error, "priced routes are closed: the terms of offers are not durable yet");
        }
        self.serve.send_replace(serving);
        Ok(())
    }

    /// Starts a command with this gateway's sockets and waits until it serves; then only [`Gateway::drain`] is left to do.
    /// Returns its process id. Both accept until then.
    ///
    /// # Errors
    /// [`HandOnError`]; this gateway goes on as it was.
    pub fn hand_on(&mut self, command: Command) -> Result<u32, HandOnError> {
        if !self.store.has_opened() {
            return Err(HandOnError::NoBooks);
        }
        let id = hand_on::start(command, &self.originals)?;
        // Their files are the other's to take away.
        self.endpoints.clear();
        self.admin_endpoints.clear();
        Ok(id)
    }

    fn begin(&self, work: Vec<Work>) {
        for begin in work {
            // Its thread is there as long as the gateway.
            let _ = self.work.send(begin);
        }
    }

    /// Routes with a price.
    pub fn priced_routes(&self) -> usize {
        self.serve.borrow().shared.config.routes.iter().filter(|route| route.price.is_some()).count()
    }

    /// Where connections are accepted: in the order of `server.listen`, then of `server.tls.listen`.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Where the admin listener is.
    pub fn admin_endpoints(&self) -> &[Endpoint] {
        &self.admin_endpoints
    }

    /// Those with an address; port 0 became a real one.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.endpoints.iter().filter_map(|endpoint| match endpoint.at {
            At::Tcp(address) => Some(address),
            At::Unix(..) => None,
        })
    }

    /// Whether priced routes are served, and if not, why.
    pub fn health(&self) -> Health {
        match self.store.health() {
            Health::Open if self.serve.borrow().shared.terms().is_none() => {
                Health::Closed("the terms of offers are not durable yet".into())
            }
            health => health,
        }
    }

    /// Stops accepting, ends what is being served within `server.drain_seconds`, writes and closes the books as soon as nothing that
    /// is being served needs them.
    ///
    /// For `server.drain_delay_seconds` before that it only says that it is not ready, so that whoever sends it requests can
    /// turn elsewhere.
    pub fn drain(mut self) {
        let delay = self.serve.borrow().shared.config.server.drain_delay;
        if !delay.is_zero() {
            let _ = self.drain.send(Phase::Leaving);
            std::thread::sleep(delay);
        }
        self.stop();
    }

    fn stop(&mut self) {
        let _ = self.drain.send(Phase::Draining);
        self.close_books();
        for core in self.cores.drain(..) {
            if core.join().is_err() {
                tracing::error!("a core ended by a panic");
            }
        }
        self.endpoints.iter().chain(&self.admin_endpoints).for_each(Endpoint::remove);
        if let Some(control) = self.control.take() {
            let _ = self.drain.send(Phase::Drained);
            let _ = control.join();
        }
    }

    fn close_books(&mut self) {
        let Some((cores, control)) = self.books_needed.take() else { return };
        // Nothing is ever sent: it ends with the last that could.
        let _ = cores.recv();
        let _ = self.drain.send(Phase::Sold);
        let _ = control.recv();
        match self.store.close() {
            Ok(()) => tracing::info!("the books are closed"),
            Err(error) => tracing::error!(%error, "the ledger did not close cleanly"),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

fn access_log(config: &Config, telemetry: &Telemetry) -> Result<Option<Arc<AccessLog>>, StartError> {
    let Some(access) = &config.telemetry.access else { return Ok(None) };
    AccessLog::open(&access.sink, access.format, telemetry.lines_lost.clone()).map(Some).map_err(StartError::Access)
}

fn open_store(config: &Config, files: &Files, clock: &Clock) -> Result<Arc<LedgerStore>, StartError> {
    Ok(LedgerStore::start(LedgerOptions {
        place: config.ledger.location.clone(),
        zone: config.ledger.zone.clone(),
        keys_max: config.ledger.keys_max,
        queue_max: config.ledger.queue_max,
        sync: config.ledger.sync,
        ttl_max_ms: config.offers.ttl.as_millis() as u64,
        skew_ms: config.identity.skew.as_millis() as u64,
        apart_max_ms: Some(APART_MAX_MS),
        secret_prints: files.secrets.fingerprints(),
        // Offers of another ledger may have been used, which a new one cannot know; with a new secret there are none.
        since_ms: if files.secrets_are_new { 0 } else { clock.now_ms() },
        clock: clock.clone(),
    })?)
}

fn block_on<F: Future>(future: F) -> F::Output {
    // Store futures need no runtime of their own; this one only parks the thread.
    match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime.block_on(future),
        Err(_) => unreachable!("a runtime without drivers needs nothing from the system"),
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
