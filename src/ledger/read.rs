//! Reading the books, beside the gateway that writes them: no lock is needed.

use std::collections::{HashMap, HashSet};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    chain::Hash,
    correction::Seen,
    correction::{self, Matter},
    entry::{Entry, EntryNumber, Kind, PostingKey},
    evidence::{EvidenceError, Proof},
    file::{self, Book, OpenError},
    location::Location,
    outcomes::{self, Record},
    postgres::schema,
    resolve::Open,
    rows, settlements,
    sql::{Begin, Session, SqlError, SqlResult, params},
    steps,
    store::Unresolved,
};
use crate::payment::key::PaymentKey;

/// A ledger opened to read.
pub struct LedgerReader {
    pub(super) connection: Session,
    pub(super) book: Book,
}

/// Which entries a listing shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// At most so many; the listing is held in memory.
    pub limit: usize,
    /// None posted before, Unix ms.
    pub since_ms: Option<u64>,
    /// Of this account only.
    pub account: Option<String>,
    /// Captures in this state only.
    pub state: Option<State>,
}

/// What became of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// An outcome is written and the charge stands.
    Delivered,
    /// No outcome is written: the answer is still on its way, or the gateway died over it.
    Unproven,
    /// Reversed.
    Voided,
    /// Money moved, and nobody got the answer.
    Owed,
    /// Money moved, and all of it was given back.
    Refunded,
    /// Contested, and not decided: beside what else it is.
    Disputed,
}

/// The later postings of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// How the delivery ended.
    pub outcome: Option<Record>,
    /// The entry that reversed it.
    pub void_n: Option<i64>,
    /// The entry that says that its answer is owed.
    pub owed_n: Option<i64>,
    /// The entry that says that it was served later.
    pub redelivered_n: Option<i64>,
    /// The entry that says that it is not served any more.
    pub lapsed_n: Option<i64>,
    /// What was given back, ledger units.
    pub refunded: i64,
    /// That is all there was.
    pub is_refunded: bool,
    /// What its last dispute is.
    pub dispute: Option<correction::State>,
}

impl Fate {
    /// In one word.
    pub fn state(&self) -> State {
        match self {
            Fate { void_n: Some(_), .. } => State::Voided,
            Fate { is_refunded: true, .. } => State::Refunded,
            Fate { redelivered_n: Some(_), .. } => State::Delivered,
            Fate { owed_n: Some(_), .. } => State::Owed,
            Fate { outcome: Some(_), .. } => State::Delivered,
            Fate { outcome: None, .. } => State::Unproven,
        }
    }

    /// Whether it is in this state; more than one may be true.
    pub fn is(&self, state: State) -> bool {
        match state {
            State::Disputed => self.dispute == Some(correction::State::Open),
            state => self.state() == state,
        }
    }

    fn with_refunds(self, refunded: i64, amount: i64) -> Fate {
        Fate { refunded, is_refunded: refunded > 0 && refunded >= amount, ..self }
    }
}

/// A row of a listing; the fields are those of [`Entry`], `payment` the part of its key that all postings of a payment share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Listed {
    pub n: i64,
    pub kind: Kind,
    pub payment: PaymentKey,
    pub at_ms: i64,
    pub book_day: i64,
    pub account: String,
    pub agent: String,
    pub route: String,
    pub scheme: String,
    pub asset: String,
    pub amount: i64,
    pub status: Option<i64>,
    /// Of a posting about a refund or dispute.
    pub step: Option<correction::State>,
    pub ref_n: Option<i64>,
    pub method: Option<String>,
    /// `None` also where retention dropped it.
    pub target: Option<String>,
    /// Of captures only.
    pub fate: Option<Fate>,
}

/// One entry in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The columns that a listing has, too.
    pub listed: Listed,
    /// Its posting key.
    pub key: PostingKey,
    /// What the wall clock said, Unix ms.
    pub wall_ms: i64,
    /// The key's thumbprint.
    pub agent_key: Option<String>,
    /// The public key as JWK, where it is known.
    pub jwk: Option<String>,
    /// The public price at the time.
    pub list_amount: Option<i64>,
    /// Credit period.
    pub period: i64,
    /// SHA-256 of the price table.
    pub table_hash: Option<Vec<u8>>,
    /// What was signed, and what a facilitator said; `None` where there is none or retention dropped it.
    pub evidence: Option<Result<Proof, EvidenceError>>,
    /// The entry's link of the chain.
    pub hash: Hash,
    /// Of a capture, in order of their numbers.
    pub refunds: Vec<Matter>,
    /// Likewise.
    pub disputes: Vec<Matter>,
}

