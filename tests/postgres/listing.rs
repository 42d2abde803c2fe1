//! Listings of what several gateways posted.

use tollgate::{
    clock::Clock,
    ledger::{
        correction::{By, Order, What},
        entry::Kind,
        ledger_store::LedgerStore,
        location::Location,
        read::{Filter, LedgerReader, Listed, State},
        store::{ClaimRequest, Delivery, Outcome, Outcomes, Receipt, Store},
        view::Question,
    },
};

use crate::{ledger::*, store::open, support::Postgres};

fn list(server: &Postgres, filter: Filter) -> Vec<Listed> {
    LedgerReader::open(Location::parse(&server.url(), None).unwrap()).unwrap().list(&filter).unwrap()
}

fn buy(store: &LedgerStore, name: &str, now_ms: u64) -> Receipt {
    let limit = units(i64::MAX / 4);
    let claim = wait(store.claim(ClaimRequest { paid_at_ms: now_ms, limit, ..request(name, 10) })).unwrap();
    wait(store.capture(claim, posting(units(10)))).unwrap()
}

#[test]
fn what_several_gateways_posted_is_listed_by_time() {
    let Some(server) = Postgres::start("postgres::what_several_gateways_posted") else { return };
    let clock = Clock::manual(NOON);
    let stores = [open(&server, &clock), open(&server, &clock), open(&server, &clock)];
    // More than a page of one, less of the others; in no order of theirs.
    let mut expected = Vec::new();
    for turn in 0..400_u64 {
        clock.advance(1);
        let which = if turn % 10 < 7 { 0 } else { turn as usize % 3 };
        expected.push(buy(&stores[which], &turn.to_string(), clock.now_ms()));
    }
    expected.reverse();
    let of = |slot: i64| expected.iter().filter(|receipt| receipt.n >> 48 == slot).count();
    assert!(of(1) > 256 && of(2) > 30 && of(3) > 30, "{} {} {}", of(1), of(2), of(3));
    let all = |limit| Filter { limit, ..Filter::default() };
    let numbers = |rows: &[Listed]| rows.iter().map(|row| row.n).collect::<Vec<_>>();
    let sold: Vec<i64> = expected.iter().map(|receipt| receipt.n).collect();
    let rows = list(&server, all(usize::MAX));
    assert_eq!(numbers(&rows), sold);
    assert!(rows.windows(2).all(|two| two[0].at_ms >= two[1].at_ms));
    assert_eq!(numbers(&list(&server, all(7))), sold[..7]);
    let since = Filter { since_ms: Some(expected[30].at_ms), ..all(usize::MAX) };
    assert_eq!(numbers(&list(&server, since)), sold[..31]);
    stores.iter().for_each(|store| store.close().unwrap());
}

#[test]
fn what_became_of_a_capture_is_listed_whoever_posted_it_and_by_whichever_clock() {
    let Some(server) = Postgres::start("postgres::what_became_of_a_capture") else { return };
    let (clock, behind) = (Clock::manual(NOON), Clock::manual(NOON - 20_000));
    let (a, b) = (open(&server, &behind), open(&server, &clock));
    let sold: Vec<Receipt> = (0..4).map(|i| buy(&b, &i.to_string(), NOON)).collect();
    b.outcome(Outcome { n: sold[0].n, delivery: Delivery::Complete, void: false, ms: 1, bytes: 1 });
    b.close().unwrap();
    let order = |n, what| vec![Order { n, what, reason: "why".to_owned(), by: By::Operator }];
    let void = wait(a.correct(order(sold[1].n, What::Void { unproven_since: None }))).unwrap().remove(0).unwrap();
    wait(a.correct(order(sold[2].n, What::Dispute))).unwrap().remove(0).unwrap();
    a.close().unwrap();
    let rows = list(&server, Filter { limit: 100, ..Filter::default() });
    let shown: Vec<_> = rows.iter().map(|row| (row.n, row.kind, row.fate.map(|fate| fate.state()))).collect();
    let capture = |i: usize, state| (sold[i].n, Kind::Capture, Some(state));
    // Posted later, by a clock that is behind: both stand below what they are about.
    assert_eq!(
        shown,
        [
            capture(3, State::Unproven),
            capture(2, State::Unproven),
            capture(1, State::Voided),
            capture(0, State::Delivered),
            (void.n + 1, Kind::Dispute, None),
            (void.n, Kind::Void, None),
        ]
    );
    let disputed = list(&server, Filter { limit: 9, state: Some(State::Disputed), ..Filter::default() });
    assert_eq!(disputed.iter().map(|row| row.n).collect::<Vec<_>>(), [sold[2].n]);
}

#[test]
fn pages_for_an_agent_have_what_several_gateways_posted_once() {
    let Some(server) = Postgres::start("postgres::pages_for_an_agent") else { return };
    let clock = Clock::manual(NOON);
    let stores = [open(&server, &clock), open(&server, &clock), open(&server, &clock)];
    let mut expected = Vec::new();
    for turn in 0..60_u64 {
        clock.advance(1);
        let which = if turn % 10 < 7 { 0 } else { turn as usize % 3 };
        expected.push(buy(&stores[which], &turn.to_string(), clock.now_ms()).n);
    }
    expected.reverse();
    let reader = LedgerReader::open(Location::parse(&server.url(), None).unwrap()).unwrap();
    let account = request("", 0).account.to_string();
    for most in [1, 2, 3, 7, 59, 100] {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let (account, agent) = (account.clone(), "https://signer.example.com".to_owned());
            let page = reader.view(&Question { account, agent, periods: Vec::new(), before, most }).unwrap();
            found.extend(page.entries.iter().map(|row| row.n));
            assert!(page.entries.len() <= most && found.len() <= expected.len(), "{most}");
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{most}");
    }
    stores.iter().for_each(|store| store.close().unwrap());
}
