//! `tollgate pay` over TLS.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::gateway::tollgate;
use crate::support::origin::read_request;

/// A server with a certificate of its own for `names`, whose PEM goes into `ca.pem`.
fn start(dir: &Path, names: &[&str]) -> SocketAddr {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("ca.pem"), made.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(connection, socket.unwrap()));
            if let Some(seen) = read_request(&mut stream) {
                let host = seen.header("host").unwrap_or_default();
                let _ = write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{host}", host.len());
            }
        }
    });
    addr
}

#[test]
fn a_certificate_is_checked_against_the_roots_and_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let addr = start(dir.path(), &["localhost", "127.0.0.1"]);
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/", addr.port());
        let (code, out, err) = tollgate(dir.path(), &["pay", "--ca-file", "ca.pem", &url]);
        assert_eq!((code, out), (0, format!("{host}:{}", addr.port())), "{err}");
        // The built-in roots do not know it.
        let (code, out, err) = tollgate(dir.path(), &["pay", &url]);
        assert!(code == 3 && out.is_empty() && err.contains("certificate"), "{err}");
    }
    let other = start(dir.path(), &["other.example"]);
    let url = format!("https://localhost:{}/", other.port());
    let (code, _, err) = tollgate(dir.path(), &["pay", "--ca-file", "ca.pem", &url]);
    assert!(code == 3 && err.contains("certificate"), "{err}");
}
