//! Book days are closed once, wholly or not at all, and each posting is on one statement or in an open day.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use rusqlite::ffi;
use tollgate::{
    clock::Clock,
    ledger::{
        close::Close,
        closing::CloseError,
        faults::{Faults, NoFaults},
        ledger_store::LedgerStore,
        location::Location,
        report::{By, Days},
        statements::{Mark, MarkError, Statement, StatementState},
        store::{ClaimRequest, Delivery, Receipt, Store},
    },
    payment::gateway_key::GatewayKey,
};

use crate::{settlement, support::*};

pub const DAY_MS: u64 = 86_400_000;
/// The book day of [`NOON`].
pub const TODAY: i64 = 20_781;

pub fn key() -> Arc<GatewayKey> {
    Arc::new(GatewayKey::new(SigningKey::from_bytes(&[7; 32])))
}

pub fn close(ledger: &Ledger, until: i64) -> Result<Close, CloseError> {
    wait(ledger.store().close_days(until, None))
}

/// Charges an account now.
pub fn buy(ledger: &Ledger, account: &str, name: &str, amount: i64) -> Receipt {
    let limit = units(i64::MAX / 4);
    let paid_at_ms = ledger.clock.now_ms();
    let request = ClaimRequest { account: account.into(), paid_at_ms, limit, ..request(name, amount) };
    ledger.capture(wait(ledger.store().claim(request)).unwrap()).unwrap()
}

pub fn statements(ledger: &Ledger) -> Vec<Statement> {
    ledger.reader().statements(None).unwrap()
}

fn sums(ledger: &Ledger) -> Vec<(i64, String, i64, i64, i64)> {
    statements(ledger).into_iter().map(|s| (s.number, s.account, s.gross, s.corrections, s.total)).collect()
}

fn audited(ledger: &Ledger) {
    let report = ledger.audit();
    assert_eq!(report.finding, None);
}

#[test]
fn what_is_closed_is_stated_and_what_comes_later_falls_on_the_next_statement() {
    let mut ledger = Ledger::new();
    let early = buy(&ledger, "acme", "a", 10_000);
    buy(&ledger, "acme", "b", 500);
    buy(&ledger, "other", "c", 7);
    ledger.outcome(buy(&ledger, "acme", "d", 3).n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    ledger.advance(DAY_MS);
    let closed = wait(ledger.store().close_days(TODAY + 1, Some(key()))).unwrap();
    assert_eq!((closed.from_day, closed.until, closed.at_ms), (TODAY, TODAY + 1, (NOON + DAY_MS) as i64));
    assert_eq!((closed.heads.len(), closed.heads[0].seq), (1, 5));
    let expected = [(1, "acme".to_owned(), 10_503, 3, 10_500), (2, "other".to_owned(), 7, 0, 7)];
    assert_eq!(sums(&ledger), expected);
    assert!(statements(&ledger).iter().all(|s| s.state == StatementState::Closed && s.head == closed.head()));
    // The key of the gateway stands for it, and for nothing else.
    let ledger_id: [u8; 16] = bytes(&ledger.rows("SELECT ledger_id FROM book")[0][0]).try_into().unwrap();
    let (signature, public) = (closed.signature.unwrap(), key().public_jwk().public_key(false).unwrap());
    assert_eq!(signature.thumbprint, key().thumbprint_bytes());
    assert!(public.verifies(&closed.signed_bytes(&ledger_id), &signature.signature));
    let other = Close { until: TODAY + 2, ..closed.clone() };
    assert!(!public.verifies(&other.signed_bytes(&ledger_id), &signature.signature));

    // A void of what was stated, and a sale: the next statement's, the day after.
    ledger.outcome(early.n, Delivery::OriginCut, true);
    ledger.reopen().unwrap();
    buy(&ledger, "acme", "e", 4_000);
    ledger.advance(DAY_MS);
    let next = close(&ledger, TODAY + 2).unwrap();
    assert_eq!((next.from_day, next.signature), (TODAY + 1, None));
    assert_eq!(sums(&ledger)[..2], expected);
    assert_eq!(sums(&ledger)[2..], [(3, "acme".to_owned(), 4_000, 10_000, -6_000)]);
    audited(&ledger);
}

/// Clocks of gateways differ, and one may be set back.
#[test]
fn no_close_is_made_before_the_last() {
    let ledger = Ledger::new();
    ledger.advance(DAY_MS);
    let first = close(&ledger, TODAY).unwrap();
    ledger.clock.step_wall(-60_000);
    ledger.store().accept_clock();
    assert_eq!(close(&ledger, TODAY + 1).unwrap().at_ms, first.at_ms);
    audited(&ledger);
}

#[test]
fn nothing_is_posted_in_a_closed_day_even_on_the_day_itself() {
    let ledger = Ledger::new();
    buy(&ledger, "acme", "a", 1);
    assert_eq!(close(&ledger, TODAY).unwrap().from_day, TODAY, "nothing lies before the first entry");
    assert_eq!(sums(&ledger), []);
    buy(&ledger, "acme", "b", 2);
    assert_eq!(ledger.number("SELECT min(book_day) FROM entries"), TODAY);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 1).unwrap();
    // Before this the zone's clock may step back; a posting stays out of closed days.
    ledger.change("UPDATE writers SET open_day = open_day + 5");
    let late = buy(&ledger, "acme", "c", 4);
    let day = format!("SELECT book_day FROM entries WHERE n = {}", late.n);
    assert_eq!(ledger.number(&day), TODAY + 6);
}

