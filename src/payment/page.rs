//! An offer for people: what a browser shows where a page has a price. It stands for itself, without script and without
//! anything from elsewhere, and everything in it that comes from a request or a configuration is escaped.

use std::fmt::Write as _;

use serde_json::Value;

use super::offer::{PreparedOffer, Way};
use super::pieces::Filling;

const STYLE: &str = include_str!("page.css");

/// What browsers may do with the page: show it.
pub const SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page says besides the offer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Words<'a> {
    /// `An article`
    pub description: Option<&'a str>,
    /// `Example GmbH`
    pub seller: &'a str,
    /// `billing@example.com`
    pub email: Option<&'a str>,
    /// Where the terms stand.
    pub terms_url: Option<&'a str>,
    /// Where agents get an account.
    pub registration_url: Option<&'a str>,
    /// What it costs, where that is another price than the route's: `USD 0.02`.
    pub price: Option<&'a str>,
}

/// The page.
pub fn page(offer: &PreparedOffer, filling: &Filling<'_>, words: &Words<'_>) -> String {
    let price = words.price.map_or_else(|| offer.price.to_string(), str::to_owned);
    let title = escaped(words.description.unwrap_or("This page has a price"));
    let (resource, seller) = (escaped(filling.resource), escaped(words.seller));
    let contact = words.email.map_or_else(String::new, |email| {
        let email = escaped(email);
        format!(" (<a href=\"mailto:{email}\">{email}</a>)")
    });
    let mut out = String::with_capacity(8 * 1024);
    // Writing to a string cannot fail.
    _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title} – {price}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<p class=\"kind\">402 Payment Required</p>\n<h1>{title}</h1>\n<p class=\"url\">{resource}</p>\n\
         <p class=\"price\"><strong>{price}</strong> <span>for each request, sold by {seller}</span></p>\n\
         <p>This is sold to programs that pay by themselves, request by request. A browser can’t do that: to read it \
         here, ask {seller}{contact}.</p>\n<h2>How an agent pays</h2>\n<ul>\n",
        price = escaped(&price),
    );
    for way in ways(offer) {
        _ = writeln!(out, "<li>{way}</li>");
    }
    out.push_str("</ul>\n");
    let links = [("Terms", words.terms_url), ("Accounts for agents", words.registration_url)];
    let links = links.into_iter().filter_map(|(text, url)| Some((text, escaped(url?))));
    let links: Vec<String> = links.map(|(text, url)| format!("<a href=\"{url}\">{text}</a>")).collect();
    if !links.is_empty() {
        _ = writeln!(out, "<p>{}</p>", links.join(" · "));
    }
    if !offer.is_text() {
        let json = offer.json(filling);
        let pretty = serde_json::from_str::<Value>(&json).and_then(|value| serde_json::to_string_pretty(&value));
        let json = escaped(&pretty.unwrap_or(json));
        _ = write!(out, "<details>\n<summary>The offer, for machines</summary>\n<pre>{json}</pre>\n</details>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// A sentence for each way to pay, in HTML.
fn ways(offer: &PreparedOffer) -> Vec<String> {
    let mut ways: Vec<String> = offer.entries.iter().map(|entry| sentence(&entry.way)).collect();
    if offer.crawler_price().is_some() {
        ways.push(
            "Pay per crawl: a signed request with <code>crawler-max-price</code>; its account is billed later.".into(),
        );
    }
    ways
}

fn sentence(way: &Way) -> String {
    match way {
        Way::Deferred(_) => {
            "On credit: it signs the request (Web Bot Auth) with the offer’s id in <code>Payment</code>; its \
                             account is billed later (x402 <code>deferred</code>)."
                .to_owned()
        }
        Way::Batch(_) => {
            "On credit: it signs the request (Web Bot Auth) with the offer in <code>PAYMENT-SIGNATURE</code>; its \
                          account is billed later (x402 <code>batch-settlement</code>)."
                .to_owned()
        }
        Way::Exact(token) => format!(
            "From a wallet, at once: {} on <code>{}</code> (x402 <code>exact</code>).",
            escaped(&token.symbol),
            escaped(token.network.as_str())
        ),
        Way::Upto(token) => format!(
            "From a wallet, at once, at most the price: {} on <code>{}</code> (x402 <code>upto</code>).",
            escaped(&token.symbol),
            escaped(token.network.as_str())
        ),
        Way::Crawl => String::new(),
    }
}

/// Text as it may stand in HTML, also within quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}