/// Why the books cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The text names no entry.
    #[error("`{0}` is neither an entry's number, a payment key in hex nor a payment id")]
    NotAnId(String),
    /// A row could not be read.
    #[error("the ledger could not be read: {0}; run `tollgate ledger audit`")]
    Sql(#[from] SqlError),
}

impl LedgerReader {
    /// Opens the ledger of a stopped or running gateway.
    ///
    /// # Errors
    /// As for opening to write, but never [`OpenError::Locked`].
    pub fn open(location: impl Into<Location>) -> Result<LedgerReader, OpenError> {
        let (connection, book) = match &location.into() {
            Location::File(path) => file::open_to_read(path)?,
            Location::Server(server) => {
                let session = server.connect_to_read().map_err(|error| server.error(&error))?;
                let book = schema::open_to_read(server, &session)?;
                (session, book)
            }
        };
        Ok(LedgerReader { connection, book })
    }

    /// The zone of book days, `UTC`.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn zone(&self) -> Result<String, ReadError> {
        Ok(self.connection.cell("SELECT zone FROM book", &[])?)
    }

    /// Entries, newest first.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn list(&self, filter: &Filter) -> Result<Vec<Listed>, ReadError> {
        let mut found = Vec::new();
        // Outcomes and voids come after their capture, so on the way back they are met before it.
        let mut later = Later::default();
        self.walk_back(|step| {
            let entry = match step {
                Step::Outcomes(records) => {
                    later.outcomes.extend(records.into_iter().map(|record| (record.n, record)));
                    return Walk::On;
                }
                Step::Entry(entry) => entry,
            };
            if filter.since_ms.is_some_and(|since| entry.at_ms.unsigned_abs() < since) || found.len() >= filter.limit {
                return Walk::Stop;
            }
            let fate = later.meet(entry);
            let account = filter.account.as_deref().is_none_or(|account| account == entry.account);
            let state = filter.state.is_none_or(|state| fate.is_some_and(|fate| fate.is(state)));
            if account && state {
                found.push(listed(entry, fate));
            }
            Walk::On
        })?;
        Ok(found)
    }

    /// The last batch of each writer: what is read after this has at least their outcomes.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn last_batches(&self) -> Result<Seen, ReadError> {
        let last = "SELECT slot, batch_seq FROM writers";
        Ok(self.connection.all(last, &[], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect())
    }

    /// Payments of which nobody knows whether they moved money, oldest first.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn unresolved(&self) -> Result<Vec<Open>, ReadError> {
        let open = |unresolved: Unresolved| Open {
            key: unresolved.request.key,
            agent: unresolved.intent.posting.agent.clone(),
            what: format!("{} {}", unresolved.intent.posting.method, unresolved.intent.posting.target),
            amount: unresolved.request.amount.get(),
            asset: unresolved.request.asset.to_string(),
            facilitator: unresolved.intent.facilitator.clone(),
            hard_until_ms: unresolved.intent.hard_until_ms,
        };
        Ok(settlements::open_settlements(&self.connection)?.into_iter().map(open).collect())
    }

    /// One entry in full, by its number (`281474976710657`), its payment's key in hex or the text of its payment id.
    /// `None` when there is none.
    ///
    /// # Errors
    /// [`ReadError::NotAnId`], [`ReadError::Sql`].
    pub fn show(&self, id: &str) -> Result<Option<Shown>, ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let Some(n) = self.number_of(id)? else { return Ok(None) };
        let select = format!("SELECT {} FROM entries WHERE n = ?1", rows::COLUMNS);
        let mut statement = transaction.prepare(&select)?;
        let mut found = statement.query(params![n])?;
        let Some(row) = found.next()? else { return Ok(None) };
        let (entry, hash) = rows::read(&row)?;
        let matters = |kind| match entry.kind {
            Kind::Capture => steps::matters(&self.connection, &entry.key.payment(), kind),
            _ => Ok(Vec::new()),
        };
        let (refunds, disputes) = (matters(Kind::Refund)?, matters(Kind::Dispute)?);
        let fate = match entry.kind {
            Kind::Capture => Some(Fate {
                dispute: disputes.last().map(|dispute| dispute.state),
                ..self.fate(&entry)?.with_refunds(correction::refunded(&refunds), entry.amount)
            }),
            _ => None,
        };
        Ok(Some(Shown {
            listed: listed(&entry, fate),
            key: entry.key,
            wall_ms: entry.wall_ms,
            agent_key: entry.agent_key.map(str::to_owned),
            jwk: self.jwk(entry.agent_key, entry.agent)?,
            list_amount: entry.list_amount,
            period: entry.period,
            table_hash: entry.table_hash.map(<[u8]>::to_vec),
            evidence: entry.evidence.map(Proof::decode),
            hash,
            refunds,
            disputes,
        }))
    }

    /// The entry of a number, of a payment's key in hex (its capture), or of the text of a payment id.
    pub(super) fn number_of(&self, id: &str) -> Result<Option<i64>, ReadError> {
        let key = match parse_id(id).ok_or_else(|| ReadError::NotAnId(id.to_owned()))? {
            Id::Number(n) => return Ok(Some(n)),
            Id::Payment(key) => PostingKey::new(Kind::Capture, &key, 0),
        };
        let find = "SELECT n FROM entries WHERE key = ?1";
        Ok(self.connection.first(find, params![key.as_bytes()], |row| row.get(0))?)
    }

    /// The public key of an agent as JWK, where it is known.
    pub(super) fn jwk(&self, thumbprint: Option<&str>, agent: &str) -> SqlResult<Option<String>> {
        let jwk = "SELECT jwk FROM keys WHERE thumbprint = ?1 AND agent = ?2";
        self.connection.first(jwk, params![thumbprint, agent], |row| row.get(0))
    }

    fn fate(&self, capture: &Entry<'_>) -> Result<Fate, ReadError> {
        let find = |kind| {
            let key = PostingKey::new(kind, &capture.key.payment(), 0);
            let find = "SELECT n FROM entries WHERE key = ?1";
            self.connection.first(find, params![key.as_bytes()], |row| row.get(0))
        };
        let fate = Fate {
            outcome: None,
            void_n: find(Kind::Void)?,
            owed_n: find(Kind::Owed)?,
            redelivered_n: find(Kind::Redelivered)?,
            lapsed_n: find(Kind::Lapsed)?,
            ..Fate::default()
        };
        let mut statement = self.connection.prepare(
            "SELECT n_first, outcomes FROM batches WHERE slot = ?1 AND (outcomes IS NOT NULL OR n_first <= ?2) \
             ORDER BY batch_seq DESC",
        )?;
        let mut batches = statement.query(params![EntryNumber::from_n(capture.n).slot, capture.n])?;
        while let Some(row) = batches.next()? {
            let records = row.get::<Option<&[u8]>>(1)?.and_then(outcomes::decode);
            let outcome = records.unwrap_or_default().into_iter().find(|record| record.n == capture.n);
            let reached = row.get::<Option<i64>>(0)?.is_some_and(|first| first <= capture.n);
            if outcome.is_some() || reached {
                return Ok(Fate { outcome, ..fate });
            }
        }
        Ok(fate)
    }

    /// Entries from the newest on, between them the outcomes that came after them.
    fn walk_back(&self, mut each: impl FnMut(Step<'_, '_>) -> Walk) -> Result<(), ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let batches = format!("SELECT {} FROM batches ORDER BY slot DESC, batch_seq DESC", rows::BATCH_COLUMNS);
        let entries = format!("SELECT {} FROM entries WHERE n BETWEEN ?1 AND ?2 ORDER BY n DESC", rows::COLUMNS);
        let (mut batches, mut entries) = (transaction.prepare(&batches)?, transaction.prepare(&entries)?);
        let mut batches = batches.query(&[])?;
        while let Some(row) = batches.next()? {
            let (batch, _) = rows::read_batch(&row)?;
            if let (Some(first), Some(last)) = (batch.n_first, batch.n_last) {
                let mut rows = entries.query(params![first, last])?;
                while let Some(row) = rows.next()? {
                    if let Walk::Stop = each(Step::Entry(&rows::read(&row)?.0)) {
                        return Ok(());
                    }
                }
            }
            each(Step::Outcomes(batch.outcomes.and_then(outcomes::decode).unwrap_or_default()));
        }
        Ok(())
    }
}

