//! An audit of books on a server: claims, writers, and what one writer posts about another's.

use tollgate::{
    clock::Clock,
    ledger::{
        audit::{AuditOptions, Finding, Place},
        correction::{By, Order, What},
        location::Location,
        read::LedgerReader,
        settling::Intent,
        store::{ClaimRequest, Posting, Store},
    },
    payment::key::PaymentKey,
    wire::amount::Units,
};

use crate::{ledger::*, store::open, support::Postgres};

fn audit(server: &Postgres) -> Option<Finding> {
    let reader = LedgerReader::open(Location::parse(&server.url(), None).unwrap()).unwrap();
    let options = AuditOptions { now_ms: Some(NOON), ..AuditOptions::default() };
    reader.audit_from(&options, |_| ()).unwrap().0.finding
}

/// A payment with an offer's id, made now.
fn offered(name: u8, amount: i64) -> ClaimRequest {
    let mut id = [name; 48];
    id[..6].copy_from_slice(&NOON.to_be_bytes()[2..]);
    ClaimRequest { key: PaymentKey::from_offer_id(&id), ..request("", amount) }
}

/// Does something to the books, says where the audit must find it, and undoes it.
#[track_caller]
fn check(server: &Postgres, table: &str, change: &str, place: impl Fn(&Place) -> bool, said: &str) {
    server.sql(&format!("CREATE TABLE kept AS TABLE {table}"));
    server.sql(change);
    let finding = audit(server).unwrap_or_else(|| panic!("not found: {change}"));
    assert!(place(&finding.place) && finding.to_string().contains(said), "{change}: {finding}");
    server.sql(&format!("DELETE FROM {table}"));
    server.sql(&format!("INSERT INTO {table} SELECT * FROM kept"));
    server.sql("DROP TABLE kept");
    assert_eq!(audit(server), None, "{change}");
}

#[test]
fn what_is_done_to_claims_and_writers_is_found() {
    let Some(server) = Postgres::start("postgres::what_is_done_to_claims") else { return };
    let clock = Clock::manual(NOON);
    let store = open(&server, &clock);
    let claim = wait(store.claim(offered(1, 10_000))).unwrap();
    wait(store.capture(claim, posting(units(10_000)))).unwrap();
    // Another one in hand, and a settlement under way.
    let held = wait(store.claim(offered(2, 500))).unwrap();
    let wallet = ClaimRequest { account: "wallets".into(), period: 0, limit: Units::MAX, ..request("token", 700) };
    let intent = Intent {
        posting: Posting { scheme: "exact", agent_key: None, key: None, ..posting(units(700)) },
        facilitator: "https://facilitator.example".into(),
        payload: b"{}".to_vec(),
        hard_until_ms: NOON + 60_000,
    };
    let claim = wait(store.claim(wallet)).unwrap();
    let settling = wait(store.intend(claim, intent)).unwrap();
    store.unknown(settling);
    drop(held);
    store.close().unwrap();
    assert_eq!(audit(&server), None);
    let claims = |change: &str, said: &str| {
        check(&server, "claims", change, |place| matches!(place, Place::Claim(_)), said);
    };
    claims("UPDATE claims SET state = 'x' WHERE state = 'c'", "its state");
    claims("UPDATE claims SET slot = 9 WHERE state = 'c'", "its writer");
    claims("UPDATE claims SET key = '\\x00' WHERE state = 'c'", "its payment");
    claims(
        "DELETE FROM claims WHERE state = 'c'",
        "the row: expected one of a payment that entry 281474976710657 captured",
    );
    claims("UPDATE claims SET state = 'f' WHERE state = 'c'", "the row: expected one of a payment that entry");
    claims("UPDATE claims SET state = 'o' WHERE state IN ('u', 's')", "the capture of what is captured");
    let intended = "UPDATE claims SET key = '\\x0207070707070707070707070707070707' WHERE state IN ('u', 's')";
    claims(intended, "the intent of what is being settled");
    claims("UPDATE claims SET state = 'r' WHERE state = 'c'", "a capture of what is claimed: expected none");
    let writers = |change: &str, said: &str| {
        check(&server, "writers", change, |place| *place == Place::Writer(1), said);
    };
    writers("UPDATE writers SET epoch = 0", "its epoch");
    writers("UPDATE writers SET at_ms = 7", "its last posting time");
    writers("UPDATE writers SET lease_until = 9000000000000", "the end of its lease");
    check(&server, "book", "UPDATE book SET zone = 'Mars'", |place| *place == Place::Book, "its zone");
    // Below the floor a payment is refused by its time, and nothing needs to know it.
    server.sql(&format!("UPDATE book SET replay_floor_ms = {}; DELETE FROM claims WHERE state = 'c'", NOON + 1));
    assert_eq!(audit(&server), None);
}

/// Numbers of two writers say nothing of time.
#[test]
fn what_a_writer_posts_about_a_later_writers_capture_is_whole() {
    let Some(server) = Postgres::start("postgres::what_a_writer_posts") else { return };
    let clock = Clock::manual(NOON);
    let (a, b) = (open(&server, &clock), open(&server, &clock));
    let claim = wait(b.claim(request("one", 10_000))).unwrap();
    let receipt = wait(b.capture(claim, posting(units(10_000)))).unwrap();
    assert_eq!(receipt.n >> 48, 2);
    b.close().unwrap();
    let order = |what| vec![Order { n: receipt.n, what, reason: "why".to_owned(), by: By::Operator }];
    let disputed = wait(a.correct(order(What::Dispute))).unwrap().remove(0).unwrap();
    assert_eq!(disputed.n >> 48, 1);
    wait(a.correct(order(What::Uphold))).unwrap().remove(0).unwrap();
    a.close().unwrap();
    assert_eq!(server.number("SELECT count(*) FROM entries WHERE kind = 2 AND n < 562949953421312"), 1);
    assert_eq!(audit(&server), None);
}
