//! The lines of an archive ↔ what they say.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Part, Referred};
use crate::ledger::{
    audit::checkpoint::{from_json, to_json, unhex},
    chain::{Batch, Hash},
    entry::{Entry, Kind, PostingKey},
};

/// A posting, with its own texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryLine {
    key: PostingKey,
    kind: Kind,
    numbers: [i64; 6],
    texts: [String; 5],
    agent_key: Option<String>,
    method: Option<String>,
    target: Option<String>,
    maybe: [Option<i64>; 3],
    bytes: [Option<Vec<u8>>; 5],
    /// Its link.
    pub hash: Hash,
}

impl EntryLine {
    /// The posting.
    pub fn entry(&self) -> Entry<'_> {
        let [n, at_ms, wall_ms, book_day, amount, period] = self.numbers;
        let [account, agent, route, scheme, asset] = self.texts.each_ref().map(String::as_str);
        let [list_amount, status, ref_n] = self.maybe;
        let [table_hash, target_salt, target_digest, evidence, evidence_digest] =
            self.bytes.each_ref().map(Option::as_deref);
        Entry {
            n,
            key: self.key,
            kind: self.kind,
            at_ms,
            wall_ms,
            book_day,
            account,
            agent,
            agent_key: self.agent_key.as_deref(),
            route,
            scheme,
            asset,
            amount,
            list_amount,
            period,
            table_hash,
            status,
            ref_n,
            method: self.method.as_deref(),
            target: self.target.as_deref(),
            target_salt,
            target_digest,
            evidence,
            evidence_digest,
        }
    }

    /// Reads [`entry`].
    pub fn parse(value: &Value) -> Option<EntryLine> {
        let number = |name: &str| value[name].as_i64();
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let bytes = |name: &str| match value.get(name)? {
            Value::Null => Some(None),
            other => Some(Some(unhex_any(other.as_str()?)?)),
        };
        let maybe = |name: &str| match value.get(name)? {
            Value::Null => Some(None),
            other => Some(Some(other.as_i64()?)),
        };
        let maybe_text = |name: &str| match value.get(name)? {
            Value::Null => Some(None),
            other => Some(Some(other.as_str()?.to_owned())),
        };
        let evidence = match value.get("evidence")? {
            Value::Null => None,
            other => Some(STANDARD.decode(other.as_str()?).ok()?),
        };
        let ref_n = match value.get("ref_n")? {
            Value::Null => None,
            other => Some(other.as_str()?.parse().ok()?),
        };
        Some(EntryLine {
            key: PostingKey::from_bytes(&unhex_any(value["key"].as_str()?)?)?,
            kind: Kind::from_number(number("kind")?)?,
            numbers: [
                value["n"].as_str()?.parse().ok()?,
                number("at_ms")?,
                number("wall_ms")?,
                number("book_day")?,
                number("amount")?,
                number("period")?,
            ],
            texts: [text("account")?, text("agent")?, text("route")?, text("scheme")?, text("asset")?],
            agent_key: maybe_text("agent_key")?,
            method: maybe_text("method")?,
            target: maybe_text("target")?,
            maybe: [maybe("list_amount")?, maybe("status")?, ref_n],
            bytes: [
                bytes("table_hash")?,
                bytes("target_salt")?,
                bytes("target_digest")?,
                evidence,
                bytes("evidence_digest")?,
            ],
            hash: unhex(value["hash"].as_str()?)?,
        })
    }
}

/// A posting as a line has it.
pub fn entry(entry: &Entry<'_>, hash: &Hash) -> Value {
    json!({"entry": {
        "n": entry.n.to_string(),
        "key": hex(entry.key.as_bytes()),
        "kind": entry.kind as i64,
        "at_ms": entry.at_ms,
        "wall_ms": entry.wall_ms,
        "book_day": entry.book_day,
        "account": entry.account,
        "agent": entry.agent,
        "agent_key": entry.agent_key,
        "route": entry.route,
        "scheme": entry.scheme,
        "asset": entry.asset,
        "amount": entry.amount,
        "list_amount": entry.list_amount,
        "period": entry.period,
        "table_hash": entry.table_hash.map(hex),
        "status": entry.status,
        "ref_n": entry.ref_n.map(|n| n.to_string()),
        "method": entry.method,
        "target": entry.target,
        "target_salt": entry.target_salt.map(hex),
        "target_digest": entry.target_digest.map(hex),
        "evidence": entry.evidence.map(|bytes| STANDARD.encode(bytes)),
        "evidence_digest": entry.evidence_digest.map(hex),
        "hash": hex(hash),
    }})
}

