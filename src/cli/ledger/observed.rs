//! `tollgate ledger observed`

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::{Failure, Span, Where, amount, money, symbol};
use crate::agent::offer::shortened;
use crate::cli::Exit;
use crate::cli::output::{Paint, counted, note, say, table};
use crate::ledger::day::day_text;
use crate::ledger::observation::Would;
use crate::ledger::observed::Line;

/// What routes with mode = "observe" would have earned, and whom they would have refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nobody has paid any of it. Who carried no payment would have been ASKED for one; what they would have paid if each of them
had is an upper bound, and most would have gone away. Who carried one that holds would have PAID, as far as the request
itself shows it: credit that is used up, a payment sent twice and a wallet without money are not seen. Only answers that
would have been charged count in sums. A sum is of one asset; AGENT is proven where it is a URL, or the network of wallets,
else the crawler that the User-Agent names, or `other`.

Examples:
  tollgate ledger observed                                       per day, route and agent
  tollgate ledger observed --by route --since 2026-11-01
  tollgate ledger observed --by agent --route articles --json

With --json each line is an object of the form tollgate.observed/1:
  schema         tollgate.observed/1
  by             {\"day\": \"2026-11-24\", \"route\": \"articles\", \"agent\": \"gptbot\"}
  asset          USD, or a token's CAIP-19 name;  symbol: USDC, or null
  requests       all of them: asked + paid + refused + unjudged (no verdict came in time)
  refusals       {\"invalid_signature\": 2}: the refused by reason (docs/reasons.md)
  would_earn, asked_for                 decimal text, or null for tokens that are not known
  would_earn_units, asked_for_units     as text, in 10^-6 of the currency or 10^-decimals of a token")]
pub struct ObservedCommand {
    #[command(flatten)]
    place: Where,
    /// What each line is about.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "day,route,agent")]
    by: Vec<ByName>,
    #[command(flatten)]
    span: Span,
    /// Of this route only.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ByName {
    /// Book days.
    Day,
    /// What would have been sold.
    Route,
    /// Who asked.
    Agent,
    /// Who would have owed it.
    Account,
    /// How it would have been paid; empty where nothing was presented.
    Scheme,
}

impl ByName {
    fn name(self) -> &'static str {
        match self {
            ByName::Day => "day",
            ByName::Route => "route",
            ByName::Agent => "agent",
            ByName::Account => "account",
            ByName::Scheme => "scheme",
        }
    }

    fn of(self, line: &Line) -> String {
        match self {
            ByName::Day => day_text(line.book_day),
            ByName::Route => line.route.clone(),
            ByName::Agent => line.agent.clone(),
            ByName::Account => line.account.clone(),
            ByName::Scheme => match line.would() {
                Would::Ask => String::new(),
                Would::Pay(scheme) | Would::Unjudged(scheme) | Would::Refuse { scheme, .. } => scheme.to_owned(),
            },
        }
    }
}

/// Sums of one group in one asset.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    asked: i64,
    paid: i64,
    unjudged: i64,
    refusals: BTreeMap<String, i64>,
    asked_for: i64,
    would_earn: i64,
}

impl Sums {
    fn add(&mut self, line: &Line) {
        let (requests, units) = (line.sum.requests, line.sum.would_be);
        let more = |sum: &mut i64, more: i64| *sum = sum.saturating_add(more);
        match line.would() {
            Would::Ask => {
                more(&mut self.asked, requests);
                more(&mut self.asked_for, units);
            }
            Would::Pay(_) => {
                more(&mut self.paid, requests);
                more(&mut self.would_earn, units);
            }
            Would::Unjudged(_) => more(&mut self.unjudged, requests),
            Would::Refuse { reason, .. } => more(self.refusals.entry(reason.to_owned()).or_default(), requests),
        }
    }

    fn refused(&self) -> i64 {
        self.refusals.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn requests(&self) -> i64 {
        [self.asked, self.paid, self.unjudged].iter().fold(self.refused(), |sum, count| sum.saturating_add(*count))
    }

    /// `2 invalid_signature, 1 key_unknown`: the most frequent first.
    fn why(&self) -> String {
        let mut reasons: Vec<_> = self.refusals.iter().collect();
        reasons.sort_by_key(|(reason, count)| (-**count, reason.as_str()));
        let mut parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        if self.unjudged > 0 {
            parts.push(format!("{} without a verdict", self.unjudged));
        }
        parts.join(", ")
    }
}

impl ObservedCommand {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let reader = self.place.open()?;
        let mut groups: BTreeMap<(Vec<String>, String), Sums> = BTreeMap::new();
        for line in reader.observed(self.span.days(), self.route.as_deref())? {
            let group = self.by.iter().map(|by| by.of(&line)).collect();
            groups.entry((group, line.asset.clone())).or_default().add(&line);
        }
        if self.json {
            let lines = groups.iter().map(|((group, asset), sums)| format!("{}\n", self.line_json(group, asset, sums)));
            say(&lines.collect::<String>());
            return Ok(Exit::Done);
        }
        let zone = reader.zone()?;
        if groups.is_empty() {
            note(&format!("nothing was observed: {}", self.span.text(&zone)));
            return Ok(Exit::Done);
        }
        let header = ["REQUESTS", "ASKED", "PAID", "REFUSED", "WOULD EARN", "ASKED FOR, AT MOST", "WHY REFUSED"];
        let by = self.by.iter().map(|by| by.name().to_uppercase());
        let mut cells = vec![by.chain(header.map(str::to_owned)).collect::<Vec<_>>()];
        cells.extend(groups.iter().map(|((group, asset), sums)| {
            let shown = group.iter().map(|text| if text.is_empty() { "-".to_owned() } else { shortened(text) });
            let counts = [sums.requests(), sums.asked, sums.paid, sums.refused()].map(|count| count.to_string());
            let amounts = [money(sums.would_earn, asset), money(sums.asked_for, asset), sums.why()];
            shown.chain(counts).chain(amounts).collect()
        }));
        let text = table(&cells);
        let (header, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let requests = groups.values().fold(0_i64, |sum, sums| sum.saturating_add(sums.requests()));
        say(&format!(
            "{}: {}, nobody paid\n{}\n{rest}",
            self.span.text(&zone),
            counted(requests, "observed request", "observed requests"),
            Paint::stdout().bold(header)
        ));
        Ok(Exit::Done)
    }

    fn line_json(&self, group: &[String], asset: &str, sums: &Sums) -> Value {
        let by: Map<String, Value> =
            self.by.iter().zip(group).map(|(by, text)| (by.name().to_owned(), json!(text))).collect();
        json!({
            "schema": "tollgate.observed/1",
            "by": by,
            "asset": asset,
            "symbol": symbol(asset),
            "requests": sums.requests(),
            "asked": sums.asked,
            "paid": sums.paid,
            "refused": sums.refused(),
            "unjudged": sums.unjudged,
            "refusals": sums.refusals,
            "would_earn": amount(sums.would_earn, asset),
            "asked_for": amount(sums.asked_for, asset),
            "would_earn_units": sums.would_earn.to_string(),
            "asked_for_units": sums.asked_for.to_string(),
        })
    }
}
