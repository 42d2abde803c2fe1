//! One entry held against what it carries: its place in the chain, what was signed for it, and whether that is what was booked.
//!
//! All of it offline, from the ledger alone. What is not needed is said to be not applicable; an entry whose key or evidence is
//! missing or damaged, or whose signature only a network can judge, is not proven, which is neither right nor wrong.

mod settled;
mod signed;

pub use settled::{Transfer, transfer};
pub(super) use signed::public_key;
pub use signed::signature_verifies;

use super::{
    archive::rows::{gone, gone_head},
    chain::{self, Hash},
    entry::{Entry, EntryNumber, Kind, PostingKey},
    evidence::Proof,
    read::{LedgerReader, ReadError},
    rows,
    sql::{Begin, params},
    targets,
};

/// What was found about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its number.
    pub n: i64,
    /// What it does.
    pub kind: Kind,
    /// Everything that was looked at, in order.
    pub checks: Vec<Check>,
}

impl Verified {
    /// Whether nothing failed.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.result != CheckResult::Failed)
    }

    /// Whether everything was shown that an entry of its kind has to show.
    pub fn is_proven(&self) -> bool {
        self.holds() && self.unproven().is_none()
    }

    /// The first thing that could not be shown: what its proof would need is missing or damaged.
    pub fn unproven(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.result == CheckResult::Unproven)
    }
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What: `chain`, `target`, `evidence`, `reference`, `key`, `signature`, `resource`, `offer_id`, `transfer`, `payer`,
    /// `payment_key`, `amount`, `seal`.
    pub name: &'static str,
    /// How it went.
    pub result: CheckResult,
    /// For people.
    pub detail: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// It holds.
    Ok,
    /// It does not.
    Failed,
    /// What it would be shown with is missing or damaged: it may hold or not.
    Unproven,
    /// It makes no sense for this entry, or is not needed: something else shows the same.
    NotApplicable,
}

/// The checks as they are made.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, name: &'static str, result: CheckResult, detail: impl Into<String>) {
        self.0.push(Check { name, result, detail: detail.into() });
    }

    /// Both texts say what would be the case.
    fn test(&mut self, name: &'static str, holds: bool, ok: impl Into<String>, failed: impl Into<String>) {
        let (result, detail) = if holds { (CheckResult::Ok, ok.into()) } else { (CheckResult::Failed, failed.into()) };
        self.add(name, result, detail);
    }

    fn skip(&mut self, name: &'static str, why: impl Into<String>) {
        self.add(name, CheckResult::NotApplicable, why);
    }

    fn unproven(&mut self, name: &'static str, why: impl Into<String>) {
        self.add(name, CheckResult::Unproven, why);
    }
}

impl LedgerReader {
    /// Verifies one entry, by its number, its payment's key in hex or the text of its payment id; `None` when there is none.
    ///
    /// # Errors
    /// [`ReadError::NotAnId`], [`ReadError::Sql`].
    pub fn verify(&self, id: &str) -> Result<Option<Verified>, ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let Some(n) = self.number_of(id)? else { return Ok(None) };
        let select = format!("SELECT {} FROM entries WHERE n = ?1", rows::COLUMNS);
        let mut statement = transaction.prepare(&select)?;
        let mut found = statement.query(params![n])?;
        let Some(row) = found.next()? else { return Ok(None) };
        let (entry, hash) = rows::read(&row)?;
        let mut checks = Checks::default();
        match self.link_before(n)? {
            Some(previous) => {
                let holds = chain::entry(&previous, &entry) == hash && entry.kind == entry.key.kind();
                checks.test(
                    "chain",
                    holds,
                    "its hash follows the link before it",
                    "its hash is not that of its columns",
                );
            }
            None => checks.test("chain", false, "", "the link before it is missing"),
        }
        digests(&entry, &mut checks);
        self.reference(&entry, &mut checks)?;
        match entry.evidence.map(Proof::decode) {
            None if entry.evidence_digest.is_some() => {
                checks.unproven("signature", "the evidence was dropped by retention; an archive may have it");
            }
            None if entry.kind == Kind::Capture => checks.unproven("signature", "the capture carries no evidence"),
            None => checks.skip("signature", "the entry carries no evidence"),
            Some(Err(error)) => checks.test("evidence", false, "", error.to_string()),
            Some(Ok(Proof::Signed(evidence))) => {
                let jwk = self.jwk(entry.agent_key, entry.agent)?;
                signed::check(&entry, &evidence, jwk.as_deref(), &mut checks);
            }
            Some(Ok(Proof::Settled(evidence))) => settled::check(&entry, &evidence, &mut checks),
            Some(Ok(Proof::Noted(note))) => {
                checks.skip("signature", format!("it is the word of the {}, kept in the chain", note.by));
            }
        }
        Ok(Some(Verified { n, kind: entry.kind, checks: checks.0 }))
    }

    /// The hash of the entry before, or the head of the batch before; of the first one the genesis.
    fn link_before(&self, n: i64) -> Result<Option<Hash>, ReadError> {
        let slot = EntryNumber::from_n(n).slot;
        let first = "SELECT batch_seq FROM batches WHERE slot = ?1 AND n_first = ?2";
        let first: Option<i64> = self.connection.first(first, params![slot, n], |row| row.get(0))?;
        let before = match first {
            Some(1) => return Ok(Some(chain::genesis(&self.book.ledger_id, slot))),
            Some(batch_seq) => {
                // Behind an archive the chain goes on with its head.
                if let Some((last_batch, head)) = gone_head(&self.connection, slot)?
                    && last_batch == batch_seq - 1
                {
                    return Ok(Some(head));
                }
                let head = "SELECT head FROM batches WHERE slot = ?1 AND batch_seq = ?2";
                self.connection.first(head, params![slot, batch_seq - 1], |row| row.get(0))?
            }
            None => {
                let hash = "SELECT hash FROM entries WHERE n = ?1";
                self.connection.first(hash, params![n - 1], |row| row.get(0))?
            }
        };
        Ok(before)
    }

    /// What a posting is about stands before it and is of the same payment.
    fn reference(&self, entry: &Entry<'_>, checks: &mut Checks) -> Result<(), ReadError> {
        let Some(ref_n) = entry.ref_n else { return Ok(()) };
        let find = "SELECT key, amount, account FROM entries WHERE n = ?1";
        let found: Option<(Vec<u8>, i64, String)> =
            self.connection.first(find, params![ref_n], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let at = EntryNumber::from_n(ref_n);
        if found.is_none() && gone(&self.connection)?.get(&at.slot).is_some_and(|gone| at.seq <= *gone) {
            checks.unproven("reference", format!("entry {ref_n}: it is in an archive, and not in the ledger any more"));
            return Ok(());
        }
        if entry.kind == Kind::Pass {
            let is_capture = |key: &[u8]| PostingKey::from_bytes(key).is_some_and(|key| key.kind() == Kind::Capture);
            let holds = found
                .is_some_and(|(key, _, account)| ref_n == entry.n - 1 && is_capture(&key) && account == entry.account);
            let (ok, failed) = ("the capture before it, of the same account", "not the capture before it");
            checks.test("reference", holds, format!("entry {ref_n}: {ok}"), format!("entry {ref_n}: {failed}"));
            return Ok(());
        }
        let capture = PostingKey::new(Kind::Capture, &entry.key.payment(), 0);
        let holds = found.is_some_and(|(key, amount, account)| {
            let amount_holds = if entry.kind == Kind::Refund { entry.amount <= amount } else { entry.amount == amount };
            ref_n < entry.n && key == capture.as_bytes() && amount_holds && account == entry.account
        });
        let (ok, failed) = ("an earlier capture of the same payment, account and amount", "not a capture that it fits");
        checks.test("reference", holds, format!("entry {ref_n}: {ok}"), format!("entry {ref_n}: {failed}"));
        Ok(())
    }
}

