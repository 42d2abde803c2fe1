//! Names → addresses, once per fetch.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
};

use tokio::{sync::Semaphore, task::spawn_blocking};

/// A resolver's answer, later.
pub type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves names of agents. Its answers are not trusted: every address is checked, and a checked one is dialled.
pub trait Resolve: Send + Sync {
    /// The addresses of a host name, with the port to dial. Never called for an address.
    fn resolve(&self, host: &str, port: u16) -> Addresses;
}

/// The machine's resolver.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    threads: Arc<Semaphore>,
}

impl SystemResolver {
    /// At most `threads` names are being resolved at once, those included that nobody waits for any more: the machine's
    /// resolver cannot be interrupted.
    pub fn new(threads: usize) -> SystemResolver {
        SystemResolver { threads: Arc::new(Semaphore::new(threads)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Addresses {
        let (threads, host) = (self.threads.clone(), host.to_owned());
        Box::pin(async move {
            let permit = threads.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = move || {
                let _permit = permit;
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
            };
            spawn_blocking(lookup).await.map_err(io::Error::other)?
        })
    }
}
