//! Configuration → running parts: one thread per core, one control thread, the ledger's writer; and how they stop.
//!
//! ```text
//! core 0..n   listener, connections, origin pool        one single-threaded runtime each
//! control     key directories, clock rule, live terms    one single-threaded runtime
//! ledger      SQLite                                     one thread, inside the store
//! ```

pub mod admin;
mod facilitators;
pub mod files;
mod reconcile;
mod terms;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::config::{Config, Origin};
use crate::facilitator;
use crate::identity::{self, Keys, Service};
use crate::ledger::ledger_store::{APART_MAX_MS, LedgerOptions, LedgerStore, OpenError};
use crate::ledger::mailbox::Mailbox;
use crate::ledger::store::{Health, Store as _};
use crate::payment::signed::Rules;
use crate::proxy::answers::Answers;
use crate::proxy::core::{Accounts, Core, Shared};
use crate::proxy::listener;
use crate::proxy::origin::OriginPool;
use crate::proxy::ticker::Ticker;
use crate::tls;

use self::terms::LiveTerms;

/// How long after the start priced requests wait for books that are being handed over.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How often a core closes unused origin connections.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A running gateway; dropped, it drains and stops.
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    drain: watch::Sender<Phase>,
    cores: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    store: Arc<LedgerStore>,
}

/// How far a gateway has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serving,
    /// Cores end what is open.
    Draining,
    /// The cores are done; the control thread, which answered them, may end too.
    Drained,
}

