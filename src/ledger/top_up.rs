//! Balances: what an account has paid in beforehand, and what of it was paid back.
//!
//! ```text
//! balance = paid in − paid back − (captures − voids)        = −`used` of (account, `prepaid:USD`, the period without an end)
//! ```
//!
//! A claim takes from it as it takes from credit whose limit is nothing, so whatever holds for credit holds here: of two claims
//! for the last cent one is refused, on whatever gateway; a release, a void and a lower amount give back.
//!
//! | step | durable | a crash or a failing disk leaves |
//! |---|---|---|
//! | ordered | nothing | nothing; order it again |
//! | to be paid back: taken from the balance, in memory or by a lock of its row | nothing | nothing: the next process reads the balance from the ledger |
//! | posted and summed in one transaction, not committed | nothing | nothing |
//! | committed, nobody told | posting and balance | both; the same order again is that one |
//! | told | posting and balance | both |
//!
//! The reference is the operator's own word for the transfer, and a part of the posting's key: the same reference of an account
//! is the same transfer, however often it is ordered and whoever races, and another amount under it is refused. What was typed
//! wrong is paid back, under another reference.

use std::sync::Arc;

use super::{
    archive,
    batch::{BatchError, Stamp, seal, sort},
    books::{Books, int},
    chain,
    credit::UseKey,
    day,
    entry::{Entry, EntryNumber, Kind, PostingKey},
    evidence::Note,
    mailbox::Ticket,
    open_accounts,
    poster::Poster,
    sql::{Begin, Session, SqlResult, params},
    store::Unavailable,
    witnessed,
    writer::{Broken, Writer, retried},
};
use crate::{
    payment::key::PaymentKey,
    wire::amount::{Asset, Currency, Money, Prepaid, Units},
};

/// Longest reference and longest reason that are kept, bytes.
pub const TEXT_BYTES_MAX: usize = 200;

/// Which way money went; the code is in the column `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Paid in: the balance rises.
    In = 1,
    /// Paid back: the balance falls.
    Back = 2,
}

impl Way {
    /// As the ledger keeps it.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// Reads the ledger's number.
    pub fn from_code(code: i64) -> Option<Way> {
        [Way::In, Way::Back].into_iter().find(|way| way.code() == code)
    }

    /// `paid_in`, `paid_back`
    pub fn name(self) -> &'static str {
        match self {
            Way::In => "paid_in",
            Way::Back => "paid_back",
        }
    }
}

/// What to note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopUp {
    /// Whose balance.
    pub account: Arc<str>,
    /// How much, `50 USD`; more than nothing.
    pub money: Money,
    /// Which way.
    pub way: Way,
    /// What tells this transfer from others: `invoice 17`.
    pub reference: String,
    /// For whoever reads the books later; may be empty.
    pub reason: String,
}

impl TopUp {
    fn asset(&self) -> Asset {
        Asset::Prepaid(Prepaid::of(self.money.currency))
    }

    fn use_key(&self) -> UseKey {
        (self.account.clone(), self.asset(), day::BALANCE)
    }

    fn key(&self) -> PostingKey {
        let payment = PaymentKey::from_top_up(&self.account, self.asset().as_str(), self.reference.trim());
        PostingKey::new(Kind::Topup, &payment, 0)
    }
}

/// What was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToppedUp {
    /// The posting.
    pub n: i64,
    /// What is left of the balance, ledger units.
    pub balance: i64,
    /// It was so before: nothing was posted.
    pub was: bool,
}

/// Why nothing is noted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopUpError {
    /// It names no transfer.
    #[error("the reference must be a line of 1 to {TEXT_BYTES_MAX} bytes of text")]
    Reference,
    /// The reason is not what is kept.
    #[error("the reason must be a line of at most {TEXT_BYTES_MAX} bytes of text")]
    Reason,
    /// Accounts that agents open by themselves have credit, and nobody to pay in.
    #[error("`{0}` was opened by its agents and has no balance; name it in an `[[accounts]]` section")]
    Opened(Arc<str>),
    /// Nothing, or too much for a balance.
    #[error("the amount must be more than nothing, and the balance must stay below what the ledger can hold")]
    Amount,
    /// The reference stands for another transfer.
    #[error("`{reference}` of this account is {is}, entry {n}; another transfer needs another reference")]
    Other {
        /// The reference.
        reference: String,
        /// What was noted: `50.00 USD paid in`.
        is: String,
        /// By this posting.
        n: i64,
    },
    /// There is not so much to be paid back.
    #[error("the balance is {}, less than that; payments that are being served count as spent", balance_text(*balance, *currency))]
    TooMuch {
        /// What is left.
        balance: i64,
        /// Of what.
        currency: Currency,
    },
    /// The ledger refused it.
    #[error("the top-up could not be posted: {0}")]
    Refused(String),
    /// The ledger is closed, or its disk failed.
    #[error("{0}; order it again: the same reference is noted once")]
    Unavailable(Unavailable),
}