#[test]
fn closing_twice_changes_nothing_and_other_days_are_refused() {
    let ledger = Ledger::new();
    buy(&ledger, "acme", "a", 1);
    ledger.advance(3 * DAY_MS);
    assert_eq!(close(&ledger, -1).unwrap_err(), CloseError::Earlier { closed: 0, until: -1 });
    let first = wait(ledger.store().close_days(TODAY + 2, Some(key()))).unwrap();
    let before = sums(&ledger);
    buy(&ledger, "acme", "b", 2);
    ledger.advance(1000);
    assert_eq!(close(&ledger, TODAY + 2).unwrap(), first);
    assert_eq!(sums(&ledger), before);
    let earlier = close(&ledger, TODAY + 1).unwrap_err();
    assert_eq!(earlier, CloseError::Earlier { closed: TODAY + 2, until: TODAY + 1 });
    assert!(earlier.to_string().contains("before 2026-11-26 are closed"), "{earlier}");
    let future = close(&ledger, TODAY + 4).unwrap_err();
    assert_eq!(future, CloseError::Future { today: TODAY + 3, until: TODAY + 4 });
    assert!(future.to_string().contains("expected today, 2026-11-27"), "{future}");
    assert_eq!(ledger.number("SELECT count(*) FROM closes"), 1);
    assert_eq!(ledger.number("SELECT open_day FROM writers"), TODAY + 2);
    audited(&ledger);
}

#[test]
fn days_are_those_of_the_ledgers_zone() {
    let ledger = Ledger::with(Arc::new(NoFaults), |options| options.zone = "Asia/Tokyo".to_owned());
    // 21:00 in Tokyo; four hours later it is tomorrow there, not in London.
    buy(&ledger, "acme", "a", 1);
    assert!(close(&ledger, TODAY + 1).is_err());
    ledger.advance(4 * 3_600_000);
    assert_eq!(close(&ledger, TODAY + 1).unwrap().from_day, TODAY);
    assert_eq!(sums(&ledger).len(), 1);
}

#[test]
fn what_moved_on_a_chain_is_stated_as_paid() {
    let ledger = Ledger::new();
    settlement::settle(&ledger, settlement::intend(&ledger, "token"), false).unwrap();
    buy(&ledger, "acme", "credit", 5);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 1).unwrap();
    let states: Vec<_> = statements(&ledger).into_iter().map(|s| (s.account, s.total, s.state)).collect();
    let expected =
        [("acme".to_owned(), 5, StatementState::Closed), ("wallets".to_owned(), 10_000, StatementState::Paid)];
    assert_eq!(states, expected);
    audited(&ledger);
}

/// Closes from several sides at once while others pay.
#[test]
fn one_close_wins_and_every_capture_is_on_one_statement() {
    let ledger = Ledger::new();
    buy(&ledger, "acme", "first", 1);
    ledger.advance(DAY_MS);
    let results: Vec<Close> = std::thread::scope(|scope| {
        let pay = |thread: u32| {
            let ledger = &ledger;
            move || (0..40).for_each(|i| _ = buy(ledger, "acme", &format!("{thread}/{i}"), 100))
        };
        (0..3).for_each(|thread| _ = scope.spawn(pay(thread)));
        let closing: Vec<_> = (0..4).map(|_| scope.spawn(|| close(&ledger, TODAY + 1).unwrap())).collect();
        closing.into_iter().map(|closing| closing.join().unwrap()).collect()
    });
    assert!(results.iter().all(|close| *close == results[0]), "{results:?}");
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 2).unwrap();
    assert_eq!(sums(&ledger).iter().map(|s| s.2).collect::<Vec<_>>(), [1, 12_000]);
    audited(&ledger);
}

