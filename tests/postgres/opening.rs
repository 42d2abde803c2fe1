//! What a gateway says of a server that it can't use, and whether it starts.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use crate::support::{Agent, Gateway, Origin, Postgres, client::get, gateway::tollgate, site_toml};

fn toml(url: &str, more: &str) -> String {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = format!("[ledger]\nurl = \"{url}\"\n{more}\n[offers]\nsecret_file = \"secret.json\"\n");
    site_toml(&origin, &agent, &more)
}

/// Exit code and what the end of the start says.
fn refused(url: &str, more: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    tollgate(dir.path(), &["keygen", "--secret", "-o", "secret.json"]);
    std::fs::write(dir.path().join("tollgate.toml"), toml(url, more)).unwrap();
    let (code, _, err) = tollgate(dir.path(), &["run", "-c", "tollgate.toml"]);
    (code, err)
}

#[test]
fn a_server_that_refuses_or_is_unfit_ends_the_start_with_2() {
    let Some(mut server) = Postgres::start("postgres::a_server_that_refuses") else { return };
    let url = server.url();
    let says = |url: &str, more: &str, what: &[&str]| {
        let (code, err) = refused(url, more);
        assert_eq!(code, 2, "{err}");
        assert!(what.iter().all(|what| err.contains(what)), "{what:?} in {err}");
        assert!(!err.contains("s3cret"), "{err}");
    };
    let database = |name: &str| format!("{}/{name}", url.strip_suffix("/books").unwrap());
    says(&database("nowhere"), "", &["database \"nowhere\" does not exist", "check user, password"]);
    says(&url.replace("//books", "//nobody"), "", &["role \"nobody\" does not exist"]);
    // Another zone, a newer layout, a database of another program.
    let gateway = Gateway::start_in(secret_dir(), &toml(&url, ""));
    // Its secret was made before it, as always here: nothing was lost.
    assert!(!gateway.log().contains("new ledger"), "{}", gateway.log());
    gateway.stop();
    says(&url, "zone = \"Europe/Berlin\"", &["keeps its days in UTC", "Europe/Berlin"]);
    server.sql("UPDATE book SET version = 99");
    says(&url, "", &["has layout 99", "run the newer version"]);
    server.sql("UPDATE book SET version = 3");
    server.sql("CREATE DATABASE other");
    let other = server.psql().args(["-d", "other", "-c", "CREATE TABLE theirs (a int)"]).status().unwrap();
    assert!(other.success());
    says(&database("other"), "", &["is not a ledger", "another program", "1 tables"]);
    // A wrong password, and none.
    server.sql("ALTER USER books PASSWORD 'right'");
    let hba = server.data().join("pg_hba.conf");
    std::fs::write(&hba, "local all all scram-sha-256\nlocal postgres postgres trust\n").unwrap();
    let with = |password: &str| url.replace("//books@", &format!("//books{password}@"));
    server.crash();
    server.resume_without_waiting();
    until_it_listens(&server);
    says(&with(":s3cret"), "", &["password authentication failed"]);
    says(&url, "", &["password missing"]);
    let dir = secret_dir();
    std::fs::write(dir.path().join("password"), "right\n").unwrap();
    let gateway = Gateway::start_in(dir, &toml(&url, "password_file = \"password\""));
    assert_eq!(get(gateway.addr, "/paid/a").status, 402);
    assert!(gateway.stop().0.success());
    // What is not durable.
    std::fs::write(&hba, "local all all trust\n").unwrap();
    server.crash();
    server.settings_become(&["fsync=off"]);
    server.resume_service();
    says(&url, "", &["fsync is off"]);
    server.crash();
    server.settings_become(&["synchronous_commit=off"]);
    server.resume_service();
    says(&url, "", &["synchronous_commit is off"]);
    // One secret for all: none is made.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tollgate.toml"), toml(&url, "")).unwrap();
    let (code, _, err) = tollgate(dir.path(), &["run", "-c", "tollgate.toml"]);
    assert!(code == 2 && err.contains("keygen --secret"), "{code} {err}");
    assert!(!dir.path().join("secret.json").exists());
}

fn secret_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tollgate(dir.path(), &["keygen", "--secret", "-o", "secret.json"]);
    dir
}

fn until_it_listens(server: &Postgres) {
    let until = Instant::now() + Duration::from_secs(60);
    // `pg_isready` wants no password.
    while !server.ready() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_is_not_there_yet_does_not_end_the_start() {
    let Some(mut server) = Postgres::start("postgres::a_server_that_is_not_there") else { return };
    server.crash();
    let gateway = Gateway::start_in(secret_dir(), &toml(&server.url(), ""));
    assert_eq!(get(gateway.addr, "/free").status, 200);
    let until = Instant::now() + Duration::from_secs(30);
    while get(gateway.addr, "/paid/a").status != 503 {
        assert!(Instant::now() < until);
    }
    server.resume_service();
    while get(gateway.addr, "/paid/a").status != 402 {
        assert!(Instant::now() < until, "{}", gateway.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gateway.log().contains("is the server up"), "{}", gateway.log());
    assert!(gateway.stop().0.success());
}

#[test]
fn over_tls_the_certificate_is_verified() {
    let Some(mut server) = Postgres::start("postgres::over_tls") else { return };
    server.crash();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (server.data().join("server.crt"), server.data().join("server.key"));
    server.write_as_its_own(&cert, &made.cert.pem());
    server.write_as_its_own(&key, &made.signing_key.serialize_pem());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::write(server.data().join("pg_hba.conf"), "local all all trust\nhostssl all all 127.0.0.1/32 trust\n")
        .unwrap();
    let port_setting = format!("port={port}");
    server.settings_become(&["ssl=on", "listen_addresses=127.0.0.1", &port_setting]);
    server.resume_without_waiting();
    let url = format!("postgres://books@localhost:{port}/books?sslmode=require");
    let dir = secret_dir();
    std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();
    let gateway = Gateway::start_in(dir, &toml(&url, "ca_file = \"ca.pem\""));
    let until = Instant::now() + Duration::from_secs(30);
    while get(gateway.addr, "/paid/a").status != 402 {
        assert!(Instant::now() < until, "{}", gateway.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gateway.stop().0.success());
    // From roots that do not vouch for it.
    let gateway = Gateway::start_in(secret_dir(), &toml(&url, ""));
    assert_eq!(get(gateway.addr, "/paid/a").status, 503);
    assert!(gateway.log().contains("UnknownIssuer") || gateway.log().contains("certificate"), "{}", gateway.log());
    assert!(gateway.stop().0.success());
}
