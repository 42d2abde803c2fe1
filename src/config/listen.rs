//! Where clients come in, and who in front of the gateway is believed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

/// A place to accept connections at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `"127.0.0.1:8402"`, `"[::]:443"`; port 0 for any free one.
    Tcp(SocketAddr),
    /// `"unix:/run/tollgate/http.sock"`: a socket in the file system, which any user of the machine may connect to who
    /// can reach its directory.
    Unix(PathBuf),
    /// `"systemd"`, `"systemd:NAME"`: the sockets that the service manager passed (`LISTEN_FDS`), all or those of a
    /// `FileDescriptorName`.
    Passed(Option<String>),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
            Listen::Passed(None) => f.write_str("systemd"),
            Listen::Passed(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

/// `[server.tls]`: HTTPS beside plain HTTP. HTTP/2 and HTTP/1.1 by ALPN, TLS 1.2 and 1.3, no client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// `listen`: as `server.listen`.
    pub listen: Vec<Listen>,
    /// `[[server.tls.certificates]]`: chosen by the name that a client asks for; the first one where none fits.
    pub certificates: Vec<Certificate>,
}

/// `[[server.tls.certificates]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// `cert_file`: PEM, the server's certificate first, then those that lead to a root.
    pub cert_file: PathBuf,
    /// `key_file`: PEM, its private key (PKCS#8, PKCS#1 or SEC1).
    pub key_file: PathBuf,
}

/// Whose word about a client is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// `trusted_proxies`: addresses and networks, `10.0.0.0/8`.
    pub nets: Vec<IpNet>,
    /// `unix` in `trusted_proxies`: whoever connects through a Unix socket.
    pub unix: bool,
    /// `forwarded_fields` (`"x-forwarded"`): what such a proxy sets; the others are ignored.
    pub fields: ForwardedFields,
    /// `proxy_protocol` (false): their connections begin with a header of the PROXY protocol, version 1 or 2.
    pub proxy_protocol: bool,
}

/// The fields that trusted proxies set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedFields {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Trust {
    /// Whom it names, as the configuration does: `10.0.0.0/8`, `unix`.
    pub fn named(&self) -> Vec<String> {
        let nets = self.nets.iter().map(ToString::to_string);
        nets.chain(self.unix.then(|| "unix".to_owned())).collect()
    }

    /// Whether the peer at an address is believed; none stands for a Unix socket.
    pub fn includes(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(ip) => self.nets.iter().any(|net| net.contains(&ip)),
            None => self.unix,
        }
    }
}
