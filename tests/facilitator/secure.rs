//! TLS: whom the roots do not vouch for gets nothing.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tollgate::facilitator::{Endpoint, Facilitators};
use tollgate::tls;

use super::support::facilitator::Facilitator;
use super::{body, kind, patient, said};

/// Speaks TLS as `name` before a server without; its address and certificate.
async fn secured(plain: SocketAddr, name: &str) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], private)
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut secure) = acceptor.accept(socket).await else { return };
                let mut inner = TcpStream::connect(plain).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut secure, &mut inner).await;
            });
        }
    });
    (address, made.cert.pem())
}

#[tokio::test]
async fn a_facilitator_is_verified_before_it_is_asked() {
    let double = Facilitator::start();
    let (right, right_pem) = secured(double.addr, "localhost").await;
    let (other_name, other_pem) = secured(double.addr, "other.example").await;
    let (untrusted, _) = secured(double.addr, "localhost").await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, right_pem + &other_pem).unwrap();
    let ours = tls::client::http(Some(&ca_file)).unwrap();
    let endpoint = |address: SocketAddr, tls| {
        Endpoint::http("secured", &format!("https://localhost:{}/base", address.port()), None, tls).unwrap()
    };
    let endpoints = vec![
        endpoint(right, Some(ours.clone())),
        endpoint(right, None),
        endpoint(other_name, Some(ours.clone())),
        endpoint(untrusted, Some(ours)),
    ];
    let (facilitators, service) = Facilitators::new(endpoints, patient());
    tokio::spawn(service.run());
    assert!(facilitators.verify(&kind(), body(), Some(0)).await.is_ok());
    assert!(said(&facilitators.settle(0, body()).await).starts_with("success"));
    for i in 1..4 {
        assert!(facilitators.verify(&kind(), body(), Some(i)).await.is_err());
        let outcome = said(&facilitators.settle(i, body()).await);
        assert!(outcome.starts_with("not sent no connection: ") && outcome.contains("certificate"), "{outcome}");
    }
    assert_eq!((double.count("/verify"), double.count("/settle")), (1, 1));
}
