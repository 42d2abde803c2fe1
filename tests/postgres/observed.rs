//! What several gateways have observed adds up.

use serde_json::Value;

use crate::replicas::{make_secret, toml};
use crate::support::{Agent, Gateway, Origin, Postgres, client::get, exchange, gateway::tollgate};

fn lines(gateway: &Gateway, args: &[&str]) -> Vec<Value> {
    let (code, out, err) = tollgate(gateway.dir.path(), args);
    assert_eq!(code, 0, "{out}{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_two_gateways_observe_adds_up_and_a_third_starts_from_it() {
    let Some(server) = Postgres::start("observed::two_gateways") else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    make_secret(&server);
    let toml = toml(&server, &origin, &agent)
        .replace("price = \"0.01 USD\"\n", "price = \"0.01 USD\"\naccept = [\"crawl\"]\nmode = \"observe\"\n");
    let toml = toml + "[[routes]]\nname = \"sold\"\npath = \"/sold/*\"\nprice = \"0.01 USD\"\n";
    let gateways = [(); 2].map(|()| Gateway::start(&toml));
    for gateway in &gateways {
        until(|| get(gateway.addr, "/sold/a").status == 402);
    }
    for (gateway, times) in gateways.iter().zip([1, 2]) {
        for _ in 0..times {
            assert_eq!(get(gateway.addr, "/paid/a").status, 200);
            let bid = agent.signed_in("crawler-exact-price", gateway.addr, "/paid/a", "USD 0.01");
            assert_eq!(exchange(gateway.addr, bid.head()).status, 200);
        }
        // A sale of the same batch or another.
        assert_eq!(agent.buy(gateway.addr, "/sold/a").status, 200);
    }
    let [one, two] = gateways;
    let (_, _dir) = one.stop();
    let by_route = ["ledger", "observed", "-c", "tollgate.toml", "--by", "route", "--json"];
    // The one that ended has written all it had; what the other has follows within seconds.
    until(|| lines(&two, &by_route)[0]["requests"] == 6);
    let row = &lines(&two, &by_route)[0];
    assert_eq!((&row["asked"], &row["paid"]), (&3.into(), &3.into()), "{row}");
    assert_eq!((&row["asked_for"], &row["would_earn"]), (&"0.03".into(), &"0.03".into()), "{row}");
    let three = Gateway::start(&toml);
    until(|| get(three.addr, "/sold/a").status == 402);
    assert_eq!(get(three.addr, "/paid/a").status, 200);
    until(|| lines(&two, &by_route)[0]["requests"] == 7);
    let (code, out, err) = tollgate(two.dir.path(), &["ledger", "audit", "-c", "tollgate.toml"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(lines(&two, &["ledger", "list", "-c", "tollgate.toml", "--json"]).len(), 2);
}

fn until(what: impl Fn() -> bool) {
    let since = std::time::Instant::now();
    while !what() {
        assert!(since.elapsed().as_secs() < 60, "it did not come about");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}
