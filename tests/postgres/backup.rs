//! A database that is copied with `pg_dump` while gateways sell, put back with `pg_restore`, and told of it.

use std::process::Command;

use crate::support::{
    Agent, Gateway, Origin, Postgres,
    client::{exchange, get},
    gateway::tollgate,
    site_toml,
};

fn run(server: &Postgres, name: &str, args: &[&str]) {
    let out = Command::new(server.program(name))
        .arg("-h")
        .arg(server.folder())
        .args(["-U", "books"])
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
}

fn until_open(gateway: &Gateway) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while get(gateway.addr, "/paid/open").status != 402 {
        assert!(std::time::Instant::now() < until, "{}", gateway.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_dump_is_whole_and_what_was_sold_since_is_not_sold_again() {
    let Some(server) = Postgres::start("postgres::a_dump_is_whole") else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    assert_eq!(tollgate(server.folder(), &["keygen", "--secret", "-o", "secret.json"]).0, 0);
    let secret = server.folder().join("secret.json").display().to_string();
    let toml = |url: &str| {
        site_toml(&origin, &agent, &format!("[ledger]\nurl = \"{url}\"\n[offers]\nsecret_file = \"{secret}\"\n"))
    };
    let gateway = Gateway::start(&toml(&server.url()));
    until_open(&gateway);
    assert_eq!(agent.buy(gateway.addr, "/paid/before").status, 200);
    let dump = server.folder().join("copy.dump").display().to_string();
    run(&server, "pg_dump", &["-Fc", "-f", &dump, "books"]);
    let signed = agent.request(gateway.addr, "GET", "/paid/after");
    assert_eq!(exchange(gateway.addr, signed.head()).status, 200);
    let addr = gateway.addr.to_string();
    assert!(gateway.stop().0.success());
    // Put back twice: with and without a word about it.
    for (name, is_told) in [("untold", false), ("told", true)] {
        run(&server, "createdb", &[name]);
        run(&server, "pg_restore", &["--exit-on-error", "-d", name, &dump]);
        let url = format!("{}/{name}", server.url().strip_suffix("/books").unwrap());
        let (code, out, err) = tollgate(server.folder(), &["ledger", "audit", "--ledger", &url]);
        assert_eq!(code, 0, "{out}{err}");
        if is_told {
            let (code, out, err) = tollgate(server.folder(), &["ledger", "restored", "--ledger", &url, "--json"]);
            assert_eq!(code, 0, "{err}");
            assert!(out.contains("\"retired\":1"), "{out}");
        }
        let gateway = Gateway::start(&toml(&url).replace("127.0.0.1:0", &addr));
        until_open(&gateway);
        let again = exchange(gateway.addr, signed.head());
        assert_eq!(again.status, if is_told { 402 } else { 200 }, "{name}: {again:?}");
        assert_eq!(agent.buy(gateway.addr, "/paid/new").status, 200);
        assert!(gateway.stop().0.success());
        let (code, out, err) = tollgate(server.folder(), &["ledger", "audit", "--ledger", &url]);
        assert_eq!(code, 0, "{name}: {out}{err}");
        // Numbers that may have been given are not given again.
        assert_eq!(out.contains("writer 2: 1 entry"), is_told, "{name}: {out}");
    }
    let (code, _, err) = tollgate(server.folder(), &["ledger", "backup", "--ledger", &server.url(), "-o", "copy"]);
    assert!(code == 2 && err.contains("pg_dump"), "{code} {err}");
}
