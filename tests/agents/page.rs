//! What a browser shows at a price.

use crate::charge::FIREFOX;
use crate::support::agent::field_offer;
use crate::support::*;

const ACCEPT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A request with this Accept, from a browser.
fn browse(gateway: &Gateway, method: &str, path: &str, accept: &str, more: &str) -> Answer {
    let host = gateway.addr;
    let lines = format!("Host: {host}\r\nUser-Agent: {FIREFOX}\r\nAccept: {accept}\r\n{more}Connection: close\r\n\r\n");
    exchange(host, format!("{method} {path} HTTP/1.1\r\n{lines}"))
}

/// The tags of a page must close in order, and its text must have no loose `<` or `>`.
fn well_formed(html: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    while let Some(at) = rest.find(['<', '>']) {
        let tag = rest[at..].strip_prefix('<').ok_or_else(|| format!("a loose > at {}", &rest[..at]))?;
        let end = tag.find('>').ok_or("a tag without end")?;
        let (tag, after) = (&tag[..end], &tag[end + 1..]);
        if tag.contains('<') {
            return Err(format!("a loose < in {tag}"));
        }
        rest = after;
        let name = tag.split_whitespace().next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(name) if open.pop() == Some(name) => {}
            Some(name) => return Err(format!("</{name}> closes another")),
            None if name == "meta" => {}
            None if name == "style" => {
                let end = rest.find("</style>").ok_or("a style without end")?;
                rest = &rest[end + "</style>".len()..];
            }
            None => open.push(name),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} stay open")) }
}

/// The text of the page's `<pre>`.
fn offer_in(html: &str) -> serde_json::Value {
    let text = html.split("<pre>").nth(1).unwrap().split("</pre>").next().unwrap();
    let mut text = text.to_owned();
    for (from, to) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")] {
        text = text.replace(from, to);
    }
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_browser_gets_a_page_with_the_same_offer() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = "[operator]\nname = \"Example & Söhne GmbH\"\nemail = \"billing@example.com\"\n";
    let gateway = Gateway::start(&site_toml(&origin, &agent, more));
    let answer = browse(&gateway, "GET", "/paid/page?q=1", ACCEPT, "Accept-Language: de\r\n");
    assert_eq!((answer.status, answer.reason()), (402, "payment_required"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!((answer.header("cache-control"), answer.header("vary")), (Some("no-store"), Some("Accept, User-Agent")));
    assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let html = answer.text();
    well_formed(&html).unwrap_or_else(|why| panic!("{why}: {html}"));
    let url = format!("http://{}/paid/page?q=1", gateway.addr);
    for part in [
        "0.01 USD",
        "Example &amp; Söhne GmbH",
        "mailto:billing@example.com",
        "https://example.com/terms",
        "https://example.com/register",
        "<code>deferred</code>",
        &url,
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
    for outside in ["<script", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert_eq!(offer_in(&html), field_offer(&answer));
    let head = browse(&gateway, "HEAD", "/paid/page", ACCEPT, "");
    assert_eq!((head.status, head.header("content-type")), (402, Some("text/html; charset=utf-8")));
    assert_eq!(origin.calls(), 0);
}

#[test]
fn whoever_is_no_browser_gets_json() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, ""));
    for (accept, more) in [
        ("*/*", ""),
        ("application/json, text/html", ""),
        ("text/html;q=0.5, application/json", ""),
        (ACCEPT, "Signature-Agent: \"https://signer.example\"\r\n"),
        (ACCEPT, "User-Agent: GPTBot/1.2\r\n"),
        (ACCEPT, "Payment: scheme=\"deferred\", network=\"tollgate:deferred\", id=\"x\"\r\n"),
    ] {
        let answer = browse(&gateway, "GET", "/paid/page", accept, more);
        assert_eq!((answer.status, answer.header("content-type")), (402, Some("application/json")), "{accept} {more}");
        assert!(answer.json()["accepts"].is_array());
    }
    let host = gateway.addr;
    let curl = exchange(
        host,
        format!(
            "GET /paid/x HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
        ),
    );
    assert_eq!(curl.header("content-type"), Some("application/json"));
}

#[test]
fn nothing_in_a_page_is_believed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let hostile = r#"</pre><script>alert('1')</script>\" onload=\"x & <!--"#;
    let more = format!(
        "description = \"{hostile}\"\n[[routes]]\npath = \"/crawl/*\"\nprice = \"0.005 USD\"\naccept = [\"crawl\"]\n\
         description = \"{hostile}\"\n[operator]\nname = \"{hostile}\"\nemail = \"a@b\\\"<i>\"\n"
    );
    let gateway = Gateway::start(&site_toml(&origin, &agent, &more));
    for path in ["/paid/a?<script>alert(1)</script>&\"'", "/paid/'\"--><b>", "/crawl/?'</main>"] {
        let answer = browse(&gateway, "GET", path, ACCEPT, "");
        if answer.status == 400 {
            continue;
        }
        let html = answer.text();
        assert_eq!((answer.status, answer.header("content-type")), (402, Some("text/html; charset=utf-8")), "{path}");
        well_formed(&html).unwrap_or_else(|why| panic!("{why}: {html}"));
        for loose in ["<script", "<b>", "<i>", "<!--", "\" onload"] {
            assert!(!html.contains(loose), "{path}: {loose}: {html}");
        }
    }
}

#[test]
fn the_page_can_be_switched_off() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "[offers]\nhtml = false\n"));
    let answer = browse(&gateway, "GET", "/paid/page", ACCEPT, "");
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.header("vary")),
        (402, Some("application/json"), None)
    );
}
