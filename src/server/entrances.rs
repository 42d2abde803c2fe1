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
    let cores = config.server.cores.max(1);
    let mut passed = Passed::take();
    let mut open =
        |places: &[Listen], cores: usize, tls: Option<&Arc<ServerConfig>>| -> Result<Vec<Entrance>, StartError> {
            let mut entrances = Vec::new();
            for listen in places {
                let opened = at(listen, cores, &mut passed);
                let opened = opened.map_err(|error| StartError::Listen { listen: listen.clone(), error })?;
                entrances.extend(opened.into_iter().map(|(at, sockets)| Entrance {
                    endpoint: Endpoint { https: tls.is_some(), at },
                    sockets,
                    tls: tls.cloned(),
                }));
            }
            Ok(entrances)
        };
    let mut entrances = open(&config.server.listen, cores, None)?;
    if let (Some(section), Some(tls)) = (&config.server.tls, tls) {
        entrances.append(&mut open(&section.listen, cores, Some(tls))?);
    }
    let admin = open(&config.admin.listen, 1, None)?;
    if passed.left() > 0 {
        tracing::warn!(sockets = passed.left(), "sockets were passed that no `listen` names; they are closed");
    }
    Ok((entrances, admin))
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

type Opened = Vec<(At, Vec<Vec<Bound>>)>;

fn at(listen: &Listen, cores: usize, passed: &mut Passed) -> io::Result<Opened> {
    let ours = |(at, sockets): (At, Vec<Bound>)| vec![(at, sockets.into_iter().map(|socket| vec![socket]).collect())];
    match listen {
        Listen::Tcp(address) => match passed.where_is(|_, at| *at == At::Tcp(*address)) {
            found if found.is_empty() => listener::bind(*address, cores).map(ours),
            found => by_core(found, cores),
        },
        Listen::Unix(path) => match passed.where_is(|_, at| matches!(at, At::Unix(other, _) if other == path)) {
            found if found.is_empty() => listener::bind_unix(path, cores).map(ours),
            found => by_core(found, cores),
        },
        Listen::Passed(name) => {
            let found = passed.where_is(|given, _| name.as_deref().is_none_or(|name| given == name));
            if found.is_empty() {
                let reason = "the service manager passed no such socket (LISTEN_FDS, LISTEN_FDNAMES)";
                return Err(io::Error::new(io::ErrorKind::NotFound, reason));
            }
            by_core(found, cores)
        }
    }
}

/// Sockets of one address belong together; each core accepts from one of them at least, and each has a core that does.
fn by_core(found: Vec<(At, Bound)>, cores: usize) -> io::Result<Opened> {
    let mut places: Vec<(At, Vec<Bound>)> = Vec::new();
    for (at, socket) in found {
        match places.iter_mut().find(|(other, _)| *other == at) {
            Some((_, sockets)) => sockets.push(socket),
            None => places.push((at, vec![socket])),
        }
    }
    let spread = |(at, sockets): (At, Vec<Bound>)| {
        let mut cores: Vec<Vec<Bound>> = (0..cores).map(|_| Vec::new()).collect();
        for index in 0..cores.len().max(sockets.len()) {
            let at = index % cores.len();
            cores[at].push(sockets[index % sockets.len()].again()?);
        }
        Ok((at, cores))
    };
    places.into_iter().map(spread).collect()
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

    fn where_is(&mut self, wanted: impl Fn(&str, &At) -> bool) -> Vec<(At, Bound)> {
        let fits = |(name, socket): &mut (String, Option<(At, Bound)>)| socket.take_if(|(at, _)| wanted(name, at));
        self.0.iter_mut().filter_map(fits).collect()
    }

    fn left(&self) -> usize {
        self.0.iter().filter(|(_, socket)| socket.is_some()).count()
    }
}