enum Walk {
    On,
    Stop,
}

enum Step<'e, 'r> {
    Entry(&'e Entry<'r>),
    Outcomes(Vec<Record>),
}

/// Outcomes and postings whose capture is still to be met.
#[derive(Default)]
struct Later {
    outcomes: HashMap<i64, Record>,
    postings: HashMap<(i64, Kind), i64>,
    /// Refunds that failed, by their capture and number.
    failed: HashSet<(i64, u8)>,
    refunded: HashMap<i64, i64>,
    disputes: HashMap<i64, correction::State>,
}

impl Later {
    /// Takes an entry on the way back; a capture gets what became of it.
    fn meet(&mut self, entry: &Entry<'_>) -> Option<Fate> {
        match (entry.kind, entry.ref_n) {
            (Kind::Capture, _) => {
                let mut later = |kind| self.postings.remove(&(entry.n, kind));
                let fate = Fate {
                    void_n: later(Kind::Void),
                    owed_n: later(Kind::Owed),
                    redelivered_n: later(Kind::Redelivered),
                    lapsed_n: later(Kind::Lapsed),
                    outcome: self.outcomes.remove(&entry.n),
                    dispute: self.disputes.remove(&entry.n),
                    ..Fate::default()
                };
                Some(fate.with_refunds(self.refunded.remove(&entry.n).unwrap_or_default(), entry.amount))
            }
            (Kind::Refund | Kind::Dispute, Some(capture_n)) => {
                self.step(entry, capture_n);
                None
            }
            (kind @ (Kind::Void | Kind::Owed | Kind::Redelivered | Kind::Lapsed), Some(capture_n)) => {
                self.postings.insert((capture_n, kind), entry.n);
                None
            }
            _ => None,
        }
    }
}