/// Why a gateway does not start; nothing was served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The secret file.
    #[error("secret file {}: {reason}", path.display())]
    Secrets {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The gateway's own key.
    #[error("key file {}: {reason}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file of trusted roots.
    #[error("ca_file {}: {reason}", path.display())]
    Roots {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Keys of agents.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// A facilitator's settings.
    #[error("facilitator `{name}`: {reason}")]
    Facilitator {
        /// NAME of its section.
        name: Arc<str>,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An address to listen on.
    #[error("cannot listen on {address}: {error}{}", hint(error))]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Threads, sockets or descriptors.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has the port: stop it, or set server.listen to another",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to bind them",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
        _ => "",
    }
}

impl Gateway {
    /// Starts all parts. When this returns, connections are accepted. A ledger that is out of reach does not hinder it: free
    /// routes are served, priced ones when it can be opened.
    ///
    /// # Errors
    /// [`StartError`]; whatever was started is stopped again.
    pub fn start(config: Config) -> Result<Gateway, StartError> {
        let config = Arc::new(config);
        let clock = Clock::system();
        let (secrets, secrets_are_new) =
            files::load_secrets(&config.offers.secret_file, config.ledger.location.file().is_none())?;
        let key = config.signing.key_file.as_deref().map(files::load_key).transpose()?;
        let tls = origin_tls(&config)?;
        let sockets = listen(&config)?;
        let addresses = sockets.iter().filter_map(|(_, s)| s.first()?.local_addr().ok()).collect();
        let store = LedgerStore::start(LedgerOptions {
            place: config.ledger.location.clone(),
            zone: config.ledger.zone.clone(),
            keys_max: config.ledger.keys_max,
            queue_max: config.ledger.queue_max,
            sync: config.ledger.sync,
            ttl_max_ms: config.offers.ttl.as_millis() as u64,
            skew_ms: config.identity.skew.as_millis() as u64,
            apart_max_ms: Some(APART_MAX_MS),
            secret_prints: secrets.fingerprints(),
            // Offers of another ledger may have been used, which a new one cannot know; with a new secret there are none.
            since_ms: if secrets_are_new { 0 } else { clock.now_ms() },
            clock: clock.clone(),
        })?;
        store.set_rules(admin::orders::ledger_rules(&config));
        let (keys, questions) = Keys::new();
        let service = Service::new(keys.clone(), questions, &config, clock.clone())?;
        let (facilitators, settlements) = facilitators::start(&config, &clock)?;
        let nodes = facilitators::nodes(&config)?;
        let offers = Shared::offers_of(&config);
        let shared = Arc::new(Shared {
            rules: rules(&config),
            accounts: Accounts::of(&config),
            store: store.clone(),
            answers: Answers::new(config.exact.answers_bytes),
            config: config.clone(),
            route_keys: Shared::route_keys_of(&config),
            catalogue: Shared::catalogue_of(&config, &offers, clock.now_ms() / 1000),
            offers,
            key,
            secrets,
            terms: OnceLock::new(),
            awaited_until_ms: clock.now_ms() + HAND_OVER.as_millis() as u64,
            facilitators,
            keys,
            clock,
        });
        let key = shared.key.clone().map(Arc::new);
        let (drain, draining) = watch::channel(Phase::Serving);
        let mut gateway = Gateway {
            addresses,
            drain,
            cores: Vec::new(),
            control: None,
            shared: shared.clone(),
            store: store.clone(),
        };
        let terms = LiveTerms::new(shared.clone(), store.clone());
        if store.has_opened()
            && let Err(error) = block_on(terms.load())
        {
            tracing::warn!(%error, "priced routes are closed: the terms of offers are not durable yet");
        }
        // Whoever can open a database needs nobody to do it for him.
        let file = config.ledger.location.file().map(Path::to_owned);
        let door = file.as_deref().filter(|_| store.has_opened()).and_then(admin::Door::open);
        let door = admin::serve(door, store.clone(), file, key);
        let reconcile = reconcile::run(store.clone(), shared.facilitators.clone(), nodes);
        let door = async move {
            tokio::join!(door, reconcile);
        };
        gateway.control = Some(spawn_control((service, settlements), door, terms, draining.clone())?);
        let mut by_core: Vec<Vec<std::net::TcpListener>> = Vec::new();
        by_core.resize_with(config.server.cores.max(1), Vec::new);
        for (_, sockets) in sockets {
            for (core, socket) in by_core.iter_mut().zip(sockets) {
                core.push(socket);
            }
        }
        for (number, listeners) in by_core.into_iter().enumerate() {
            let start = CoreStart { shared: shared.clone(), tls: tls.clone(), listeners, draining: draining.clone() };
            gateway.cores.push(start.spawn(number)?);
        }
        Ok(gateway)
    }

    /// The addresses that connections are accepted on, in the order of `server.listen`; port 0 became a real one.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether priced routes are served, and if not, why.
    pub fn health(&self) -> Health {
        match self.store.health() {
            Health::Open if self.shared.terms().is_none() => {
                Health::Closed("the terms of offers are not durable yet".into())
            }
            health => health,
        }
    }

    /// Stops accepting, ends what is being served within `server.drain_seconds`, then writes and closes the books.
    pub fn drain(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _ = self.drain.send(Phase::Draining);
        for core in self.cores.drain(..) {
            if core.join().is_err() {
                tracing::error!("a core ended by a panic");
            }
        }
        if let Some(control) = self.control.take() {
            let _ = self.drain.send(Phase::Drained);
            let _ = control.join();
            if let Err(error) = self.store.close() {
                tracing::error!(%error, "the ledger did not close cleanly");
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

fn rules(config: &Config) -> Rules {
    Rules {
        skew: config.identity.skew.as_secs().cast_signed(),
        window: config.deferred.window.as_secs().cast_signed(),
        require_authority: config.deferred.require_authority,
        require_path: config.deferred.require_path,
        lenient_signature: config.deferred.lenient_signature,
    }
}

type Sockets = Vec<(SocketAddr, Vec<std::net::TcpListener>)>;

fn listen(config: &Config) -> Result<Sockets, StartError> {
    let bind = |address: &SocketAddr| {
        let sockets = listener::bind(*address, config.server.cores);
        sockets.map(|s| (*address, s)).map_err(|error| StartError::Listen { address: *address, error })
    };
    config.server.listen.iter().map(bind).collect()
}

/// The TLS settings of each `https` origin, by index.
fn origin_tls(config: &Config) -> Result<Vec<Option<Arc<rustls::ClientConfig>>>, StartError> {
    let of = |origin: &Origin| {
        let roots = |reason| StartError::Roots { path: origin.ca_file.clone().unwrap_or_default(), reason };
        origin.https.then(|| tls::client(origin.ca_file.as_deref()).map_err(roots)).transpose()
    };
    config.origins.iter().map(of).collect()
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

fn spawn_control(
    (keys, settlements): (Service, facilitator::Service),
    door: impl Future<Output = ()> + Send + 'static,
    terms: LiveTerms,
    mut draining: watch::Receiver<Phase>,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        let local = LocalSet::new();
        local.spawn_local(keys.run());
        local.spawn_local(settlements.run());
        local.spawn_local(door);
        local.spawn_local(watch_clock(terms.store.clone()));
        local.spawn_local(watch_file(terms.store.clone()));
        local.spawn_local(terms.keep());
        // Cores may ask for keys while they drain.
        local.block_on(&runtime, async move {
            let _ = draining.wait_for(|phase| *phase == Phase::Drained).await;
        });
        drop(local);
        // A look at a file system that hangs is not waited for.
        runtime.shutdown_background();
    })
}

/// Closes priced routes when the wall clock jumps.
async fn watch_clock(store: Arc<LedgerStore>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        store.check_clock();
    }
}

/// Closes priced routes while the ledger's path does not name the open file.
async fn watch_file(store: Arc<LedgerStore>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let store = store.clone();
        let _ = tokio::task::spawn_blocking(move || store.check_file()).await;
    }
}

/// What a core's thread starts from.
struct CoreStart {
    shared: Arc<Shared>,
    tls: Vec<Option<Arc<rustls::ClientConfig>>>,
    listeners: Vec<std::net::TcpListener>,
    draining: watch::Receiver<Phase>,
}

impl CoreStart {
    fn spawn(self, number: usize) -> io::Result<JoinHandle<()>> {
        let runtime = runtime()?;
        let listeners: Vec<_> = {
            let _guard = runtime.enter();
            self.listeners.into_iter().map(tokio::net::TcpListener::from_std).collect::<io::Result<_>>()?
        };
        let (shared, tls, draining) = (self.shared, self.tls, self.draining);
        std::thread::Builder::new().name(format!("core-{number}")).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                tokio::task::spawn_local(Mailbox::install());
                let ticker = Ticker::new();
                tokio::task::spawn_local(ticker.clone().run());
                let pools = shared.config.origins.iter().zip(tls);
                let pools = pools.map(|(origin, tls)| OriginPool::new(origin, tls, &ticker)).collect();
                let core = Core::new(shared, pools, ticker);
                serve_until_drained(&core, listeners, draining).await;
            });
        })
    }
}

async fn serve_until_drained(
    core: &std::rc::Rc<Core>,
    listeners: Vec<tokio::net::TcpListener>,
    mut draining: watch::Receiver<Phase>,
) {
    let accepting: Vec<_> =
        listeners.into_iter().map(|l| tokio::task::spawn_local(listener::accept(core.clone(), l))).collect();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            _ = draining.wait_for(|phase| *phase >= Phase::Draining) => break,
            _ = sweep.tick() => core.pools.iter().for_each(|pool| pool.sweep()),
        }
    }
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    core.draining.set(true);
    core.drain.notify_waiters();
    let deadline = tokio::time::sleep(core.shared.config.server.drain);
    let mut deadline = std::pin::pin!(deadline);
    // A connection that ends tells `drain`; one that was between two polls hears it at its next.
    while core.connections.get() > 0 || core.exchanges.get() > 0 {
        tokio::select! {
            () = core.drain.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = &mut deadline => {
                tracing::warn!(open = core.connections.get(), "the drain's time is over; connections are cut");
                break;
            }
        }
    }
}
