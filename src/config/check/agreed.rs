//! What was agreed with single accounts: `[[accounts.prices]]`, `allowance`, `prepaid`.

use std::{collections::HashMap, sync::Arc};

use crate::{
    config::{
        Account, AgreedPrice, Allowance, Route, Scheme,
        read::Section,
        walk::{nearest, quote},
    },
    wire::amount::{Currency, Money, Units},
};

/// What an account may owe, or that it owes nothing because it has paid before.
pub(super) fn credit(section: &Section<'_>) -> Option<(Money, bool)> {
    match (section.text("credit"), section.text("prepaid")) {
        (Some(text), None) => Some((section.accept("credit", Money::parse(text))?, false)),
        (None, Some(text)) => {
            let currency = section.accept("prepaid", Currency::parse(text))?;
            Some((Money { units: Units::ZERO, currency }, true))
        }
        (Some(_), Some(_)) => {
            let help = "remove `credit` for an account that pays before it buys, `prepaid` for one that pays later";
            section.complain("prepaid", "an account has a balance or owes, not both", Some(help.to_owned()));
            None
        }
        // The walk has complained.
        (None, None) => None,
    }
}

/// Requests without charge; `Some(None)` where there are none.
pub(super) fn allowance(section: &Section<'_>) -> Option<Option<Allowance>> {
    let routes = section.texts("allowance_routes");
    let requests = section.count("allowance").and_then(|count| Units::new(i64::try_from(count).ok()?));
    match requests {
        Some(requests) if requests > Units::ZERO => {
            let routes = routes.into_iter().map(|(_, name)| Arc::from(name)).collect();
            Some(Some(Allowance { requests, routes }))
        }
        Some(_) if !routes.is_empty() => {
            let help = "write `allowance = 1000`, or remove it".to_owned();
            section.complain("allowance_routes", "there is no allowance", Some(help));
            None
        }
        requests => requests.map(|_| None),
    }
}

/// The prices that were agreed on.
pub(super) fn prices(section: &Section<'_>, currency: Currency) -> Option<Vec<AgreedPrice>> {
    let sections = section.list("prices");
    let mut seen: HashMap<&str, String> = HashMap::new();
    let prices: Vec<Option<AgreedPrice>> = sections
        .iter()
        .map(|section| {
            let names = section.texts("routes");
            for (path, name) in &names {
                if let Some(other) = seen.insert(*name, path.clone()) {
                    section.layers.clash(path, &other, "this route has a price of this account already", None);
                }
            }
            if names.is_empty() && section.has("routes") {
                section.complain("routes", "a price of nothing", Some("name routes by their `name`".to_owned()));
            }
            let price = match section.text("price")? {
                "free" => Money { units: Units::ZERO, currency },
                text => section.accept("price", Money::parse(text))?,
            };
            if price.currency != currency {
                let message = format!("the account counts in {currency}");
                section.complain("price", message, Some("write it in the same currency".to_owned()));
            }
            if price.units == Units::ZERO && section.text("price") != Some("free") {
                section.complain("price", "a price of nothing", Some("write `price = \"free\"`".to_owned()));
            }
            Some(AgreedPrice { routes: names.iter().map(|(_, name)| Arc::from(*name)).collect(), price })
        })
        .collect();
    prices.into_iter().collect()
}

/// Refuses what was agreed about routes that are not there, or can't be sold so.
pub(super) fn fits(root: &Section<'_>, routes: &mut [Route], accounts: &[Account]) {
    let complain = |path: &str, message: String, help: &str| root.layers.complain(path, message, Some(help.to_owned()));
    let find = |routes: &[Route], path: &str, name: &str| -> Option<usize> {
        let found = routes.iter().position(|route| &*route.name == name);
        match found.map(|index| &routes[index]) {
            None => {
                let near = nearest(name, routes.iter().filter(|route| route.price.is_some()).map(|route| &*route.name));
                let help = match near {
                    Some(near) => format!("did you mean `\"{near}\"`?"),
                    None => "write the `name` of a `[[routes]]` section".to_owned(),
                };
                complain(path, format!("no route has the name `{}`", quote(name)), &help);
            }
            Some(route) if route.price.is_none() => {
                complain(path, format!("everybody has the route `{name}` for free"), "remove it");
            }
            Some(route) if route.accept.iter().all(|scheme| scheme.is_token()) => {
                let help = "accept a scheme that is signed: \"deferred\", \"batch-settlement\" or \"crawl\"";
                complain(path, "a wallet's payment does not say whose it is".to_owned(), help);
            }
            Some(_) => return found,
        }
        None
    };
    for (index, account) in accounts.iter().enumerate() {
        for (at, name) in account.allowance.iter().flat_map(|allowance| &allowance.routes).enumerate() {
            find(routes, &format!("accounts[{index}].allowance_routes[{at}]"), name);
        }
        for (at, agreed) in account.prices.iter().enumerate() {
            let key = format!("accounts[{index}].prices[{at}]");
            for (of, name) in agreed.routes.iter().enumerate() {
                let Some(found) = find(routes, &format!("{key}.routes[{of}]"), name) else { continue };
                let route = &mut routes[found];
                route.has_agreed_prices = true;
                let path = format!("{key}.price");
                let price = agreed.price;
                match route.price {
                    _ if route.origin_price => {
                        complain(
                            &format!("{key}.routes[{of}]"),
                            format!("the origin names the price of `{name}`"),
                            "remove it",
                        );
                    }
                    Some(public) if public.currency != price.currency => {
                        complain(
                            &path,
                            format!("the route `{name}` counts in {}", public.currency),
                            "name routes of its currency",
                        );
                    }
                    Some(public) if public.units < price.units => {
                        let message = format!("the route `{name}` costs {public}, and offers say no more than that");
                        complain(&path, message, "write at most that; `[[routes.agents]]` can make it dearer for some");
                    }
                    _ if price.wire().millionths && route.accept.contains(&Scheme::BatchSettlement) => {
                        complain(&path, format!("`batch-settlement` can't express {price}"), "write it in whole cents");
                    }
                    _ => {}
                }
            }
        }
    }
}
