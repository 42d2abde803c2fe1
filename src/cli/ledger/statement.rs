//! `tollgate ledger statement`

mod html;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::export::quoted;
use super::settle::{span, to_json};
use super::{Failure, LedgerReader, Where, amount, hex, in_full, money, owner, symbol, time};
use crate::agent::offer::shortened;
use crate::cli::Exit;
use crate::cli::output::{Paint, error, note, say, table};
use crate::config::{Config, Operator};
use crate::ledger::day::day_text;
use crate::ledger::statements::{StatementLine, StatementSheet, StatementState};
use crate::wire::amount::Asset;

/// Show a statement in full, write it as a document, or note what became of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Names and addresses come from the configuration ([operator], and `address` of the account): name it with -c. The HTML page
stands by itself and prints well.

Examples:
  tollgate ledger statement 3
  tollgate ledger statement 3 -c tollgate.toml --format html -o statement-3.html
  tollgate ledger statement 3 --format csv -o statement-3.csv
  tollgate ledger statement 3 --mark sent --reason \"by mail to billing@example.com\"
  tollgate ledger statement 3 --mark paid --reason \"bank transfer of 2026-12-09\"

A statement is closed, then sent, then paid or disputed; a disputed one is sent again or paid. A running gateway is told
through its socket beside the ledger; without one the ledger is opened here.

CSV (RFC 4180): statement, account, kind (capture, void, refund), day, route, count, amount, units, asset, symbol, schema;
the sum of `units` is the total. JSON: an object of the form tollgate.statement/1, as `tollgate settle --json` prints it, and
  zone, operator, address, signer       where days begin; who sells, who owes; thumbprint of the key that signed the close
  lines, correction_lines               lists of {kind, day, route, count, amount, units}
  events                                list of {state, at, reason}, oldest first")]
pub struct StatementCommand {
    #[command(flatten)]
    place: Where,
    /// Which.
    #[arg(value_name = "NUMBER")]
    number: i64,
    /// What to print.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The file to make; it must not exist yet.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Note what became of it.
    #[arg(long, value_enum, requires = "reason", conflicts_with_all = ["format", "output"])]
    mark: Option<MarkAs>,
    /// Why, for whoever reads the books later.
    #[arg(long, value_name = "TEXT", value_parser = super::line, requires = "mark")]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MarkAs {
    /// The account has it.
    Sent,
    /// Paid.
    Paid,
    /// The account contests it.
    Disputed,
}

impl MarkAs {
    fn state(self) -> StatementState {
        match self {
            MarkAs::Sent => StatementState::Sent,
            MarkAs::Paid => StatementState::Paid,
            MarkAs::Disputed => StatementState::Disputed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Csv,
    Html,
}

/// Everything that a document says.
struct Document {
    sheet: StatementSheet,
    zone: String,
    operator: Operator,
    /// Of the account.
    address: Option<String>,
}

impl StatementCommand {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (ledger, config) = self.place.location_and_config()?;
        let reader = LedgerReader::open(&ledger).map_err(Failure::Open)?;
        let Some(sheet) = reader.statement(self.number)? else {
            error(format_args!("no statement {}; `tollgate ledger statements` lists them", self.number));
            return Ok(Exit::NotFound);
        };
        if let Some(mark) = self.mark {
            let (number, state) = (self.number, mark.state().name());
            let order = json!({"do": "mark", "number": number, "state": state, "reason": self.reason});
            return Ok(match owner::order(&ledger, &reader.zone()?, None, &order) {
                Ok(_) => {
                    say(&format!("statement {number} is {state}\n"));
                    Exit::Done
                }
                Err(reason) => {
                    error(reason);
                    Exit::Failed
                }
            });
        }
        let document = Document::new(sheet, reader.zone()?, config.as_ref());
        let text = match self.format {
            Format::Text => document.text(if self.output.is_some() { Paint(false) } else { Paint::stdout() }),
            Format::Json => format!("{:#}\n", document.json()),
            Format::Csv => document.csv(),
            Format::Html => html::page(&document),
        };
        let Some(path) = &self.output else {
            say(&text);
            return Ok(Exit::Done);
        };
        let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(failure) = written {
            error(format_args!("{} can't be made: {failure}", path.display()));
            return Ok(Exit::Failed);
        }
        note(&format!("{}: statement {}", path.display(), self.number));
        Ok(Exit::Done)
    }
}

impl Document {
    fn new(sheet: StatementSheet, zone: String, config: Option<&Config>) -> Document {
        let mut operator = config.map(|config| config.operator.clone()).unwrap_or_default();
        // A shop that gives no name is known by its host.
        let host = |config: &Config| Some(config.server.public_url.as_ref()?.authority.to_string());
        operator.name = operator.name.or_else(|| config.and_then(host));
        let name = &sheet.statement.account;
        let account = config.and_then(|config| config.accounts.iter().find(|account| *account.name == **name));
        let address = account.and_then(|account| account.address.clone());
        Document { sheet, zone, operator, address }
    }

    /// Captures, then corrections.
    fn lines(&self) -> impl Iterator<Item = &StatementLine> {
        self.sheet.captures.iter().chain(&self.sheet.corrections)
    }