/// What stands for target and evidence in the chain is theirs.
fn digests(entry: &Entry<'_>, checks: &mut Checks) {
    match (entry.target, entry.target_salt, entry.target_digest) {
        (None, _, None) => checks.skip("target", "the entry has none"),
        (None, None, Some(_)) => checks.skip("target", "dropped by retention"),
        (column, Some(salt), Some(digest)) => match targets::whole(column, entry.evidence) {
            None => checks.skip("target", "only its digest is kept"),
            Some(target) => {
                let holds = chain::target_digest(salt, &target) == digest;
                checks.test("target", holds, "its digest holds", "its digest is that of another target");
            }
        },
        (Some(_), ..) => checks.test("target", false, "", "salt or digest is missing"),
    }
    match (entry.evidence, entry.evidence_digest) {
        (None, None) => {}
        (None, Some(_)) => checks.skip("evidence", "dropped by retention"),
        (Some(evidence), digest) => {
            let holds = digest == Some(&chain::evidence_digest(evidence)[..]);
            checks.test("evidence", holds, "its digest holds", "its digest is that of other evidence");
        }
    }
}

/// The resource of a target as the books name it: `https://shop.example/a?b`, for MCP `…#tool/add;sha256=…`.
struct Booked {
    authority: String,
    path: String,
    query: Option<String>,
    tool: String,
}

impl Booked {
    fn parse(target: &str) -> Option<Booked> {
        let (url, call) = target.split_once('#').map_or((target, None), |(url, call)| (url, Some(call)));
        let (_, rest) = url.split_once("://")?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query.to_owned())));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let tool = call.map_or("", |call| call.rsplit_once(";sha256=").map_or(call, |(tool, _)| tool));
        Some(Booked { authority: authority.to_owned(), path: path.to_owned(), query, tool: unescaped(tool)? })
    }

    fn resource<'a>(&'a self, method: &'a str) -> crate::payment::id::Resource<'a> {
        crate::payment::id::Resource {
            method,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref().unwrap_or(""),
            tool: &self.tool,
        }
    }
}

/// `%20` and the like as bytes of UTF-8; `None` for what is no such text.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart_as_they_were_booked() {
        let parts = |target| Booked::parse(target).map(|b| (b.authority, b.path, b.query, b.tool));
        let text = |text: &str| text.to_owned();
        let plain = (text("a.example:8402"), text("/p"), Some(text("q=?x")), text(""));
        assert_eq!(parts("https://a.example:8402/p?q=?x"), Some(plain));
        let call = (text("a.example"), text("/mcp"), None, text("tool/a b%"));
        assert_eq!(parts("http://a.example/mcp#tool/a%20b%25;sha256=AAAA"), Some(call));
        for wrong in ["", "/p", "http://a/#%2", "http://a/#%zz", "http://a/#%ff"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