/// A batch as a line has it.
pub fn batch(batch: &Batch<'_>, head: &Hash) -> Value {
    json!({"batch": {
        "slot": batch.slot,
        "batch_seq": batch.batch_seq,
        "n_first": batch.n_first.map(|n| n.to_string()),
        "n_last": batch.n_last.map(|n| n.to_string()),
        "at_ms": batch.at_ms,
        "outcomes": batch.outcomes.map(hex),
        "head": hex(head),
    }})
}

/// A batch, with its own outcomes, and its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLine {
    slot: i64,
    batch_seq: i64,
    n_first: Option<i64>,
    n_last: Option<i64>,
    at_ms: i64,
    outcomes: Option<Vec<u8>>,
    /// Its link.
    pub head: Hash,
}

impl BatchLine {
    /// The batch.
    pub fn batch(&self) -> Batch<'_> {
        let BatchLine { slot, batch_seq, n_first, n_last, at_ms, .. } = *self;
        Batch { slot, batch_seq, n_first, n_last, at_ms, outcomes: self.outcomes.as_deref() }
    }

    /// Reads [`batch`].
    pub fn parse(value: &Value) -> Option<BatchLine> {
        let n = |name: &str| match value.get(name)? {
            Value::Null => Some(None),
            other => Some(Some(other.as_str()?.parse::<i64>().ok()?)),
        };
        let outcomes = match value.get("outcomes")? {
            Value::Null => None,
            other => Some(unhex_any(other.as_str()?)?),
        };
        Some(BatchLine {
            slot: value["slot"].as_i64()?,
            batch_seq: value["batch_seq"].as_i64()?,
            n_first: n("n_first")?,
            n_last: n("n_last")?,
            at_ms: value["at_ms"].as_i64()?,
            outcomes,
            head: unhex(value["head"].as_str()?)?,
        })
    }
}

/// What is in an archive of one writer.
pub fn part(part: &Part) -> Value {
    json!({
        "slot": part.slot,
        "first_batch": part.batches.0,
        "last_batch": part.batches.1,
        "first_seq": part.seqs.0,
        "last_seq": part.seqs.1,
        "at_ms": part.at_ms,
        "before": hex(&part.before),
        "after": hex(&part.after),
        "state": state(part),
    })
}

/// Reads [`part`].
pub fn parse_part(value: &Value) -> Option<Part> {
    let number = |name: &str| value[name].as_i64();
    let hash = |name: &str| value[name].as_str().and_then(unhex);
    let (state, referred) = parse_state(&value["state"])?;
    Some(Part {
        slot: number("slot")?,
        batches: (number("first_batch")?, number("last_batch")?),
        seqs: (number("first_seq")?, number("last_seq")?),
        at_ms: number("at_ms")?,
        before: hash("before")?,
        after: hash("after")?,
        state,
        referred,
    })
}

/// What the ledger keeps of a part: the column `state`.
pub fn state(part: &Part) -> Value {
    let referred = |posting: &Referred| {
        json!([
            posting.n.to_string(),
            hex(posting.key.as_bytes()),
            posting.amount,
            posting.list_amount,
            posting.scheme,
            posting.status
        ])
    };
    json!({"walked": to_json(&part.state), "referred": part.referred.iter().map(referred).collect::<Vec<_>>()})
}

/// Reads [`state`].
pub fn parse_state(value: &Value) -> Option<(crate::ledger::audit::Walked, Vec<Referred>)> {
    let maybe = |value: &Value| if value.is_null() { Some(None) } else { value.as_i64().map(Some) };
    let referred = |row: &Value| {
        Some(Referred {
            n: row[0].as_str()?.parse().ok()?,
            key: PostingKey::from_bytes(&unhex_any(row[1].as_str()?)?)?,
            amount: row[2].as_i64()?,
            list_amount: maybe(&row[3])?,
            scheme: row[4].as_str()?.to_owned(),
            status: maybe(&row[5])?,
        })
    };
    let walked = from_json(&value["walked"])?;
    Some((walked, value["referred"].as_array()?.iter().map(referred).collect::<Option<_>>()?))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex_any(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}
