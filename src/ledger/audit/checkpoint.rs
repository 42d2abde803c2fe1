//! Where an audit was: kept in a file, so that it can go on, or that the next one sees whether history was rewritten.
//!
//! ```text
//! {"schema":"tollgate.audit/1","ledger":"hex 16","complete":true,"writers":[…],"digest":"hex 32"}
//! ```
//!
//! A writer has where its chain stood and what its entries had added up to. `digest` is SHA-256 over the text of the object
//! without it: it finds a file that is damaged, not one that somebody has made up. Whoever can write the ledger must not be
//! able to write the checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{hex, walked::Walked};
use crate::ledger::{
    chain::{self, Hash},
    rollup::{RollupKey, Rollups, Sums},
    witness::Subject,
};

const SCHEMA: &str = "tollgate.audit/1";

/// Where an audit was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Of which ledger.
    pub ledger_id: [u8; 16],
    /// The audit had ended, and nothing was wrong.
    pub complete: bool,
    /// Each writer's chain, as far as it was walked.
    pub walked: Vec<Walked>,
}

/// Why a file is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is something else.
    #[error("this is no checkpoint of an audit: {0}")]
    Form(String),
    /// Of a later version.
    #[error("its form is {0}, this version knows {SCHEMA}; run the newer version, or audit without it")]
    Newer(String),
    /// Its digest is another.
    #[error("it is damaged; audit without it")]
    Damaged,
}

impl Checkpoint {
    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut object = json!({
            "schema": SCHEMA,
            "ledger": hex(&self.ledger_id),
            "complete": self.complete,
            "writers": self.walked.iter().map(to_json).collect::<Vec<_>>(),
        });
        object["digest"] = json!(hex(&chain::evidence_digest(object.to_string().as_bytes())));
        format!("{object}\n")
    }

    /// Reads it.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
        let form = |what: &str| CheckpointError::Form(what.to_owned());
        let mut object: Value = serde_json::from_str(text).map_err(|error| form(&error.to_string()))?;
        match object["schema"].as_str() {
            Some(SCHEMA) => {}
            Some(other) if other.starts_with("tollgate.audit/") => {
                return Err(CheckpointError::Newer(other.to_owned()));
            }
            _ => return Err(form("expected an object with `schema`")),
        }
        let digest = object.as_object_mut().and_then(|object| object.remove("digest"));
        let computed = hex(&chain::evidence_digest(object.to_string().as_bytes()));
        if digest.as_ref().and_then(Value::as_str) != Some(&computed) {
            return Err(CheckpointError::Damaged);
        }
        let ledger_id =
            object["ledger"].as_str().and_then(unhex).ok_or_else(|| form("expected `ledger` to be 32 digits"))?;
        let complete = object["complete"].as_bool().ok_or_else(|| form("expected `complete` to be true or false"))?;
        let walked: Option<Vec<Walked>> =
            object["writers"].as_array().map_or(&[][..], |list| list).iter().map(from_json).collect();
        Ok(Checkpoint { ledger_id, complete, walked: walked.ok_or_else(|| form("a writer of it can't be read"))? })
    }
}

/// A chain's state as JSON.
pub(in crate::ledger) fn to_json(walked: &Walked) -> Value {
    let rollup = |(key, sums): (&RollupKey<String>, &Sums)| {
        json!([
            [key.book_day, key.account, key.agent, key.route, key.scheme, key.asset],
            [sums.captures, sums.captured, sums.voids, sums.voided, sums.refunds, sums.refunded],
        ])
    };
    let witness = |(of, digest): (&Subject, &Hash)| {
        let (of, a, b) = of.code();
        json!([of, a, b, hex(digest)])
    };
    let template = |(digest, n): (&Hash, &i64)| json!([hex(digest), n]);
    let used = walked.used.iter().map(|((account, asset, period), units)| json!([account, asset, period, units]));
    let mut state = json!({
        "slot": walked.slot,
        "batch": walked.batch_seq,
        "seq": walked.seq,
        "at_ms": walked.at_ms,
        "head": hex(&walked.head),
        "counts": [walked.entries, walked.captures, walked.voids, walked.dropped],
        "refunds": walked.refunds,
        "charged": walked.charged,
        "rollups": walked.rollups.iter().map(rollup).collect::<Vec<_>>(),
        "used": used.collect::<Vec<_>>(),
        "open": walked.open,
        "voided": walked.voided.iter().collect::<Vec<_>>(),
        "told": walked.told,
        "refunded": walked.refunded.iter().collect::<Vec<_>>(),
        "signers": walked.signers,
        "witnesses": walked.witnesses.iter().map(witness).collect::<Vec<_>>(),
    });
    // Left out where there are none: what earlier versions wrote stays as it was.
    if !walked.passes.is_empty() {
        state["passes"] = json!(walked.passes.iter().collect::<Vec<_>>());
    }
    if !walked.templates.is_empty() {
        state["templates"] = walked.templates.iter().map(template).collect();
    }
    state
}

