//! `tollgate ledger show`

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::list::{row_json, state};
use super::{Failure, Where, amount, decimal, delivery, hex, in_full, matters, money, settled, time};
use crate::agent::offer::shortened;
use crate::cli::Exit;
use crate::cli::output::{Paint, error, say};
use crate::ledger::day::BALANCE;
use crate::ledger::entry::Kind;
use crate::ledger::evidence::{Evidence, Proof};
use crate::ledger::read::Shown;
use crate::ledger::verify::signature_verifies;
use crate::wire::amount::{Asset, LEDGER_DECIMALS};

/// Show one entry in full, with what proves it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
ID is an entry's number, a payment's key in hex, or the id of its offer as it stands in `Payment`.

Examples:
  tollgate ledger show 281474976710657
  tollgate ledger show 281474976710657 --json | jq -r .evidence.signature_base
  tollgate ledger show 281474976710657 --json | jq .evidence.receipt      of a token payment")]
pub struct Show {
    #[command(flatten)]
    place: Where,
    /// Which entry.
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let Some(shown) = self.place.open()?.show(&self.id)? else {
            error(format_args!("no entry of this ledger is {}", shortened(&self.id)));
            return Ok(Exit::NotFound);
        };
        if self.json {
            say(&format!("{:#}\n", to_json(&shown)));
        } else {
            say(&to_text(&shown, Paint::stdout()));
        }
        Ok(Exit::Done)
    }
}

fn to_json(shown: &Shown) -> Value {
    let mut value = row_json(&shown.listed);
    let asset = &shown.listed.asset;
    let evidence = match &shown.evidence {
        None => Value::Null,
        Some(Err(error)) => json!({ "error": error.to_string() }),
        Some(Ok(Proof::Signed(evidence))) => json!({
            "offer_id": evidence.sealed_id.map(|id| URL_SAFE_NO_PAD.encode(id)),
            "template_digest": evidence.template_digest.map(|digest| hex(&digest)),
            "signature_base": String::from_utf8_lossy(&evidence.signature_base),
            "signature": STANDARD.encode(&evidence.signature),
            "thumbprint": evidence.thumbprint,
            "directory_digest": hex(&evidence.directory_digest),
            "verified_at": time(evidence.verified_ms.cast_signed()),
            "method": evidence.method,
            "target": evidence.target,
            "origin_status": evidence.origin_status,
            "verifies": signature_verifies(shown.jwk.as_deref(), evidence),
        }),
        Some(Ok(Proof::Settled(evidence))) => settled::to_json(evidence),
        Some(Ok(Proof::Noted(note))) => matters::note_json(note),
    };
    let more = [
        ("wall_at", json!(time(shown.wall_ms))),
        ("book_day", json!(book_day(shown.listed.book_day))),
        ("period", json!(shown.period)),
        ("agent_key", json!(shown.agent_key)),
        ("jwk", shown.jwk.as_deref().and_then(|jwk| serde_json::from_str(jwk).ok()).unwrap_or(Value::Null)),
        ("list_amount", json!(shown.list_amount.and_then(|units| amount(units, asset)))),
        ("table_hash", json!(shown.table_hash.as_deref().map(hex))),
        ("void", json!(shown.listed.fate.and_then(|fate| fate.void_n).map(|n| n.to_string()))),
        ("hash", json!(hex(&shown.hash))),
        ("refunds", matters::to_json(&shown.refunds, asset)),
        ("disputes", matters::to_json(&shown.disputes, asset)),
        ("evidence", evidence),
    ];
    for (name, member) in more {
        value[name] = member;
    }
    value
}

