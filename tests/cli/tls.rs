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
    serve(dir, rcgen::CertificateParams::new(names).unwrap())
}

/// The same with a certificate that is made so.
fn serve(dir: &Path, made: rcgen::CertificateParams) -> SocketAddr {
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let cert = made.self_signed(&signing_key).unwrap();
    std::fs::write(dir.join("ca.pem"), cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
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

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_plain_words() {
    let dir = tempfile::tempdir().unwrap();
    let made = || rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let said = |addr: SocketAddr, roots: &[&str]| {
        let url = format!("https://localhost:{}/", addr.port());
        let (code, out, err) = tollgate(dir.path(), &[&["pay"], roots, &[&url]].concat());
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        let reason =
            err.trim_end().strip_prefix(&format!("error: https://localhost:{} can't be reached: ", addr.port()));
        reason.unwrap_or_else(|| panic!("{err}")).to_owned()
    };
    let known = &["--ca-file", "ca.pem"][..];
    let mut authority = made();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let addr = serve(dir.path(), authority);
    assert_eq!(said(addr, known), "its certificate is an authority's own (a CA), which can't stand for a server");
    assert_eq!(said(serve(dir.path(), made()), &[]), "its certificate is of no authority that is trusted here");
    let mut old = made();
    (old.not_before, old.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    assert_eq!(said(serve(dir.path(), old), known), "its certificate has expired");
    let mut early = made();
    (early.not_before, early.not_after) = (rcgen::date_time_ymd(4000, 1, 1), rcgen::date_time_ymd(4001, 1, 1));
    assert_eq!(said(serve(dir.path(), early), known), "its certificate is not valid yet");
    assert_eq!(said(start(dir.path(), &["other.example"]), known), "its certificate is for another name");
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut socket = plain.accept().unwrap().0;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        // Open until the client has seen enough.
        let _ = std::io::copy(&mut socket, &mut std::io::sink());
    });
    assert_eq!(said(addr, known), "it does not speak TLS there");
}