impl Later {
    /// A step of a refund or dispute: its end is met before its beginning.
    fn step(&mut self, entry: &Entry<'_>, capture_n: i64) {
        let Some(state) = correction::State::from_code(entry.kind, entry.status.unwrap_or_default()) else { return };
        let which = (entry.key.number() >> 8) as u8;
        let is_end = entry.key.number() & 1 == 1;
        match entry.kind {
            Kind::Dispute => _ = self.disputes.entry(capture_n).or_insert(state),
            _ if state == correction::State::Failed => _ = self.failed.insert((capture_n, which)),
            _ if is_end || self.failed.remove(&(capture_n, which)) => {}
            _ => *self.refunded.entry(capture_n).or_default() += entry.amount,
        }
    }
}

fn listed(entry: &Entry<'_>, fate: Option<Fate>) -> Listed {
    Listed {
        n: entry.n,
        kind: entry.kind,
        payment: entry.key.payment(),
        at_ms: entry.at_ms,
        book_day: entry.book_day,
        account: entry.account.to_owned(),
        agent: entry.agent.to_owned(),
        route: entry.route.to_owned(),
        scheme: entry.scheme.to_owned(),
        asset: entry.asset.to_owned(),
        amount: entry.amount,
        status: entry.status.filter(|_| !matches!(entry.kind, Kind::Refund | Kind::Dispute)),
        step: correction::State::from_code(entry.kind, entry.status.unwrap_or_default()),
        ref_n: entry.ref_n,
        method: entry.method.map(str::to_owned),
        target: entry.target.map(str::to_owned),
        fate,
    }
}

enum Id {
    Number(i64),
    Payment(PaymentKey),
}

fn parse_id(text: &str) -> Option<Id> {
    match text.len() {
        1..=19 => text.parse().ok().map(Id::Number),
        34 => PaymentKey::from_hex(text).map(Id::Payment),
        64 => {
            let id: [u8; 48] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
            Some(Id::Payment(PaymentKey::from_offer_id(&id)))
        }
        _ => None,
    }
}