fn balance_text(balance: i64, currency: Currency) -> String {
    let sign = if balance < 0 { "-" } else { "" };
    let units = Units::new(balance.saturating_abs()).unwrap_or(Units::MAX);
    format!("{sign}{}", Money { units, currency })
}

/// What an entry changes of what its account has used, where it is a top-up.
pub(super) fn change(entry: &Entry<'_>) -> i64 {
    match entry.status.and_then(Way::from_code) {
        Some(Way::Back) => entry.amount,
        _ => -entry.amount,
    }
}

/// What orders that cannot be followed at all are told.
fn check(top_up: &TopUp) -> Result<(), TopUpError> {
    let is_line = |text: &str| text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control);
    if top_up.reference.trim().is_empty() || !is_line(&top_up.reference) {
        return Err(TopUpError::Reference);
    }
    if !is_line(&top_up.reason) {
        return Err(TopUpError::Reason);
    }
    if top_up.account.starts_with(open_accounts::PREFIX) {
        return Err(TopUpError::Opened(top_up.account.clone()));
    }
    if top_up.money.units == Units::ZERO { Err(TopUpError::Amount) } else { Ok(()) }
}

impl Books {
    /// Notes a transfer, once.
    pub(super) fn top_up(
        &mut self,
        top_up: &TopUp,
        (now_ms, wall_ms): (u64, u64),
    ) -> Result<Result<ToppedUp, TopUpError>, BatchError> {
        let faults = self.faults.clone();
        let transaction = self.connection.begin(Begin::Write).map_err(sort)?;
        let mut head = witnessed::own_head(&transaction, self.slot, self.lease, &self.head)?;
        let asset = top_up.asset();
        let used = used(&transaction, &top_up.account, &asset, self.lease.is_some()).map_err(sort)?;
        if let Some(before) = before(&transaction, top_up).map_err(sort)? {
            return Ok(before.map(|n| ToppedUp { n, balance: -used, was: true }));
        }
        let amount = top_up.money.units.get();
        let change = if top_up.way == Way::In { -amount } else { amount };
        let balance = used.checked_add(change).and_then(i64::checked_neg);
        let Some(balance) = balance.filter(|balance| *balance <= Units::MAX.get()) else {
            return Ok(Err(TopUpError::Amount));
        };
        if top_up.way == Way::Back && balance < 0 {
            return Ok(Err(TopUpError::TooMuch { balance: -used, currency: top_up.money.currency }));
        }
        let at_ms = head.at_ms.max(int(now_ms));
        let book_day = self.zone.book_day(at_ms.unsigned_abs(), head.open_day);
        let stamp = Stamp { at_ms, wall_ms: int(wall_ms), book_day };
        let evidence = note(top_up);
        let digest = chain::evidence_digest(&evidence);
        let n_before = EntryNumber { slot: self.slot, seq: head.seq }.n();
        let mut post = Poster::new(&transaction, self.slot, &mut head);
        let mut entry = entry(top_up, &asset, post.next_n(), stamp);
        (entry.evidence, entry.evidence_digest) = (Some(&evidence[..]), Some(&digest[..]));
        let n = entry.n;
        if post.insert(&entry)?.is_none() {
            // Another gateway was first, a moment ago.
            return Err(BatchError::Conflict("another process noted the same transfer".to_owned()));
        }
        post.finish().map_err(sort)?;
        head.at_ms = at_ms;
        seal(&transaction, self.slot, &mut head, n_before, None).map_err(sort)?;
        witnessed::commit(transaction, head, (&mut self.head, &mut self.attempted), &*faults)?;
        Ok(Ok(ToppedUp { n, balance, was: false }))
    }
}

/// What the account has used of its balance; on a server, live claims are in it, and nobody changes it meanwhile.
fn used(transaction: &Session, account: &str, asset: &Asset, on_server: bool) -> SqlResult<i64> {
    if on_server {
        // So that there is a row to lock.
        let make =
            "INSERT INTO account_use (account, asset, period, used) VALUES (?1, ?2, ?3, 0) ON CONFLICT DO NOTHING";
        transaction.execute(make, params![account, asset.as_str(), day::BALANCE])?;
    }
    let lock = if on_server { " FOR UPDATE" } else { "" };
    let select = format!("SELECT used FROM account_use WHERE account = ?1 AND asset = ?2 AND period = ?3{lock}");
    let used = transaction.first(&select, params![account, asset.as_str(), day::BALANCE], |row| row.get(0))?;
    Ok(used.unwrap_or_default())
}

