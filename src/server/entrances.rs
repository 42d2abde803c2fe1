//! `server.listen` and `[server.tls]` → sockets: bound here, or passed by a service manager or by the process before this.

use std::io;
use std::sync::Arc;

use listenfd::ListenFd;
use rustls::ServerConfig;

use super::StartError;
use crate::config::{Config, Listen, ServerTls};
use crate::proxy::listener::{self, At, Bound, Endpoint, Entrance};
use crate::tls::server::{Certificates, Pair};

/// Opens every place that a configuration names: those for clients, and those of the admin listener.
///
/// # Errors
/// [`StartError::Listen`]: the first that can't be had.
pub(super) fn open(
    config: &Config,
    tls: Option<&Arc<ServerConfig>>,
) -> Result<(Vec<Entrance>, Vec<Entrance>), StartError> {
    let mut places = Places { passed: Passed::take(), entrances: Vec::new() };
    let cores = config.server.cores.max(1);
    places.open("http", &config.server.listen, cores, None)?;
    if let (Some(section), Some(tls)) = (&config.server.tls, tls) {
        places.open("https", &section.listen, cores, Some(tls))?;
    }
    let clients = std::mem::take(&mut places.entrances);
    places.open("admin", &config.admin.listen, 1, None)?;
    let left = places.passed.left();
    if left > 0 {
        tracing::warn!(sockets = left, "sockets were passed that no `listen` names; they are closed");
    }
    Ok((clients, places.entrances))
}

struct Places {
    passed: Passed,
    entrances: Vec<Entrance>,
}

impl Places {
    fn open(
        &mut self,
        role: &str,
        places: &[Listen],
        cores: usize,
        tls: Option<&Arc<ServerConfig>>,
    ) -> Result<(), StartError> {
        for (index, listen) in places.iter().enumerate() {
            // Under this name a port that the system chose is passed on.
            let name = format!("{role}-{index}");
            let found = found(listen, &name, cores, &mut self.passed);
            let found = found.map_err(|error| StartError::Listen { listen: listen.clone(), error })?;
            for (at, socket_of) in by_place(found) {
                let spread = spread(&socket_of, cores);
                let sockets = spread.map_err(|error| StartError::Listen { listen: listen.clone(), error })?;
                let endpoint = Endpoint { https: tls.is_some(), at };
                self.entrances.push(Entrance { endpoint, sockets, tls: tls.cloned(), originals: socket_of });
            }
        }
        Ok(())
    }
}

/// The files of a section's certificates.
pub(super) fn pairs(tls: &ServerTls) -> Vec<Pair> {
    let pair = |c: &crate::config::Certificate| Pair { cert_file: c.cert_file.clone(), key_file: c.key_file.clone() };
    tls.certificates.iter().map(pair).collect()
}

/// Reads the certificates of a configuration that has some, and makes the settings of its listeners.
///
/// # Errors
/// [`StartError::Certificate`]
pub(super) fn certificates(config: &Config) -> Result<Option<Secured>, StartError> {
    let Some(tls) = &config.server.tls else { return Ok(None) };
    let certificates = Certificates::read(pairs(tls))?;
    let settings = certificates.config().map_err(|reason| io::Error::other(format!("TLS: {reason}")))?;
    Ok(Some((certificates, settings)))
}

/// Certificates, and the settings of the listeners that show them.
type Secured = (Arc<Certificates>, Arc<ServerConfig>);

/// A socket, where it is, and the name under which it was passed or is to be.
type Found = (At, String, Bound);

fn found(listen: &Listen, name: &str, cores: usize, passed: &mut Passed) -> io::Result<Vec<Found>> {
    let ours = |(at, sockets): (At, Vec<Bound>)| {
        sockets.into_iter().map(|socket| (at.clone(), name.to_owned(), socket)).collect()
    };
    match listen {
        Listen::Tcp(address) if address.port() == 0 => {
            let there =
                |given: &str, at: &At| given == name && matches!(at, At::Tcp(other) if other.ip() == address.ip());
            match passed.where_is(there) {
                found if found.is_empty() => listener::bind(*address, cores).map(ours),
                found => Ok(found),
            }
        }
        Listen::Tcp(address) => match passed.where_is(|_, at| *at == At::Tcp(*address)) {
            found if found.is_empty() => listener::bind(*address, cores).map(ours),
            found => Ok(found),
        },
        Listen::Unix(path) => match passed.where_is(|_, at| matches!(at, At::Unix(other, _) if other == path)) {
            found if found.is_empty() => listener::bind_unix(path, cores).map(ours),
            // Its file is this process's now.
            found => Ok(found.into_iter().map(|(at, name, socket)| (at.owned(), name, socket)).collect()),
        },
        Listen::Passed(wanted) => {
            let found = passed.where_is(|given, _| wanted.as_deref().is_none_or(|wanted| given == wanted));
            if found.is_empty() {
                let reason = "the service manager passed no such socket (LISTEN_FDS, LISTEN_FDNAMES)";
                return Err(io::Error::new(io::ErrorKind::NotFound, reason));
            }
            Ok(found)
        }
    }
}

/// Sockets of one address belong together.
fn by_place(found: Vec<Found>) -> Vec<(At, Vec<(String, Bound)>)> {
    let mut places: Vec<(At, Vec<(String, Bound)>)> = Vec::new();
    for (at, name, socket) in found {
        match places.iter_mut().find(|(other, _)| *other == at) {
            Some((_, sockets)) => sockets.push((name, socket)),
            None => places.push((at, vec![(name, socket)])),
        }
    }
    places
}

/// Each core accepts from one of them at least, and each has a core that does.
fn spread(sockets: &[(String, Bound)], cores: usize) -> io::Result<Vec<Vec<Bound>>> {
    let mut by_core: Vec<Vec<Bound>> = (0..cores).map(|_| Vec::new()).collect();
    for index in 0..cores.max(sockets.len()) {
        by_core[index % cores].push(sockets[index % sockets.len()].1.again()?);
    }
    Ok(by_core)
}

/// Sockets that this process was started with (`sd_listen_fds(3)`).
struct Passed(Vec<(String, Option<(At, Bound)>)>);

impl Passed {
    /// Takes them; a second call finds none.
    fn take() -> Passed {
        // Before the library takes the variables away.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let count = passed.len();
        let one = |index| {
            let name = names.next().unwrap_or_default().to_owned();
            let tcp = passed.take_tcp_listener(index).ok().flatten().map(Bound::Tcp);
            let socket = tcp.or_else(|| passed.take_unix_listener(index).ok().flatten().map(Bound::Unix));
            (name, socket.and_then(|socket| Some((socket.at()?, socket))))
        };
        Passed((0..count).map(one).collect())
    }

    fn where_is(&mut self, wanted: impl Fn(&str, &At) -> bool) -> Vec<Found> {
        let fits = |(name, socket): &mut (String, Option<(At, Bound)>)| {
            let (at, socket) = socket.take_if(|(at, _)| wanted(name, at))?;
            Some((at, name.clone(), socket))
        };
        self.0.iter_mut().filter_map(fits).collect()
    }

    fn left(&self) -> usize {
        self.0.iter().filter(|(_, socket)| socket.is_some()).count()
    }
}
