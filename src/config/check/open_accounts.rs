//! `[open_accounts]`.

use super::super::{Account, AgentPattern, Identity, OpenAccounts, Period, read::Section};
use crate::wire::amount::Money;

/// `Some(None)` where there are none.
pub(super) fn open_accounts(
    section: &Section<'_>,
    identity: Option<&Identity>,
    accounts: Option<&[Account]>,
) -> Option<Option<OpenAccounts>> {
    let money = |key| section.text(key).map(|text| section.accept(key, Money::parse(text)));
    let (credit, total) = (money("credit"), money("total"));
    let (credit, total) = match (credit, total) {
        (None, None) => return Some(None),
        (Some(_), None) => {
            let help = "write `total = \"500 USD\"`: agents cost nothing to make".to_owned();
            section.complain("credit", "without `total`, all agents together could owe any amount", Some(help));
            return None;
        }
        (None, Some(_)) => {
            let help = "write `credit = \"5 USD\"`, what each of them may owe".to_owned();
            section.complain("total", "without `credit` there are no open accounts", Some(help));
            return None;
        }
        (Some(credit), Some(total)) => (credit?, total?),
    };
    if credit.currency != total.currency {
        let message = format!("`credit` is in {}, and `total` in {}", credit.currency, total.currency);
        section.complain("total", message, Some("write both in one currency".to_owned()));
        return None;
    }
    if total.units < credit.units {
        let message = format!("less than one account may owe: `credit` is {credit}");
        section.complain("total", message, None);
        return None;
    }
    if identity?.allow.is_empty() {
        let help = "name agents in `identity.allow`: \"https://*.example.com\", or \"any\"";
        let message = "nobody may open an account: `identity.allow` admits no agent";
        section.layers.warn(&section.at("credit"), message, help);
    }
    let takes_all = accounts?.iter().find(|account| account.agents.contains(&AgentPattern::Any));
    if let Some(account) = takes_all {
        let message = format!("no `https` agent opens an account: `{}` takes \"any\"", account.name);
        section.layers.warn(&section.at("credit"), message, "take `any` out of the account, or this section");
    }
    Some(Some(OpenAccounts {
        credit,
        total,
        period: match section.text("period") {
            Some("day") => Period::Day,
            _ => Period::Month,
        },
        new_per_day: u32::try_from(section.number("new_per_day")).unwrap_or(u32::MAX),
    }))
}
