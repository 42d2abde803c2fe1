//! Listening sockets: one for each core and address, shared by SO_REUSEPORT.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};

use super::connection;
use super::core::Core;

const BACKLOG: i32 = 4096;
/// How often connections that were closed for being too many are told of.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Binds `cores` sockets to one address.
///
/// The first bind goes without SO_REUSEPORT, so that a port which another process has is an error, not a silent half of its
/// traffic.
///
/// # Errors
/// When the address can't be had.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    // Port 0 became a real one here; all cores share it.
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..cores.max(1))
        .map(|_| {
            let socket = socket(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false).ok();
    }
    Ok(socket)
}

/// Accepts until the core stops; a connection above the limit is closed at once.
pub async fn accept(core: Rc<Core>, listener: TcpListener) {
    let mut refused = Refused { count: 0, next: Instant::now() };
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = refused.due() => {
                refused.tell();
                continue;
            }
        };
        match accepted {
            Ok((socket, peer)) => {
                if core.connections.get() >= core.connections_max {
                    refused.add();
                    continue;
                }
                let _ = socket.set_nodelay(true);
                let open = Open::new(&core);
                let core = core.clone();
                tokio::task::spawn_local(async move {
                    let _open = open;
                    connection::serve(core, socket, peer).await;
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: a busy loop would make it worse.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Connections that were closed at once and are not told of yet: a flood of them must not be one of the log, too.
struct Refused {
    count: u64,
    /// Not told of before.
    next: Instant,
}

impl Refused {
    fn add(&mut self) {
        self.count += 1;
        if Instant::now() >= self.next {
            self.tell();
        }
    }

    fn tell(&mut self) {
        tracing::warn!(closed = self.count, "connections were closed: the limit of open connections is reached");
        *self = Refused { count: 0, next: Instant::now() + TELL_EVERY };
    }

    /// When there is something to tell.
    async fn due(&self) {
        if self.count == 0 {
            return std::future::pending().await;
        }
        sleep_until(self.next).await;
    }
}

/// Counts a connection while it is open.
struct Open(Rc<Core>);

impl Open {
    fn new(core: &Rc<Core>) -> Open {
        core.connections.set(core.connections.get() + 1);
        Open(core.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get().saturating_sub(1));
        if self.0.draining.get() {
            self.0.drain.notify_waiters();
        }
    }
}