/// Reads [`to_json`]; `None` for any other shape.
pub(in crate::ledger) fn from_json(value: &Value) -> Option<Walked> {
    let slot = value["slot"].as_i64()?;
    let mut rollups = Rollups::new();
    for row in value["rollups"].as_array()? {
        let (key, sums) = rollup(row, slot)?;
        rollups.put(key, sums);
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let use_row = |row: &Value| Some(((text(&row[0])?, text(&row[1])?, row[2].as_i64()?), row[3].as_i64()?));
    let used: Option<BTreeMap<_, _>> = value["used"].as_array()?.iter().map(use_row).collect();
    let signer = |pair: &Value| Some((text(&pair[0])?, text(&pair[1])?));
    let signers: Option<BTreeSet<_>> = value["signers"].as_array()?.iter().map(signer).collect();
    let witness = |row: &Value| {
        let of = Subject::from_code(row[0].as_u64()?.try_into().ok()?, row[1].as_i64()?, row[2].as_i64()?)?;
        Some((of, row[3].as_str().and_then(unhex)?))
    };
    // Before layout 3 there were none, and they were not written down.
    let none = Vec::new();
    let witnesses = value.get("witnesses").map_or(Some(&none), Value::as_array)?;
    let witnesses: Option<BTreeMap<_, _>> = witnesses.iter().map(witness).collect();
    let templates = value.get("templates").map_or(Some(&none), Value::as_array)?;
    let template = |row: &Value| Some((row[0].as_str().and_then(unhex)?, row[1].as_i64()?));
    let templates: Option<BTreeMap<_, _>> = templates.iter().map(template).collect();
    let charge = |(asset, units): (&String, &Value)| Some((asset.clone(), units.as_i64()?));
    let charged: Option<BTreeMap<_, _>> = value["charged"].as_object()?.iter().map(charge).collect();
    let counts = &value["counts"];
    Some(Walked {
        slot,
        batch_seq: value["batch"].as_i64()?,
        seq: value["seq"].as_i64()?,
        at_ms: value["at_ms"].as_i64()?,
        head: value["head"].as_str().and_then(unhex)?,
        entries: counts[0].as_u64()?,
        captures: counts[1].as_u64()?,
        voids: counts[2].as_u64()?,
        dropped: counts[3].as_u64()?,
        refunds: value["refunds"].as_i64()?,
        charged: charged?,
        rollups,
        used: used?,
        open: numbers(&value["open"])?,
        voided: pairs(&value["voided"])?,
        told: numbers(&value["told"])?,
        refunded: pairs(&value["refunded"])?,
        signers: signers?,
        passes: value.get("passes").map_or_else(|| Some(BTreeMap::new()), pairs)?,
        templates: templates?,
        witnesses: witnesses?,
    })
}

fn rollup(row: &Value, slot: i64) -> Option<(RollupKey<String>, Sums)> {
    let (key, sums) = (&row[0], &row[1]);
    let text = |i: usize| key[i].as_str().map(str::to_owned);
    let number = |i: usize| sums[i].as_i64();
    let key = RollupKey {
        book_day: key[0].as_i64()?,
        account: text(1)?,
        agent: text(2)?,
        route: text(3)?,
        scheme: text(4)?,
        asset: text(5)?,
        slot,
    };
    let [captures, captured, voids] = [number(0)?, number(1)?, number(2)?];
    let [voided, refunds, refunded] = [number(3)?, number(4)?, number(5)?];
    Some((key, Sums { captures, captured, voids, voided, refunds, refunded }))
}

fn numbers(value: &Value) -> Option<BTreeSet<i64>> {
    value.as_array()?.iter().map(Value::as_i64).collect()
}

fn pairs(value: &Value) -> Option<BTreeMap<i64, i64>> {
    value.as_array()?.iter().map(|pair| Some((pair[0].as_i64()?, pair[1].as_i64()?))).collect()
}

/// Bytes of hex of exactly this length.
pub(in crate::ledger) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}
