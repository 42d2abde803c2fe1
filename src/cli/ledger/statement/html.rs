//! A statement as a page: one file, no script, nothing from elsewhere, everything from the books escaped.

use super::Document;
use crate::cli::ledger::settle::span;
use crate::cli::ledger::{amount, hex, symbol, time};
use crate::ledger::day::day_text;
use crate::ledger::entry::Kind;
use crate::ledger::statements::{StatementEvent, StatementLine};

const STYLE: &str = include_str!("statement.css");

/// The page.
pub(super) fn page(document: &Document) -> String {
    let statement = &document.sheet.statement;
    let number = statement.number;
    let title = match &document.operator.name {
        Some(name) => format!("Statement {number} · {}", escape(name)),
        None => format!("Statement {number}"),
    };
    let state = statement.state.name();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<div class=\"operator\">{operator}</div>\n\
         <div class=\"number\"><h1>Statement {number}</h1><p class=\"state {state}\">{state}</p></div>\n</header>\n\
         <section class=\"facts\">\n{facts}</section>\n{lines}{totals}{corrections_note}{footer}</main>\n</body>\n</html>\n",
        operator = operator(document),
        facts = facts(document),
        lines = lines(document),
        totals = totals(document),
        corrections_note = corrections_note(document),
        footer = footer(document),
    )
}

fn operator(document: &Document) -> String {
    let operator = &document.operator;
    let mut out = String::new();
    if let Some(name) = &operator.name {
        out += &format!("<p class=\"name\">{}</p>", escape(name));
    }
    if let Some(address) = &operator.address {
        out += &format!("<p>{}</p>", multiline(address));
    }
    if let Some(email) = &operator.email {
        out += &format!("<p>{}</p>", escape(email));
    }
    out
}

fn facts(document: &Document) -> String {
    let statement = &document.sheet.statement;
    let address = document.address.as_ref().map_or_else(String::new, |a| format!("<br>{}", multiline(a)));
    let period = escape(&span(statement.from_day, statement.until));
    let fact = |name: &str, value: &str| format!("<div><h2>{name}</h2><p>{value}</p></div>\n");
    fact("For", &format!("<strong>{}</strong>{address}", escape(&statement.account)))
        + &fact("Period", &format!("{period}<br><small>days of {}</small>", escape(&document.zone)))
        + &fact("Closed", &format!("{}<br><small>UTC</small>", minute(statement.closed_ms)))
        + &fact(document.total_label(), &format!("<strong class=\"due\">{}</strong>", total(document)))
}

fn total(document: &Document) -> String {
    let statement = &document.sheet.statement;
    format!("{} {}", value(statement.total, &statement.asset), unit(&statement.asset))
}

fn lines(document: &Document) -> String {
    let statement = &document.sheet.statement;
    let unit = unit(&statement.asset);
    let mut out = format!(
        "<table class=\"lines\">\n<thead><tr><th>Day</th><th>Bought</th><th class=\"n\">Requests</th>\
         <th class=\"n\">{unit}</th></tr></thead>\n"
    );
    let column = Column::of(document);
    out += &body(&document.sheet.captures, &column);
    if !document.sheet.corrections.is_empty() {
        out += "<tbody><tr class=\"part\"><th colspan=\"4\">Corrections</th></tr></tbody>\n";
        out += &body(&document.sheet.corrections, &column);
    }
    out + "</table>\n"
}

/// The rows of some lines; a day is said once.
fn body(lines: &[StatementLine], column: &Column<'_>) -> String {
    let mut out = String::from("<tbody>\n");
    let mut day = None;
    for line in lines {
        let is_new = day.replace(line.day) != Some(line.day);
        let shown = if is_new { day_text(line.day) } else { String::new() };
        let class = if is_new { " class=\"day\"" } else { "" };
        let kind = match line.kind {
            Kind::Void => "<small>void</small> ",
            Kind::Refund => "<small>refund</small> ",
            _ => "",
        };
        out += &format!(
            "<tr{class}><td>{shown}</td><td>{kind}{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
            escape(&line.route),
            line.count,
            column.value(line.amount)
        );
    }
    out + "</tbody>\n"
}

