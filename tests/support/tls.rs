//! Certificates of one's own, and a client that believes in them.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::{Answer, PATIENCE, read_answer};

/// A certificate for some names, signed by itself.
pub struct Made {
    pub cert: String,
    pub key: String,
}

impl Made {
    pub fn new(names: &[&str]) -> Made {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Made { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// As `NAME.crt` and `NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.crt")), &self.cert).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), &self.key).unwrap();
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

/// Settings of a client that trusts these.
pub fn trusting(made: &[&Made], alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    made.iter().for_each(|made| roots.add(made.der()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A connection over which requests are sent one after the other.
pub struct Secure {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Secure {
    /// # Errors
    /// What the handshake failed with.
    pub fn open(addr: SocketAddr, name: &str, config: Arc<ClientConfig>) -> std::io::Result<Secure> {
        let socket = TcpStream::connect(addr)?;
        Secure::over(socket, name, config)
    }

    /// # Errors
    /// What the handshake failed with.
    pub fn over(mut socket: TcpStream, name: &str, config: Arc<ClientConfig>) -> std::io::Result<Secure> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(config, name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Secure { reader: BufReader::new(StreamOwned::new(connection, socket)) })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Option<Answer> {
        let head = bytes.as_ref().starts_with(b"HEAD ");
        self.reader.get_mut().write_all(bytes.as_ref()).ok()?;
        self.reader.get_mut().flush().ok()?;
        read_answer(&mut self.reader, head)
    }

    pub fn get(&mut self, host: &str, path: &str) -> Option<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// Sends text and reads as much back.
    pub fn through(&mut self, text: &str) -> String {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
        let mut back = vec![0; text.len()];
        self.reader.read_exact(&mut back).unwrap();
        String::from_utf8(back).unwrap()
    }

    /// What the other side showed.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.reader.get_ref().conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    pub fn protocol(&self) -> Option<&[u8]> {
        self.reader.get_ref().conn.alpn_protocol()
    }
}