    /// The days, and whose.
    fn period(&self) -> String {
        let statement = &self.sheet.statement;
        format!("{}, days of {}", span(statement.from_day, statement.until), self.zone)
    }

    /// What the total is: owed, or moved already.
    fn total_label(&self) -> &'static str {
        match (self.is_paid_from_the_start(), self.sheet.statement.total) {
            (true, _) if self.sheet.statement.asset == Asset::REQUESTS => "Given without charge",
            (true, _) if self.sheet.statement.asset.starts_with("prepaid:") => "Taken from the balance",
            (true, _) => "Settled on chain",
            (false, ..0) => "In your favour",
            (false, _) => "Total due",
        }
    }

    /// Paid from the start: money moved when it was bought.
    fn is_paid_from_the_start(&self) -> bool {
        let states: Vec<StatementState> = self.sheet.events.iter().map(|event| event.state).collect();
        states.starts_with(&[StatementState::Closed, StatementState::Paid])
    }

    fn signer(&self) -> Option<String> {
        self.sheet.signer.map(|thumbprint| URL_SAFE_NO_PAD.encode(thumbprint))
    }

    fn text(&self, paint: Paint) -> String {
        let statement = &self.sheet.statement;
        let asset = &*statement.asset;
        let mut out = String::new();
        let mut line = |name: &str, text: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{} {}", paint.bold(&format!("{name:<12}")), text.replace('\n', "\n             "));
        };
        line("statement", &format!("{}  {}", statement.number, statement.state.name()));
        let party = [&self.operator.name, &self.operator.address, &self.operator.email];
        let party: Vec<&str> = party.into_iter().flatten().map(String::as_str).collect();
        if !party.is_empty() {
            line("from", &party.join("\n"));
        }
        let address = self.address.as_ref().map_or_else(String::new, |address| format!("\n{address}"));
        line("for", &format!("{}{address}", shortened(&statement.account)));
        line("period", &self.period());
        line("closed", &time(statement.closed_ms));
        let mut cells = Vec::new();
        for item in self.lines() {
            let what = [day_text(item.day), shortened(&item.route), format!("{} {}", item.count, name(item))];
            cells.push(what.into_iter().chain([money(item.amount, asset)]).collect());
        }
        let of = |label: &str, units| vec![label.to_owned(), String::new(), String::new(), money(units, asset)];
        cells.push(of("gross", statement.gross));
        cells.push(of("corrections", -statement.corrections));
        cells.push(of(&self.total_label().to_lowercase(), statement.total));
        let full = in_full(asset);
        line("lines", &format!("\n{}", table(&cells).trim_end()));
        if !full.is_empty() {
            line("asset", asset);
        }
        line("head", &hex(&statement.head));
        line("signed by", self.signer().as_deref().unwrap_or("nobody: the gateway had no key of its own"));
        for event in &self.sheet.events {
            let reason = event.reason.as_deref().map_or_else(String::new, |reason| format!("  {}", shortened(reason)));
            line(event.state.name(), &format!("{}{reason}", time(event.at_ms)));
        }
        out
    }

    fn json(&self) -> Value {
        let statement = &self.sheet.statement;
        let asset = &*statement.asset;
        let line = |line: &StatementLine| {
            json!({"kind": line.kind.name(), "day": day_text(line.day), "route": line.route, "count": line.count,
                "amount": amount(line.amount, asset), "units": line.amount.to_string()})
        };
        let lines = |lines: &[StatementLine]| lines.iter().map(line).collect::<Vec<_>>();
        let events = self
            .sheet
            .events
            .iter()
            .map(|event| json!({"state": event.state.name(), "at": time(event.at_ms), "reason": event.reason}));
        let operator = &self.operator;
        let mut value = to_json(statement);
        for (name, member) in [
            ("closed_at", json!(time(statement.closed_ms))),
            ("zone", json!(self.zone)),
            ("operator", json!({"name": operator.name, "address": operator.address, "email": operator.email})),
            ("address", json!(self.address)),
            ("signer", json!(self.signer())),
            ("lines", json!(lines(&self.sheet.captures))),
            ("correction_lines", json!(lines(&self.sheet.corrections))),
            ("events", json!(events.collect::<Vec<_>>())),
        ] {
            value[name] = member;
        }
        value
    }

    fn csv(&self) -> String {
        let statement = &self.sheet.statement;
        let mut out = "statement,account,kind,day,route,count,amount,units,asset,symbol,schema\r\n".to_owned();
        for line in self.lines() {
            let fields = [
                statement.number.to_string(),
                statement.account.clone(),
                line.kind.name().to_owned(),
                day_text(line.day),
                line.route.clone(),
                line.count.to_string(),
                amount(line.amount, &statement.asset).unwrap_or_default(),
                line.amount.to_string(),
                statement.asset.clone(),
                symbol(&statement.asset).unwrap_or_default().to_owned(),
                "tollgate.statement/1".to_owned(),
            ];
            out += &fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",");
            out += "\r\n";
        }
        out
    }
}

/// What a line counts: `2 captures`.
fn name(line: &StatementLine) -> String {
    let plural = if line.count == 1 { "" } else { "s" };
    format!("{}{plural}", line.kind.name())
}
