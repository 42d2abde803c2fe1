//! `tollgate healthcheck`: asks a running gateway how it is; for images that have no other program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::output::{error, note, say};
use super::{Exit, color};
use crate::config::{self, Listen, Options};

/// For the connection and for the answer, each.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Ask the gateway of a configuration how it is, at its admin listener.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tollgate healthcheck -c /etc/tollgate/tollgate.toml\n  \
                  tollgate healthcheck --ready          also fails while priced routes are closed\n\n\
                  Exit codes: 0 well, 1 not well, 2 no [admin] listen in the configuration, 3 not reached")]
pub struct Healthcheck {
    /// The configuration that the gateway runs with.
    #[arg(short, long, value_name = "FILE", default_value = "tollgate.toml")]
    config: PathBuf,
    /// Ask /readyz instead of /healthz.
    #[arg(long)]
    ready: bool,
}

impl Healthcheck {
    pub(super) fn run(self) -> Exit {
        let config = match config::load_with(&self.config, std::env::vars(), Options::default()) {
            Ok(config) => config,
            Err(errors) => {
                note(&errors.render(color()));
                return Exit::Unusable;
            }
        };
        let Some(place) = config.admin.listen.iter().find(|place| !matches!(place, Listen::Passed(_))) else {
            error("the configuration has no address to ask: set `listen` in [admin]");
            return Exit::Unusable;
        };
        let path = if self.ready { "/readyz" } else { "/healthz" };
        match ask(place, path) {
            Ok((200, body)) => {
                say(&body);
                Exit::Done
            }
            Ok((status, body)) => {
                error(format_args!("{place}{path} answers {status}: {}", body.trim()));
                Exit::Failed
            }
            Err(failure) => {
                error(format_args!("{place} can't be asked: {failure}"));
                Exit::Unreachable
            }
        }
    }
}

fn ask(place: &Listen, path: &str) -> io::Result<(u16, String)> {
    match place {
        Listen::Unix(socket) => {
            let socket = UnixStream::connect(socket)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            exchange(socket, path)
        }
        Listen::Tcp(address) => {
            let socket = TcpStream::connect_timeout(&reachable(*address), PATIENCE)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            exchange(socket, path)
        }
        Listen::Passed(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// An address that stands for all is asked on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn exchange(mut socket: impl Read + Write, path: &str) -> io::Result<(u16, String)> {
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let no_http = || io::Error::new(io::ErrorKind::InvalidData, "what answers there speaks no HTTP");
    Ok((status.ok_or_else(no_http)?, body.to_owned()))
}