fn to_text(shown: &Shown, paint: Paint) -> String {
    let row = &shown.listed;
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{} {text}", paint.bold(&format!("{name:<12}")));
    };
    line("entry", &format!("{}  {}", row.n, row.kind.name()));
    let period = if shown.period == BALANCE { "without an end".to_owned() } else { shown.period.to_string() };
    line("time", &format!("{}  (book day {}, period {period})", time(row.at_ms), book_day(row.book_day)));
    if shown.wall_ms != row.at_ms {
        line("wall clock", &time(shown.wall_ms));
    }
    let listed = shown.list_amount.filter(|units| *units != row.amount);
    let listed = listed.map(|units| match Asset::parse(&row.asset) {
        // The currency is that of the route.
        Some(Asset::Requests) => format!("  (instead of {})", decimal(units, LEDGER_DECIMALS)),
        _ => format!("  (public price {})", money(units, &row.asset)),
    });
    line("amount", &format!("{}{}{}", money(row.amount, &row.asset), in_full(&row.asset), listed.unwrap_or_default()));
    line("account", &shortened(&row.account));
    if row.kind != Kind::Topup {
        line("agent", &shortened(&row.agent));
        line("scheme", &row.scheme);
        line("route", &shortened(&row.route));
    }
    if let Some(method) = &row.method {
        let target = row.target.as_deref().map_or_else(|| "(dropped)".to_owned(), visible);
        let status = row.status.map_or_else(String::new, |status| format!("  → {status}"));
        line("request", &format!("{method} {target}{status}"));
    }
    if let Some(capture) = row.ref_n {
        line("of entry", &capture.to_string());
    }
    if let Some(fate) = row.fate {
        let void = fate.void_n.map_or_else(String::new, |n| format!(" by entry {n}"));
        let lapsed = fate.lapsed_n.map_or_else(String::new, |n| format!(", lapsed by entry {n}"));
        line("state", &format!("{}{void}{lapsed}", state(row).unwrap_or_default()));
        let outcome = fate.outcome.map_or_else(
            || "not known".to_owned(),
            |outcome| format!("{}, {} bytes in {} ms", delivery(outcome.delivery), outcome.bytes, outcome.ms),
        );
        line("delivery", &outcome);
    }
    matters::to_text(shown, &mut line);
    line("payment key", &hex(row.payment.as_bytes()));
    if let Some(digest) = &shown.table_hash {
        line("price table", &hex(digest));
    }
    line("hash", &hex(&shown.hash));
    let key = match (&shown.agent_key, &shown.jwk) {
        (Some(thumbprint), Some(jwk)) => format!("{thumbprint}\n{:13}{}", "", visible(jwk)),
        (Some(thumbprint), None) => thumbprint.clone(),
        (None, _) => String::new(),
    };
    if !key.is_empty() {
        line("agent's key", &key);
    }
    match &shown.evidence {
        None => line("evidence", "none, or dropped by retention"),
        Some(Err(error)) => line("evidence", &error.to_string()),
        Some(Ok(Proof::Signed(evidence))) => signed(shown, evidence, &mut line),
        Some(Ok(Proof::Settled(evidence))) => settled::to_text(evidence, &mut line),
        Some(Ok(Proof::Noted(note))) => matters::note_text(note, &mut line),
    }
    out
}

/// The proof of a commitment, line by line.
fn signed(shown: &Shown, evidence: &Evidence, line: &mut impl FnMut(&str, &str)) {
    if let Some(id) = evidence.sealed_id {
        line("offer id", &URL_SAFE_NO_PAD.encode(id));
    }
    if let Some(digest) = evidence.template_digest {
        line("template", &hex(&digest));
    }
    line(
        "directory",
        &match evidence.directory_digest {
            [0, .., 0] if evidence.directory_digest == [0; 32] => "the key was pinned in the configuration".to_owned(),
            digest => hex(&digest),
        },
    );
    line("verified", &time(evidence.verified_ms.cast_signed()));
    line("signature", &STANDARD.encode(&evidence.signature));
    line(
        "checked now",
        match signature_verifies(shown.jwk.as_deref(), evidence) {
            Some(true) => "the signature verifies under the agent's key",
            Some(false) => "THE SIGNATURE DOES NOT VERIFY under the agent's key",
            None => "the key is not in this ledger",
        },
    );
    let base = visible(&String::from_utf8_lossy(&evidence.signature_base));
    line("signed text", &format!("\n{base}"));
}

/// `2026-11-24`
fn book_day(days: i64) -> String {
    let day = jiff::Timestamp::from_second(days.saturating_mul(86_400));
    day.map_or_else(|_| days.to_string(), |start| start.to_string()[..10].to_owned())
}

/// The whole text, with escapes for what could steer a terminal; line ends stay.
pub(super) fn visible(text: &str) -> String {
    let escape = |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}
