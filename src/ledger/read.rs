//! Reading the books, beside the gateway that writes them: no lock is needed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    chain::Hash,
    correction::Seen,
    correction::{self, Matter},
    entry::{Entry, EntryNumber, Kind, PostingKey},
    evidence::{EvidenceError, Proof},
    file::{self, Book, OpenError},
    listing::listed,
    location::Location,
    outcomes::{self, Record},
    postgres::schema,
    resolve::Open,
    rows, settlements,
    sql::{Begin, Session, SqlError, SqlResult, params},
    steps,
    store::{Delivery, Unresolved},
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
    /// The charge stands although the origin cut the answer off, or nothing of it was sent: beside what else it is.
    Cut,
}

impl State {
    /// As listings show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Delivered => "delivered",
            State::Unproven => "unproven",
            State::Voided => "voided",
            State::Owed => "owed",
            State::Refunded => "refunded",
            State::Disputed => "disputed",
            State::Cut => "cut",
        }
    }
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
            State::Cut => {
                let cut = |record: Record| matches!(record.delivery, Delivery::OriginCut | Delivery::NotSent);
                self.outcome.is_some_and(cut) && self.state() == State::Delivered && self.redelivered_n.is_none()
            }
            state => self.state() == state,
        }
    }

    pub(super) fn with_refunds(self, refunded: i64, amount: i64) -> Fate {
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
    /// What a refund, a dispute or a top-up is: `sent`, `open`, `paid_in`.
    pub step: Option<&'static str>,
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

    /// Whether its connection has ended, so that another reader is needed.
    pub(super) fn has_ended(&self) -> bool {
        self.connection.has_ended()
    }

    /// What tells it from every other ledger.
    pub fn ledger_id(&self) -> [u8; 16] {
        self.book.ledger_id
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
