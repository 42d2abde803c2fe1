//! The control thread: questions about keys, calls to facilitators, what is looked at again and again.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::core_thread::{NeedsBooks, Serving};
use super::status::{self, Status};
use super::terms;
use super::{Phase, admin, reconcile, runtime};
use crate::ledger::ledger_store::LedgerStore;
use crate::proxy::listener::Bound;
use crate::tls::server::Certificates;

/// How often it is looked whether certificates have changed.
const LOOK_AT_CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

/// Work that the control thread begins: it stays there until it ends by itself or the gateway does.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// What the control thread is started with.
pub(super) struct Control {
    /// Open already, so that whoever is told that the gateway listens can come through it.
    pub(super) door: Option<admin::Door>,
    /// The admin listener.
    pub(super) status: (Vec<Bound>, Status),
    pub(super) store: Arc<LedgerStore>,
    pub(super) serving: watch::Receiver<Serving>,
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) work: mpsc::UnboundedReceiver<Work>,
    pub(super) draining: watch::Receiver<Phase>,
    pub(super) needs_books: NeedsBooks,
}

impl Control {
    pub(super) fn spawn(self) -> io::Result<JoinHandle<()>> {
        let runtime = runtime()?;
        std::thread::Builder::new().name("control".into()).spawn(move || {
            let local = LocalSet::new();
            let Control { door, status: (sockets, status), store, serving, certificates, .. } = self;
            let (mut work, mut draining, needs_books) = (self.work, self.draining, self.needs_books);
            local.spawn_local(keep_books(store, serving, door, draining.clone(), needs_books));
            local.spawn_local(status::serve(sockets, status));
            local.spawn_local(watch_certificates(certificates));
            // Cores may ask for keys while they drain.
            local.block_on(&runtime, async move {
                loop {
                    tokio::select! {
                        _ = draining.wait_for(|phase| *phase == Phase::Drained) => return,
                        Some(begin) = work.recv() => begin(),
                    }
                }
            });
            drop(local);
            // A look at a file system that hangs is not waited for.
            runtime.shutdown_background();
        })
    }
}

/// What is done about the books, until no core needs them: then they are to be another process's, and so is their door.
async fn keep_books(
    store: Arc<LedgerStore>,
    serving: watch::Receiver<Serving>,
    door: Option<admin::Door>,
    mut draining: watch::Receiver<Phase>,
    needs_books: NeedsBooks,
) {
    {
        let keeping = async {
            tokio::join!(
                admin::serve(door, store.clone(), serving.clone()),
                reconcile::run(store.clone(), serving.clone()),
                terms::keep(store.clone(), serving),
                watch_clock(store.clone()),
                watch_file(store),
            )
        };
        tokio::select! {
            _ = keeping => {}
            _ = draining.wait_for(|phase| *phase >= Phase::Sold) => {}
        }
    }
    drop(needs_books);
}

/// Closes priced routes when the wall clock jumps.
async fn watch_clock(store: Arc<LedgerStore>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        store.check_clock();
    }
}

/// Serves certificates whose files have changed.
async fn watch_certificates(certificates: Option<Arc<Certificates>>) {
    let Some(certificates) = certificates else { return };
    let mut every = tokio::time::interval(LOOK_AT_CERTIFICATES_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let certificates = certificates.clone();
        match tokio::task::spawn_blocking(move || certificates.read_again()).await {
            Ok(Ok(true)) => tracing::info!("certificates have changed, and the new ones are served"),
            Ok(Err(error)) => {
                tracing::error!(%error, "certificates have changed and can't be used; the ones before are served");
            }
            Ok(Ok(false)) | Err(_) => {}
        }
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