/// Fails at the point that a test arms, by an error, a panic or kill -9.
struct At {
    before: AtomicU32,
    after: AtomicU32,
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Error,
    Panic,
    Kill,
}

impl At {
    fn reach(&self, countdown: &AtomicU32) -> rusqlite::Result<()> {
        if countdown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) != Ok(1) {
            return Ok(());
        }
        match self.how {
            How::Error => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None)),
            How::Panic => panic!("on purpose"),
            How::Kill => {
                let pid = std::process::id().to_string();
                Command::new("kill").args(["-9", &pid]).status().unwrap();
                unreachable!("killed");
            }
        }
    }
}

impl Faults for At {
    fn before_commit(&self) -> rusqlite::Result<()> {
        self.reach(&self.before)
    }

    fn after_commit(&self) -> rusqlite::Result<()> {
        self.reach(&self.after)
    }
}

#[test]
fn a_disk_that_fails_leaves_the_days_open_or_closed_and_asking_again_tells() {
    for how in [How::Error, How::Panic] {
        for (before, after, is_closed) in [(2, 0, 0), (0, 2, 1)] {
            // The first commit is the capture's.
            let at = At { before: before.into(), after: after.into(), how };
            let ledger = Ledger::with_faults(Arc::new(at));
            buy(&ledger, "acme", "a", 1);
            ledger.advance(DAY_MS);
            let error = close(&ledger, TODAY + 1).unwrap_err();
            assert!(matches!(&error, CloseError::Unavailable(_)), "{error}");
            assert!(error.to_string().contains("ask again"), "{error}");
            assert_eq!(ledger.number("SELECT count(*) FROM closes"), is_closed);
            assert_eq!(ledger.number("SELECT count(*) FROM statements"), is_closed);
            ledger.until_open();
            assert_eq!(close(&ledger, TODAY + 1).unwrap().from_day, TODAY);
            buy(&ledger, "acme", "b", 2);
            assert_eq!(sums(&ledger), [(1, "acme".to_owned(), 1, 0, 1)]);
            audited(&ledger);
        }
    }
}

#[test]
fn a_disk_that_fails_over_a_mark_leaves_it_made_or_not_and_the_statement_tells() {
    for (before, after, state) in [(3, 0, StatementState::Closed), (0, 3, StatementState::Sent)] {
        let at = At { before: before.into(), after: after.into(), how: How::Error };
        let ledger = Ledger::with_faults(Arc::new(at));
        buy(&ledger, "acme", "a", 1);
        ledger.advance(DAY_MS);
        close(&ledger, TODAY + 1).unwrap();
        let mark = |state| wait(ledger.store().mark(Mark { number: 1, state, reason: "why".to_owned() }));
        let error = mark(StatementState::Sent).unwrap_err();
        assert!(matches!(&error, MarkError::Unavailable(_)), "{error}");
        ledger.until_open();
        assert_eq!(statements(&ledger)[0].state, state);
        if state == StatementState::Closed {
            mark(StatementState::Sent).unwrap();
        }
        let again = MarkError::NotAllowed { number: 1, from: StatementState::Sent };
        assert_eq!(mark(StatementState::Sent), Err(again));
        audited(&ledger);
    }
}

const CHILD: &str = "TOLLGATE_TEST_CLOSING";

/// The process that the next test starts; by itself it does nothing.
#[test]
fn child_that_dies_over_a_close() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (point, path) = told.split_once(' ').unwrap();
    let count = |name| AtomicU32::new(u32::from(name == point));
    let at = At { before: count("before"), after: count("after"), how: How::Kill };
    let clock = Clock::manual(NOON + DAY_MS);
    let store =
        LedgerStore::open_with_faults(options(Location::parse(path, None).unwrap(), clock), Arc::new(at)).unwrap();
    let _ = wait(store.close_days(TODAY + 1, None));
}

