//! `tollgate ledger export`

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use super::{Failure, Span, Where, amount, hex, symbol, time};
use crate::cli::Exit;
use crate::cli::output::{counted, error, note};
use crate::ledger::day::day_text;
use crate::ledger::entry::{Entry, Kind};
use crate::ledger::evidence::Note;
use crate::ledger::listing::step;
use crate::ledger::rollup;
use crate::wire::amount::Asset;

/// Entries between two looks at how far it is.
const PROGRESS_EVERY: u64 = 100_000;

/// Write postings out for other programs: CSV, JSON Lines, or lines for metered billing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Oldest first, in memory that does not grow with the ledger, of a running gateway too. Days are book days in the ledger's
time zone, times are UTC.

Formats, each stable: a later version may add columns at the end, or gets another name.
  csv       tollgate.postings/1, RFC 4180, with a header line
  jsonl     tollgate.postings/1, an object a line, the same members; null where a posting has none
  metered   a line a charge: {\"event_name\": \"tollgate.charge\", \"identifier\": KEY, \"timestamp\": Unix seconds,
            \"payload\": {\"customer\": ACCOUNT, \"value\": UNITS, \"asset\", \"route\"}}; and for each that was given back
            {\"event_name\": \"tollgate.charge\", \"type\": \"cancel\", \"cancel\": {\"identifier\": KEY}}; a refund is
            {\"event_name\": \"tollgate.refund\", \"identifier\": KEY/NUMBER, …} like a charge; one that
            failed has another line, KEY/NUMBER/failed, with a negative value. What was taken from a balance, an
            allowance or a pass is not in it

Columns:
  n, ref          the entry's number, and that of the capture that it is about
  kind            capture, void, refund, intent, failed, owed, topup, dispute, redelivered, lapsed, pass
  at, book_day    2026-11-24T12:00:00.000Z, 2026-11-24
  account, agent, route, scheme
  asset, symbol   USD, or a token's CAIP-19 name; USDC
  amount, units   of the posting: decimal (empty for tokens that are not known), and in 10^-6 of the currency or
                  10^-decimals (at most 9) of the token
  charge, charge_units   what it adds to the bill: a capture's amount, less for a void or refund, 0 for all else
  status, method, target, key
  state, reference   of a posting about a refund (sent, done, failed) or a dispute (open, upheld, rejected); of a topup paid_in or paid_back

Examples:
  tollgate ledger export --format csv --since 2026-11-01 --until 2026-12-01 -o november.csv
  tollgate ledger export --format jsonl | jq -s 'map(.charge_units | tonumber) | add'")]
pub struct Export {
    #[command(flatten)]
    place: Where,
    /// What to write.
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    #[command(flatten)]
    span: Span,
    /// Of this account only.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// A new file for it; default: standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
    Metered,
}

const COLUMNS: [&str; 22] = [
    "n",
    "ref",
    "kind",
    "at",
    "book_day",
    "account",
    "agent",
    "route",
    "scheme",
    "asset",
    "symbol",
    "amount",
    "units",
    "charge",
    "charge_units",
    "status",
    "method",
    "target",
    "key",
    "schema",
    "state",
    "reference",
];
const SCHEMA: &str = "tollgate.postings/1";

impl Export {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let reader = self.place.open()?;
        let out: Box<dyn Write> = match &self.output {
            None => Box::new(io::stdout().lock()),
            Some(path) => match File::create_new(path) {
                Ok(file) => Box::new(file),
                Err(failure) => {
                    error(format_args!("{} can't be made: {failure}", path.display()));
                    return Ok(Exit::Failed);
                }
            },
        };
        let mut out = BufWriter::with_capacity(256 * 1024, out);
        // A list that begins later than it was asked to must not look whole.
        if let Some(day) = reader.last_day_dropped()?
            && self.span.days().since <= day
        {
            note(&format!(
                "days up to {} are archived and not in the ledger any more, wholly or in part: they are missing here",
                day_text(day)
            ));
        }
        // Beside a file on a terminal, long work shows how far it is.
        let progress = self.output.is_some() && io::stderr().is_terminal();
        let total = if progress { reader.count(self.span.days())? } else { 0 };
        let mut written = self.header(&mut out);
        let (mut seen, mut lines) = (0_u64, 0_u64);
        reader.each(self.span.days(), |entry| {
            seen += 1;
            if progress && seen.is_multiple_of(PROGRESS_EVERY) {
                let _ = write!(io::stderr(), "\r{seen} of {total} entries");
            }
            if written.is_ok() && self.account.as_deref().is_none_or(|account| account == entry.account) {
                lines += 1;
                written = self.line(&mut out, entry);
            }
            written.is_ok()
        })?;
        let written = written.and_then(|()| out.flush());
        if progress && seen >= PROGRESS_EVERY {
            let _ = writeln!(io::stderr());
        }
        match (written, &self.output) {
            (Err(failure), Some(path)) => {
                error(format_args!("{}: {failure}; what is there is not whole", path.display()));
                return Ok(Exit::Failed);
            }
            // Whoever read has left.
            (Err(_), None) => return Ok(Exit::Failed),
            (Ok(()), Some(path)) => {
                let zone = reader.zone()?;
                note(&format!("{}: {}, {}", path.display(), counted(lines, "entry", "entries"), self.span.text(&zone)));
            }
            (Ok(()), None) => {}
        }
        Ok(Exit::Done)
    }

    fn header(&self, out: &mut impl Write) -> io::Result<()> {
        match self.format {
            Format::Csv => write!(out, "{}\r\n", COLUMNS.join(",")),
            Format::Jsonl | Format::Metered => Ok(()),
        }
    }

    fn line(&self, out: &mut impl Write, entry: &Entry<'_>) -> io::Result<()> {
        match self.format {
            Format::Csv => {
                for (i, value) in values(entry).iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(out, "{comma}{}", quoted(value.as_deref().unwrap_or_default()))?;
                }
                out.write_all(b"\r\n")
            }
            Format::Jsonl => {
                let members = COLUMNS.iter().zip(values(entry)).map(|(name, value)| ((*name).to_owned(), json!(value)));
                writeln!(out, "{}", serde_json::Value::Object(members.collect()))
            }
            // Paid before, or given without charge: nobody is billed for it.
            Format::Metered if Asset::parse(entry.asset).is_some_and(|asset| asset.is_paid_before()) => Ok(()),
            Format::Metered => {
                let identifier = hex(entry.key.payment().as_bytes());
                let line = match entry.kind {
                    Kind::Capture => json!({"event_name": "tollgate.charge", "identifier": identifier,
                        "timestamp": entry.at_ms / 1000, "payload": {"customer": entry.account,
                            "value": entry.amount.to_string(), "asset": entry.asset, "route": entry.route}}),
                    Kind::Void => json!({"event_name": "tollgate.charge", "type": "cancel",
                        "cancel": {"identifier": identifier}}),
                    Kind::Refund => {
                        let Some(change) = rollup::change(entry) else { return Ok(()) };
                        json!({"event_name": "tollgate.refund",
                            // Whoever bills by it takes each identifier once: the end of a refund has its own.
                            "identifier": match (entry.key.number() >> 8, entry.key.number() & 0xff) {
                                (refund, 0) => format!("{identifier}/{refund}"),
                                (refund, _) => format!("{identifier}/{refund}/failed"),
                            },
                            "timestamp": entry.at_ms / 1000, "payload": {"customer": entry.account,
                                "value": change.amount.to_string(), "asset": entry.asset, "route": entry.route}})
                    }
                    _ => return Ok(()),
                };
                writeln!(out, "{line}")
            }
        }
    }
}

/// The columns of a posting.
fn values(entry: &Entry<'_>) -> [Option<String>; 22] {
    let text = |text: &str| Some(text.to_owned());
    let charge = rollup::change(entry).map_or(0, |change| match change.kind {
        Kind::Capture => change.amount,
        _ => -change.amount,
    });
    let state = step(entry);
    let note = entry.evidence.filter(|_| state.is_some()).and_then(|bytes| Note::decode(bytes).ok());
    [
        Some(entry.n.to_string()),
        entry.ref_n.map(|n| n.to_string()),
        text(entry.kind.name()),
        Some(time(entry.at_ms)),
        Some(day_text(entry.book_day)),
        text(entry.account),
        text(entry.agent),
        text(entry.route),
        text(entry.scheme),
        text(entry.asset),
        symbol(entry.asset).map(str::to_owned),
        amount(entry.amount, entry.asset),
        Some(entry.amount.to_string()),
        amount(charge, entry.asset),
        Some(charge.to_string()),
        entry.status.filter(|_| state.is_none()).map(|status| status.to_string()),
        entry.method.map(str::to_owned),
        entry.target.map(str::to_owned),
        Some(hex(entry.key.payment().as_bytes())),
        text(SCHEMA),
        state.map(str::to_owned),
        note.and_then(|note| note.reference),
    ]
}

/// A field of CSV (RFC 4180). Spreadsheets take a leading `=`, `+`, `-` or `@` for a formula; negative numbers stay.
pub(super) fn quoted(value: &str) -> String {
    let is_formula = value.starts_with(['=', '+', '@', '-']) && value.parse::<f64>().is_err();
    let value = if is_formula { format!("'{value}") } else { value.to_owned() };
    if value.contains([',', '"', '\r', '\n']) { format!("\"{}\"", value.replace('"', "\"\"")) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_never_formulas() {
        for (value, expect) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("-0.01", "-0.01"),
            ("=cmd()", "'=cmd()"),
            ("-x", "'-x"),
            ("@a,b", "\"'@a,b\""),
        ] {
            assert_eq!(quoted(value), expect);
        }
    }
}
