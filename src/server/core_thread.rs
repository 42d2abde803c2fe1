//! A core's thread: its runtime, its listeners, how it goes over to another configuration, and how it ends.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::{Phase, runtime};
use crate::facilitator::chain::Node;
use crate::ledger::mailbox::Mailbox;
use crate::proxy::core::{Core, Shared, Thread};
use crate::proxy::listener::{self, Bound, Entrance, Listener};
use crate::proxy::origin::OriginPool;
use crate::wire::amount::Asset;

/// How often a core closes unused origin connections.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A socket, and the settings of HTTPS where it is one for that.
pub(super) type Door = (Bound, Option<Arc<rustls::ServerConfig>>);

/// What cores serve by: exchanged as a whole.
#[derive(Clone)]
pub(super) struct Serving {
    /// What all cores share.
    pub(super) shared: Arc<Shared>,
    /// TLS settings of each `https` origin, by index.
    pub(super) tls: Vec<Option<Arc<rustls::ClientConfig>>>,
    /// Of whoever may read the counts, as a digest; none where anybody may who can connect.
    pub(super) token: Option<[u8; 32]>,
    /// Nodes that are asked what became of token payments.
    pub(super) nodes: Arc<Vec<(Asset, Node)>>,
}

/// What a core's thread starts from.
pub(super) struct CoreStart {
    pub(super) serving: watch::Receiver<Serving>,
    pub(super) doors: Vec<Door>,
    pub(super) draining: watch::Receiver<Phase>,
    pub(super) needs_books: NeedsBooks,
}

/// Held by whoever needs the books; the other end hears when nobody does any more.
pub(super) type NeedsBooks = mpsc::SyncSender<()>;

/// The doors of each core.
pub(super) fn doors(entrances: Vec<Entrance>, cores: usize) -> Vec<Vec<Door>> {
    let mut doors: Vec<Vec<Door>> = (0..cores).map(|_| Vec::new()).collect();
    for Entrance { sockets, tls, .. } in entrances {
        for (core, sockets) in doors.iter_mut().zip(sockets) {
            core.extend(sockets.into_iter().map(|socket| (socket, tls.clone())));
        }
    }
    doors
}

impl CoreStart {
    pub(super) fn spawn(self, number: usize) -> io::Result<JoinHandle<()>> {
        let runtime = runtime()?;
        let listeners: Vec<_> = {
            let _guard = runtime.enter();
            let open = |(socket, tls): Door| Ok((Listener::new(socket)?, tls.map(TlsAcceptor::from)));
            self.doors.into_iter().map(open).collect::<io::Result<_>>()?
        };
        let (serving, draining, needs_books) = (self.serving, self.draining, self.needs_books);
        std::thread::Builder::new().name(format!("core-{number}")).spawn(move || {
            let local = LocalSet::new();
            let needs_books = local.block_on(&runtime, async move {
                tokio::task::spawn_local(Mailbox::install());
                let thread = Thread::new();
                serving.borrow().shared.telemetry.tallies.add_core(thread.open.clone());
                tokio::task::spawn_local(thread.ticker.clone().run());
                let accepting = accept(&thread, listeners, &serving);
                serve(&thread, serving, draining).await;
                accepting.iter().for_each(tokio::task::JoinHandle::abort);
                drain(&thread, needs_books).await
            });
            // What was cut has its outcome only now.
            drop(local);
            drop(needs_books);
        })
    }
}

fn accept(
    thread: &Rc<Thread>,
    listeners: Vec<(Listener, Option<TlsAcceptor>)>,
    serving: &watch::Receiver<Serving>,
) -> Vec<tokio::task::JoinHandle<()>> {
    take(thread, &serving.borrow());
    let accept = |(listener, tls)| tokio::task::spawn_local(listener::accept(thread.clone(), listener, tls));
    listeners.into_iter().map(accept).collect()
}

/// Serves by what it is told to, until the gateway drains.
async fn serve(thread: &Rc<Thread>, mut serving: watch::Receiver<Serving>, mut draining: watch::Receiver<Phase>) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            _ = draining.wait_for(|phase| *phase >= Phase::Draining) => return,
            Ok(()) = serving.changed() => {
                let next = serving.borrow_and_update().clone();
                take(thread, &next);
            }
            _ = sweep.tick() => {
                if let Some(core) = thread.core() {
                    core.pools.iter().for_each(|pool| pool.sweep());
                }
            }
        }
    }
}

/// New requests are served by this. Connections to origins that are what they were stay.
fn take(thread: &Rc<Thread>, serving: &Serving) {
    let before = thread.core();
    let kept = |origin| before.iter().flat_map(|core| &core.pools).find(|pool| pool.config() == origin).cloned();
    let origins = serving.shared.config.origins.iter().zip(&serving.tls);
    let pools = origins
        .map(|(origin, tls)| kept(origin).unwrap_or_else(|| OriginPool::new(origin, tls.clone(), &thread.ticker)));
    let core = Core::new(serving.shared.clone(), pools.collect(), thread.clone());
    thread.serve_by(Some(core));
}

/// Ends what is open, within the time that the configuration gives, and lets go of the books as soon as nothing needs them;
/// what is cut then still does.
async fn drain(thread: &Rc<Thread>, needs_books: NeedsBooks) -> Option<NeedsBooks> {
    let (since, mut needs_books) = (Instant::now(), Some(needs_books));
    thread.draining.set(true);
    thread.drain.notify_waiters();
    let limit = thread.core().map_or(Duration::ZERO, |core| core.shared.config.server.drain);
    let mut deadline = std::pin::pin!(tokio::time::sleep(limit));
    // A connection that ends tells `drain`; one that was between two polls hears it at its next.
    let is_open = || thread.open.connections.get() > 0 || thread.open.exchanges.get() > 0;
    loop {
        if thread.sales.try_end(since.elapsed()) {
            drop(needs_books.take());
        }
        if !is_open() && thread.uncounted.get() == 0 {
            break;
        }
        tokio::select! {
            () = thread.drain.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = &mut deadline => {
                tracing::warn!(open = thread.open.connections.get(), "the drain's time is over; connections are cut");
                break;
            }
        }
    }
    // They hold each other.
    thread.serve_by(None);
    needs_books
}