#[test]
fn kill_9_leaves_the_days_wholly_open_or_wholly_closed() {
    for (point, is_closed) in [("before", 0), ("after", 1)] {
        let mut ledger = Ledger::new();
        (0..20).for_each(|i| _ = buy(&ledger, &format!("account-{i}"), &i.to_string(), 10));
        ledger.close();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "closing::child_that_dies_over_a_close", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{point} {}", ledger.home.name()))
            .output()
            .unwrap()
            .status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        let open_day = ledger.number("SELECT open_day FROM writers");
        assert_eq!(open_day, is_closed * (TODAY + 1));
        assert_eq!(ledger.number("SELECT count(*) FROM closes"), is_closed);
        assert_eq!(ledger.number("SELECT count(*) FROM statements"), 20 * is_closed);
        assert_eq!(ledger.number("SELECT count(*) FROM statement_events"), 20 * is_closed);
        ledger.home.bury();
        ledger.advance(DAY_MS);
        ledger.reopen().unwrap();
        close(&ledger, TODAY + 1).unwrap();
        assert_eq!(ledger.number("SELECT count(*) FROM statements"), 20);
        audited(&ledger);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Buy(u8, i64),
    Void(u8),
    Wait(u64),
    Close(i64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..3, 0_i64..1000).prop_map(|(account, amount)| Step::Buy(account, amount)),
        3 => any::<u8>().prop_map(Step::Void),
        3 => (1_u64..40).prop_map(|hours| Step::Wait(hours * 3_600_000)),
        3 => (-1_i64..4).prop_map(Step::Close),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What the model knows of an account: captured less voided, ever and in the statements.
#[derive(Default)]
struct Model {
    bought: Vec<(String, i64, Receipt, bool)>,
    net: BTreeMap<String, i64>,
}

impl Model {
    fn step(&mut self, ledger: &mut Ledger, step: &Step) {
        match step {
            Step::Buy(account, amount) => {
                let account = format!("account-{account}");
                let receipt = buy(ledger, &account, &self.bought.len().to_string(), *amount);
                *self.net.entry(account.clone()).or_default() += amount;
                self.bought.push((account, *amount, receipt, false));
            }
            Step::Void(which) => {
                let Some(i) = self.bought.len().checked_sub(1).map(|last| usize::from(*which) % (last + 1)) else {
                    return;
                };
                let (account, amount, receipt, voided) = &mut self.bought[i];
                ledger.outcome(receipt.n, Delivery::NotSent, true);
                if !std::mem::replace(voided, true) {
                    *self.net.entry(account.clone()).or_default() -= *amount;
                }
                ledger.reopen().unwrap();
            }
            Step::Wait(ms) => ledger.advance(*ms),
            Step::Close(days) => {
                let last = ledger.number("SELECT coalesce(max(until), 0) FROM closes");
                let today = TODAY + (ledger.clock.now_ms() - (NOON - DAY_MS / 2)) as i64 / DAY_MS as i64;
                let until = if last == 0 { TODAY + days } else { last + days };
                assert_eq!(close(ledger, until).is_ok(), until >= last && until <= today, "{until} {last} {today}");
            }
            Step::Restart => ledger.reopen().unwrap(),
        }
    }

    /// Equation (2): captured less voided is what statements say and what is open, of each account.
    fn check(&self, ledger: &Ledger) {
        let reader = ledger.reader();
        let open_day = ledger.number("SELECT open_day FROM writers");
        let mut found: BTreeMap<String, i64> = BTreeMap::new();
        for statement in reader.statements(None).unwrap() {
            assert_eq!(statement.total, statement.gross - statement.corrections);
            *found.entry(statement.account).or_default() += statement.total;
        }
        let open = reader.report(By::Account, Days { since: open_day, until: i64::MAX }, None).unwrap();
        for line in open {
            *found.entry(line.group.clone()).or_default() += line.net();
        }
        found.retain(|_, net| *net != 0);
        let expected: BTreeMap<_, _> =
            self.net.iter().filter(|(_, n)| **n != 0).map(|(a, n)| (a.clone(), *n)).collect();
        assert_eq!(found, expected);
        let late = "SELECT count(*) FROM entries e JOIN closes c ON e.book_day < c.until AND e.at_ms > c.at_ms";
        assert_eq!(ledger.number(late), 0, "a posting in a closed day");
    }
}

#[test]
fn what_was_sold_is_in_statements_or_open() {
    random_cases(8, steps(), |steps| {
        let mut ledger = Ledger::with(Arc::new(NoFaults), |options| options.sync = false);
        let mut model = Model::default();
        for step in &steps {
            model.step(&mut ledger, step);
            model.check(&ledger);
        }
        ledger.close();
        audited(&ledger);
        Ok(())
    });
}
