//! Listening sockets. One for each core and address, shared by SO_REUSEPORT; Unix sockets and those that a service manager
//! passes are one, which all cores accept from.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockAddr, Socket as System, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use super::connection;
use super::core::Thread;
use super::socket::Socket;

const BACKLOG: i32 = 4096;
/// Who may connect to a Unix socket is decided by its directory.
const UNIX_MODE: u32 = 0o666;
/// How often connections that were closed for being too many are told of.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A place that connections are accepted at, with a socket for each core.
#[derive(Debug)]
pub struct Entrance {
    /// Where.
    pub endpoint: Endpoint,
    /// For each core.
    pub sockets: Vec<Vec<Bound>>,
    /// Settings of HTTPS; none for plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// The sockets themselves, each with the name under which it is passed on.
    pub originals: Vec<(String, Bound)>,
}

/// A socket before it belongs to a runtime.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix.
    Unix(std::os::unix::net::UnixListener),
}

impl From<Bound> for OwnedFd {
    fn from(socket: Bound) -> OwnedFd {
        match socket {
            Bound::Tcp(socket) => socket.into(),
            Bound::Unix(socket) => socket.into(),
        }
    }
}

impl Bound {
    /// Where it listens; none where it has no address.
    pub fn at(&self) -> Option<At> {
        match self {
            Bound::Tcp(socket) => socket.local_addr().ok().map(At::Tcp),
            Bound::Unix(socket) => Some(At::Unix(socket.local_addr().ok()?.as_pathname()?.to_owned(), None)),
        }
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn again(&self) -> io::Result<Bound> {
        Ok(match self {
            Bound::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Bound::Tcp(socket.try_clone()?)
            }
            Bound::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Bound::Unix(socket.try_clone()?)
            }
        })
    }
}

/// Where connections are accepted, as it is told to people: `http://127.0.0.1:8402`, `https://[::]:443`,
/// `unix:/run/tollgate/http.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// HTTPS.
    pub https: bool,
    /// Which socket.
    pub at: At,
}

/// A socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Port 0 has become a real one.
    Tcp(SocketAddr),
    /// A path, and the inode of the socket that this process made there; none for one that it was passed.
    Unix(PathBuf, Option<u64>),
}

impl At {
    /// The same, whose file is this process's to take away.
    pub fn owned(self) -> At {
        match self {
            At::Unix(path, None) => {
                let inode = std::fs::symlink_metadata(&path).ok().map(|meta| meta.ino());
                At::Unix(path, inode)
            }
            at => at,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.at, self.https) {
            (At::Tcp(address), true) => write!(f, "https://{address}"),
            (At::Tcp(address), false) => write!(f, "http://{address}"),
            (At::Unix(path, _), https) => {
                write!(f, "unix:{}{}", path.display(), if https { " (TLS)" } else { "" })
            }
        }
    }
}

impl Endpoint {
    /// Takes away the file of a Unix socket, unless another process has put its own there.
    pub fn remove(&self) {
        if let At::Unix(path, Some(inode)) = &self.at
            && std::fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == *inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds `cores` sockets to one address.
///
/// The first bind goes without SO_REUSEPORT, so that a port which another process has is an error, not a silent half of its
/// traffic.
///
/// # Errors
/// When the address can't be had.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<(At, Vec<Bound>)> {
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    // Port 0 became a real one here; all cores share it.
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let one = |_| {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Bound::Tcp(socket.into()))
    };
    Ok((At::Tcp(address), (0..cores.max(1)).map(one).collect::<io::Result<_>>()?))
}

fn socket(address: SocketAddr) -> io::Result<System> {
    let socket = System::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false).ok();
    }
    Ok(socket)
}

/// Binds a Unix socket that `cores` accept from. One that a process has left behind is replaced.
///
/// # Errors
/// When the path can't be had, or somebody listens there.
pub fn bind_unix(path: &Path, cores: usize) -> io::Result<(At, Vec<Bound>)> {
    let make = || -> io::Result<System> {
        let socket = System::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        Ok(socket)
    };
    let socket = match make() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            make()?
        }
        made => made?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(UNIX_MODE))?;
    socket.listen(BACKLOG)?;
    let inode = std::fs::symlink_metadata(path)?.ino();
    let socket = Bound::Unix(socket.into());
    let sockets = (0..cores.max(1)).map(|_| socket.again()).collect::<io::Result<_>>()?;
    Ok((At::Unix(path.to_owned(), Some(inode)), sockets))
}

/// Whether it is a socket that nobody listens on.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A socket on its core.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

impl Listener {
    /// Hands a socket to the runtime of this thread.
    ///
    /// # Errors
    /// When the system has no room for it.
    pub fn new(bound: Bound) -> io::Result<Listener> {
        Ok(match bound {
            Bound::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket) => Listener::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// The next connection.
    ///
    /// # Errors
    /// Out of descriptors, mostly.
    pub async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                let _ = socket.set_nodelay(true);
                Socket::Tcp(socket)
            }
            Listener::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        })
    }
}

/// Accepts until the core stops; a connection above the limit is closed at once.
pub async fn accept(thread: Rc<Thread>, listener: Listener, tls: Option<TlsAcceptor>) {
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
            Ok(socket) => {
                let core = thread.core().filter(|core| thread.open.connections.get() < core.connections_max);
                let Some(core) = core else {
                    refused.add();
                    continue;
                };
                let (open, chance) = (Open::new(&thread), thread.sales.chance());
                let tls = tls.clone();
                tokio::task::spawn_local(async move {
                    let _open = open;
                    connection::serve(core, socket, tls, chance).await;
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
struct Open(Rc<Thread>);

impl Open {
    fn new(thread: &Rc<Thread>) -> Open {
        thread.open.connections.set(thread.open.connections.get() + 1);
        Open(thread.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.connections.set(self.0.open.connections.get().saturating_sub(1));
        if self.0.draining.get() {
            self.0.drain.notify_waiters();
        }
    }
}
