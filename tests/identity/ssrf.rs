//! The gateway connects only where its operator said.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tollgate::{identity::resolve::Addresses, wire::agent_url::AgentUrl};

use super::{
    refused,
    support::{Gate, Names, Site, key, names, no_names, said, thumbprint},
};

fn agent(text: &str) -> AgentUrl {
    AgentUrl::parse(text).unwrap()
}

const NOT_PUBLIC: &str = "not at a public address";
const NOT_READ: &str = "does not read the key directory of this agent";

#[tokio::test]
async fn addresses_are_checked_as_names_are() {
    let gate = Gate::with("allow = [\"any\"]", |_| {}, |service| service.resolving(no_names()));
    for host in [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
    ] {
        refused(&said(gate.look(&agent(&format!("https://{host}")), "k").await), NOT_PUBLIC);
    }
}

#[tokio::test]
async fn names_of_private_addresses_are_refused() {
    for (allow, host) in [("any", "signer.example"), ("https://*.x.example", "a.x.example")] {
        for others in [&[][..], &["8.8.8.8:443"], &["8.8.8.8:443", "[2606:4700::1111]:443"]] {
            let canary = Site::of(&[key(1)]).await;
            let mut found: Vec<SocketAddr> = others.iter().map(|address| address.parse().unwrap()).collect();
            found.push(canary.address);
            let identity = format!("allow = [\"{allow}\"]");
            let gate = Gate::with(&identity, |_| {}, |service| service.resolving(names(found)));
            refused(&said(gate.look(&agent(&format!("https://{host}")), "k").await), NOT_PUBLIC);
            canary.untouched().await;
        }
        for address in ["10.0.0.1:443", "169.254.169.254:443", "0.0.0.0:443", "[::1]:443", "[::ffff:127.0.0.1]:443"] {
            let found = names(vec![address.parse().unwrap()]);
            let gate = Gate::with(&format!("allow = [\"{allow}\"]"), |_| {}, |service| service.resolving(found));
            refused(&said(gate.look(&agent(&format!("https://{host}")), "k").await), NOT_PUBLIC);
        }
    }
}

#[tokio::test]
async fn a_name_without_address_is_no_agent() {
    let gate = Gate::with("allow = [\"any\"]", |_| {}, |service| service.resolving(names(Vec::new())));
    refused(&said(gate.look(&agent("https://signer.example"), "k").await), "no connection");
}

/// The resolver answers with the listed agent's own address once, and with the canary's from then on.
#[tokio::test]
async fn a_name_is_resolved_once_and_the_checked_address_dialled() {
    let (site, canary) = (Site::of(&[key(1)]).await, Site::of(&[key(1)]).await);
    let (first, then) = (site.address, canary.address);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let rebinding = Names(move |_: &str, _| -> Addresses {
        let address = if count.fetch_add(1, Ordering::SeqCst) == 0 { first } else { then };
        Box::pin(async move { Ok(vec![address]) })
    });
    let gate =
        Gate::with("allow = [\"http://rebind.example\"]", |_| {}, |service| service.resolving(Arc::new(rebinding)));
    let found = said(gate.look(&agent("http://rebind.example"), &thumbprint(&key(1))).await);
    assert_eq!(found, thumbprint(&key(1)));
    assert_eq!((asked.load(Ordering::SeqCst), site.hits()), (1, 1));
    canary.untouched().await;
}

#[tokio::test]
async fn patterns_admit_neither_plain_http_nor_other_ports() {
    let canary = Site::of(&[key(1)]).await;
    let port = canary.address.port();
    let found = names(vec![canary.address]);
    let identity = format!("allow = [\"any\", \"https://*.x.example\", \"http://127.0.0.1:{}\"]", port ^ 1);
    let gate = Gate::with(&identity, |_| {}, |service| service.resolving(found));
    for text in [
        format!("http://127.0.0.1:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("https://localhost:{port}"),
        format!("http://a.x.example:{port}"),
        format!("https://a.x.example:{port}"),
        "http://a.x.example".to_owned(),
    ] {
        let said = said(gate.look(&agent(&text), "k").await);
        assert!(said.contains(NOT_READ), "{text}: {said}");
    }
    canary.untouched().await;
    assert_eq!(gate.keys.read(|table| table.len()), 0, "agents that are not admitted take no memory");
}

#[tokio::test]
async fn without_admission_nothing_is_looked_up() {
    let gate = Gate::with("", |_| {}, |service| service.resolving(no_names()));
    let said = said(gate.look(&agent("https://signer.example.com"), "k").await);
    assert!(said.contains(NOT_READ), "{said}");
}
