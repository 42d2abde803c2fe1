//! Names → addresses, once per fetch.

use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
};

use tokio::{sync::Semaphore, task::spawn_blocking};

use super::guard::Admission;

/// A resolver's answer, later.
pub type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves names of agents. Its answers are not trusted: every address is checked, and a checked one is dialled.
pub trait Resolve: Send + Sync {
    /// The addresses of a host name, with the port to dial. Never called for an address.
    fn resolve(&self, host: &str, port: u16, admission: Admission) -> Addresses;
}

/// A look-up that blocks its thread.
type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The machine's resolver.
#[derive(Clone)]
pub struct SystemResolver {
    listed: Arc<Semaphore>,
    open: Arc<Semaphore>,
    lookup: Arc<Lookup>,
}

impl SystemResolver {
    /// At most `listed` names of agents that are listed one by one, and `open` of others, are being resolved at once, those
    /// included that nobody waits for any more: the machine's resolver cannot be interrupted. Apart, because anybody can
    /// name agents that a pattern admits, in domains whose servers never answer.
    pub fn new(listed: usize, open: usize) -> SystemResolver {
        SystemResolver::with(listed, open, |host, port| (host, port).to_socket_addrs().map(Iterator::collect))
    }

    fn with(
        listed: usize,
        open: usize,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> SystemResolver {
        let [listed, open] = [listed, open].map(|threads| Arc::new(Semaphore::new(threads)));
        SystemResolver { listed, open, lookup: Arc::new(lookup) }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16, admission: Admission) -> Addresses {
        let threads = if admission.private_ok { self.listed.clone() } else { self.open.clone() };
        let (lookup, host) = (self.lookup.clone(), host.to_owned());
        Box::pin(async move {
            let permit = threads.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = move || {
                let _permit = permit;
                lookup(&host, port)
            };
            spawn_blocking(lookup).await.map_err(io::Error::other)?
        })
    }
}

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemResolver")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, mpsc},
        task::Context,
    };

    use super::*;

    #[test]
    fn names_that_hang_under_a_pattern_leave_listed_ones_their_threads() {
        let (begun, begins) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let (begun, wait) = (Mutex::new(begun), Mutex::new(wait));
        let resolver = SystemResolver::with(1, 2, move |host, port| {
            if host.starts_with("hangs") {
                begun.lock().unwrap().send(()).unwrap();
                // Until the test is over.
                let _ = wait.lock().unwrap().recv();
            }
            Ok(vec![([192, 0, 2, 1], port).into()])
        });
        let [listed, open] = [true, false].map(|private_ok| Admission { private_ok });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let start = |name: &str| {
                let mut lookup = resolver.resolve(name, 443, open);
                assert!(lookup.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
                lookup
            };
            // Whoever waited for them has given up; they go on.
            for _ in 0..2 {
                drop(start("hangs.example"));
            }
            let third = start("well.example");
            assert_eq!((resolver.open.available_permits(), resolver.listed.available_permits()), (0, 1));
            let found = resolver.resolve("listed.example", 8443, listed).await.unwrap();
            assert_eq!(found, ["192.0.2.1:8443".parse().unwrap()]);
            begins.recv().unwrap();
            drop(end);
            assert_eq!(third.await.unwrap().len(), 1, "a thread that is done is there for the next name");
        });
    }
}