fn totals(document: &Document) -> String {
    let (statement, column) = (&document.sheet.statement, Column::of(document));
    let row = |class: &str, name: &str, units: i64| {
        format!("<tr class=\"{class}\"><th>{name}</th><td class=\"n\">{}</td></tr>\n", column.value(units))
    };
    let label = format!("{}, {}", document.total_label(), unit(&statement.asset));
    "<table class=\"totals\">\n<tbody>\n".to_owned()
        + &row("", "Gross", statement.gross)
        + &row("", "Corrections", -statement.corrections)
        + &row("total", &label, statement.total)
        + "</tbody>\n</table>\n"
}

fn corrections_note(document: &Document) -> String {
    if document.sheet.corrections.is_empty() {
        return String::new();
    }
    "<p class=\"note\">Corrections were posted in this period; what they give back may have been bought, and stated, \
     before it.</p>\n"
        .to_owned()
}

fn footer(document: &Document) -> String {
    let statement = &document.sheet.statement;
    let mut out = String::from("<footer>\n<table class=\"proof\">\n<tbody>\n");
    let mut row = |name: &str, value: &str| out += &format!("<tr><th>{name}</th><td>{value}</td></tr>\n");
    if symbol(&statement.asset).is_some() {
        row("Asset", &format!("<code>{}</code>", escape(&statement.asset)));
    }
    row("Head of the ledger’s chain", &format!("<code>{}</code>", hex(&statement.head)));
    match document.signer() {
        Some(signer) => row("Closed under the key", &format!("<code>{signer}</code>")),
        None => row("Closed under the key", "none: the gateway had no key of its own"),
    }
    row("History", &document.sheet.events.iter().map(event).collect::<Vec<_>>().join("<br>"));
    out + "</tbody>\n</table>\n</footer>\n"
}

fn event(event: &StatementEvent) -> String {
    let reason = event.reason.as_deref().map_or_else(String::new, |reason| format!(": {}", multiline(reason)));
    format!("{} UTC, {}{reason}", minute(event.at_ms), event.state.name())
}

/// Amounts below each other: all with as many decimals as the one that has most.
struct Column<'d> {
    asset: &'d str,
    decimals: usize,
}

impl Column<'_> {
    fn of(document: &Document) -> Column<'_> {
        let (statement, lines) = (&document.sheet.statement, document.lines());
        let asset = &*statement.asset;
        let units = lines.map(|line| line.amount).chain([statement.gross, statement.corrections, statement.total]);
        Column { asset, decimals: units.map(|units| decimals(&value(units, asset))).max().unwrap_or(0) }
    }

    fn value(&self, units: i64) -> String {
        let text = value(units, self.asset);
        let missing = self.decimals - decimals(&text).min(self.decimals);
        text + &"0".repeat(missing)
    }
}

fn decimals(text: &str) -> usize {
    text.split_once('.').map_or(0, |(_, decimals)| decimals.len())
}

/// Decimal text; units where decimals are not known.
fn value(units: i64, asset: &str) -> String {
    amount(units, asset).unwrap_or_else(|| units.to_string()).replace('-', "−")
}

/// What a column of amounts is of.
fn unit(asset: &str) -> String {
    match (symbol(asset), amount(0, asset)) {
        (Some(symbol), _) => escape(symbol),
        (None, Some(_)) => escape(asset),
        (None, None) => format!("units of {}", escape(asset)),
    }
}

/// `2026-12-01 08:15`
fn minute(ms: i64) -> String {
    time(ms).get(..16).map_or_else(|| time(ms), |text| text.replace('T', " "))
}

fn multiline(text: &str) -> String {
    escape(text).replace('\n', "<br>")
}

/// Text that no browser takes for markup; control characters are dropped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control() || *c == '\n') {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_that_is_escaped_is_markup(text: String) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            let bare = escaped.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").replace("&quot;", "");
            prop_assert!(!bare.replace("&#39;", "").contains('&'));
        }
    }
}