/// The posting that notes this transfer, if there is one; it may have been archived since.
fn before(session: &Session, top_up: &TopUp) -> SqlResult<Option<Result<i64, TopUpError>>> {
    let key = top_up.key();
    let find = "SELECT n, amount, status FROM entries WHERE key = ?1";
    let found = session.first(find, params![key.as_bytes()], |row| {
        Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, row.get::<Option<i64>>(2)?))
    })?;
    let found = match found {
        Some(found) => Some(found),
        None => archive::rows::referred(session, &key)?.map(|kept| (kept.n, kept.amount, kept.status)),
    };
    Ok(found.map(|(n, amount, status)| {
        let way = status.and_then(Way::from_code).unwrap_or(Way::In);
        if (amount, way) == (top_up.money.units.get(), top_up.way) {
            return Ok(n);
        }
        let money = Money { units: Units::new(amount).unwrap_or_default(), ..top_up.money };
        let is = format!("{money} {}", way.name().replace('_', " "));
        Err(TopUpError::Other { reference: top_up.reference.trim().to_owned(), is, n })
    }))
}

fn note(top_up: &TopUp) -> Vec<u8> {
    let note = Note {
        state: top_up.way.name().to_owned(),
        number: 0,
        reference: Some(top_up.reference.trim().to_owned()),
        reason: top_up.reason.trim().to_owned(),
        by: "operator".to_owned(),
        proof: None,
    };
    note.encode()
}

fn entry<'a>(top_up: &'a TopUp, asset: &'a Asset, n: i64, stamp: Stamp) -> Entry<'a> {
    Entry {
        n,
        key: top_up.key(),
        kind: Kind::Topup,
        at_ms: stamp.at_ms,
        wall_ms: stamp.wall_ms,
        book_day: stamp.book_day,
        account: &top_up.account,
        agent: "",
        agent_key: None,
        route: "",
        scheme: "",
        asset: asset.as_str(),
        amount: top_up.money.units.get(),
        list_amount: None,
        period: day::BALANCE,
        table_hash: None,
        status: Some(top_up.way.code()),
        ref_n: None,
        method: None,
        target: None,
        target_salt: None,
        target_digest: None,
        evidence: None,
        evidence_digest: None,
    }
}

/// What a top-up resolves to.
pub(super) type TopUpResult = Result<ToppedUp, TopUpError>;

impl Writer {
    /// Notes a transfer; memory follows before anybody is told.
    pub(super) fn top_up(&mut self, top_up: &TopUp, ticket: &Ticket<TopUpResult>) -> Result<(), Broken> {
        if let Err(error) = check(top_up) {
            ticket.fill(Err(error));
            return Ok(());
        }
        let shared = self.shared.clone();
        let (key, amount, credit) = (top_up.use_key(), top_up.money.units, &shared.claims.credit);
        // What is to be paid back is nobody's to spend from now on.
        let takes = top_up.way == Way::Back && !matches!(before(&self.books.connection, top_up), Ok(Some(_)));
        if takes && let Err((used, _)) = credit.take(&key, amount, Units::ZERO, None) {
            let currency = top_up.money.currency;
            ticket.fill(Err(TopUpError::TooMuch { balance: -used, currency }));
            return Ok(());
        }
        let now = (shared.clock.now_ms(), shared.clock.wall_ms());
        let at_disk = shared.at_disk();
        let done = retried(|| self.books.top_up(top_up, now));
        drop(at_disk);
        let posted = matches!(&done, Ok(Ok(done)) if !done.was);
        if done.is_err() {
            // The books are closed before what was taken is free again: the transfer may be in them.
            let told = self.tell(done, ticket, TopUpError::Refused, TopUpError::Unavailable);
            if takes {
                credit.settle(&key, amount, Units::ZERO);
            }
            return told;
        }
        if takes {
            credit.settle(&key, amount, if posted { amount } else { Units::ZERO });
        } else if posted {
            credit.top_up(&key, amount);
        }
        // In memory live claims count as spent, too.
        let done = done
            .map(|done| done.map(|done| ToppedUp { balance: credit.balance(&key).unwrap_or(done.balance), ..done }));
        if let Ok(Ok(done)) = &done
            && !done.was
        {
            let (account, way, n) = (&*top_up.account, top_up.way.name(), done.n);
            tracing::info!(account, way, amount = %top_up.money, n, "the operator noted a top-up");
        }
        self.tell(done, ticket, TopUpError::Refused, TopUpError::Unavailable)
    }
}
