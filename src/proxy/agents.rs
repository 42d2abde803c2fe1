//! Who asks: an agent, as far as it shows that it is one, a browser that opens a page, or anybody else.

use http::header::{self, HeaderMap, HeaderValue};

use crate::payment::presented::PAYMENT_FIELDS;
use crate::pricing::Crawlers;

/// Whether a request counts as an agent's: it carries a field of a payment or a signature, whatever is in it, the User-Agent
/// of a crawler, or none. Nothing that is wrong with such a field makes it anybody else's.
pub fn is_one(headers: &HeaderMap, crawlers: &Crawlers) -> bool {
    if headers.keys().any(|name| is_agents_field(name.as_str())) {
        return true;
    }
    let mut lines = headers.get_all(header::USER_AGENT).iter().map(HeaderValue::as_bytes).peekable();
    lines.peek().is_none() || lines.any(|line| line.trim_ascii().is_empty() || crawlers.are_named_in(line))
}

/// Whether a preflight asks about a field that only agents send.
pub fn is_announced(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|name| is_agents_field(&name.trim().to_ascii_lowercase()))
}

fn is_agents_field(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b's') => matches!(name, "signature" | "signature-input" | "signature-agent"),
        Some(b'p' | b'x') => PAYMENT_FIELDS.contains(&name),
        Some(b'c') => name.starts_with("crawler-"),
        _ => false,
    }
}

/// Whether a browser asks for a page to show: its `Accept` prefers HTML to JSON, its User-Agent is that of a browser, and
/// nothing shows that it is an agent.
pub fn is_browser(headers: &HeaderMap, crawlers: &Crawlers) -> bool {
    let is_mozilla = |line: &HeaderValue| line.as_bytes().starts_with(b"Mozilla/");
    prefers_html(headers) && headers.get(header::USER_AGENT).is_some_and(is_mozilla) && !is_one(headers, crawlers)
}

/// Whether `text/html` has a greater weight than `application/json`, or the same and stands before it (RFC 9110 §12.5.1).
/// Wildcards prefer nothing.
fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut html, mut json) = (None, None);
    let lists = headers.get_all(header::ACCEPT).iter().filter_map(|list| list.to_str().ok());
    for (at, range) in lists.flat_map(|list| list.split(',')).enumerate() {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let found = match kind {
            _ if kind.eq_ignore_ascii_case("text/html") => &mut html,
            _ if kind.eq_ignore_ascii_case("application/json") => &mut json,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight: f32 =
            weight.map_or(Some(1.0), |q| q.parse().ok()).filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
        if found.is_none() && weight > 0.0 {
            *found = Some((weight, at));
        }
    }
    match (html, json) {
        (Some((html, first)), Some((json, second))) => html > json || (html == json && first < second),
        (html, _) => html.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    const GPTBOT: &str = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)";

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        for (field, value) in lines {
            headers.append(name(field), value.parse().unwrap());
        }
        headers
    }

    fn crawlers() -> Crawlers {
        Crawlers::new(std::iter::empty(), &[])
    }

    #[test]
    fn one_sign_of_an_agent_is_enough() {
        let check =
            |lines: &[(&str, &str)], expect| assert_eq!(is_one(&headers(lines), &crawlers()), expect, "{lines:?}");
        let person = ("user-agent", FIREFOX);
        check(&[person], false);
        check(&[person, ("cookie", "payment=1"), ("x-requested-with", "x"), ("content-type", "a/b")], false);
        check(&[], true);
        check(&[("user-agent", "")], true);
        check(&[("user-agent", "  ")], true);
        check(&[("user-agent", GPTBOT)], true);
        check(&[person, ("user-agent", GPTBOT)], true);
        check(&[person, ("user-agent", "")], true);
        for field in PAYMENT_FIELDS.into_iter().chain(["signature", "Signature-Input", "signature-agent", "crawler-id"])
        {
            check(&[person, (field, "")], true);
        }
    }

    #[test]
    fn a_page_is_for_browsers_that_prefer_it() {
        let check =
            |accept: &str, expect| assert_eq!(prefers_html(&headers(&[("accept", accept)])), expect, "{accept}");
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true);
        check("Text/HTML", true);
        check("text/html, application/json", true);
        check("application/json, text/html", false);
        check("application/json;q=0.5, text/html;q=0.9", true);
        check("text/html;q=0.5, application/json;q=0.9", false);
        check("application/json;q=0, text/html;q=0.1", true);
        for no in ["", "*/*", "text/*", "application/json", "text/html;q=0", "text/html;q=x", "text/html;q=NaN"] {
            check(no, false);
        }
        let html = ("accept", "text/html");
        let browser = |lines: &[(&str, &str)]| is_browser(&headers(lines), &crawlers());
        assert!(browser(&[html, ("user-agent", FIREFOX)]));
        for other in [vec![], vec![("user-agent", "curl/8")], vec![("user-agent", GPTBOT)]] {
            assert!(!browser(&[vec![html], other.clone()].concat()), "{other:?}");
        }
        assert!(!browser(&[html, ("user-agent", FIREFOX), ("signature", "x")]));
        assert!(!browser(&[("user-agent", FIREFOX)]));
    }

    #[test]
    fn a_preflight_tells_what_will_be_sent() {
        let check = |list: &str| is_announced(&headers(&[("access-control-request-headers", list)]));
        assert!(check("content-type, Payment-Signature") && check("x-payment") && check("CRAWLER-MAX-PRICE"));
        assert!(!check("content-type") && !check("") && !is_announced(&headers(&[])));
    }
}
