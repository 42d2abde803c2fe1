//! What hyper leaves to us about fields: which of a client's reach the origin, and which of the origin's reach the client.
//!
//! RFC 9110 §7.6.1 (Connection), RFC 9112 §6 (message body length). hyper has parsed the message: a field with an invalid
//! name or value, an unreadable Content-Length or a Transfer-Encoding other than a final `chunked` never gets here.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Version};

use crate::payment::crawl;
use crate::payment::presented::PAYMENT_FIELDS;
use crate::payment::reason::{Reason, Refusal};

/// Longest method that is served; the books keep it with what it bought. The longest registered one has 17.
const METHOD_BYTES_MAX: usize = 64;

/// Fields that end at each hop.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "expect"
    )
}

/// Fields that `Connection` must not list: we decide on them, or on what they say.
const NEVER_LISTED: [&str; 10] = [
    "content-length",
    "host",
    "payment",
    "payment-signature",
    "x-payment",
    "crawler-exact-price",
    "crawler-max-price",
    "signature",
    "signature-input",
    "signature-agent",
];

/// Fields that only the gateway says to the origin.
fn is_gateway_only(name: &str) -> bool {
    match name.as_bytes() {
        [b'x', b'-', ..] => name.starts_with("x-forwarded-") || name == "x-real-ip",
        [b't', ..] => name.starts_with("tollgate-"),
        _ => name == "forwarded" || name == crawl::ORIGIN_FIELD,
    }
}

/// Fields by which an origin may be told another target than the one that was priced.
fn is_target_override(name: &str) -> bool {
    name.starts_with("x-") && matches!(name, "x-original-url" | "x-rewrite-url" | "x-original-uri" | "x-original-host")
}

/// Fields by which an origin may be told another method; a free route may let them pass.
fn is_method_override(name: &str) -> bool {
    name.starts_with("x-") && matches!(name, "x-http-method-override" | "x-http-method" | "x-method-override")
}

/// Fields of the origin that only the gateway may say to the client.
fn is_not_for_origins(name: &str) -> bool {
    matches!(
        name,
        "payment-required"
            | "payment-response"
            | "x-payment-response"
            | crawl::CHARGED_FIELD
            | crawl::PRICE_FIELD
            | crawl::ERROR_FIELD
            | "settlement-overrides"
            | "payment-settlement"
            | "payment-context"
    ) || name.starts_with("tollgate-")
}

/// Refuses what must not be forwarded in any form.
///
/// # Errors
/// [`Reason::MethodUnsupported`], [`Reason::BadFraming`].
pub fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let method = request.method();
    if matches!(*method, Method::CONNECT | Method::TRACE) || method.as_str().len() > METHOD_BYTES_MAX {
        return Err(Reason::MethodUnsupported.into());
    }
    let headers = request.headers();
    if let Some(encoding) = headers.get(header::TRANSFER_ENCODING) {
        let several = headers.get_all(header::TRANSFER_ENCODING).iter().count() > 1;
        if several || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::new(Reason::BadFraming, "`Transfer-Encoding` must be exactly `chunked`"));
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Refusal::new(Reason::BadFraming, "`Transfer-Encoding` and `Content-Length` are both present"));
        }
    }
    for listed in connection_tokens(headers) {
        if NEVER_LISTED.iter().any(|name| listed.eq_ignore_ascii_case(name)) {
            return Err(Refusal::new(Reason::BadFraming, format!("`Connection` must not list `{listed}`")));
        }
    }
    Ok(())
}

/// Takes out of a client's fields what the origin must not see; `keep_overrides` for routes that allow them.
pub fn strip_request(headers: &mut HeaderMap, keep_overrides: bool) {
    let trailers = headers
        .get(header::TE)
        .is_some_and(|te| te.to_str().is_ok_and(|te| te.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers"))));
    let forbidden = |name: &str| {
        is_hop_by_hop(name)
            || name == "trailer"
            || PAYMENT_FIELDS.contains(&name)
            || is_gateway_only(name)
            // CGI and WSGI read `_` as `-`: such a name could stand for any of the above.
            || name.bytes().any(|b| b == b'_')
            || is_target_override(name)
            || (!keep_overrides && is_method_override(name))
    };
    strip(headers, forbidden);
    join_cookies(headers);
    if trailers {
        // Ours, for this hop: the client wants trailers, and we pass them on.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Takes out of the origin's fields what ends at this hop, and what only the gateway may say.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers, |name| is_hop_by_hop(name) || is_not_for_origins(name));
}

/// HTTP/2 may split Cookie into lines; HTTP/1.1 wants one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

fn strip(headers: &mut HeaderMap, forbidden: impl Fn(&str) -> bool) {
    // `keep-alive` and `close` are no fields, or fields that go anyway; nearly always there is nothing else.
    let listed: Vec<HeaderName> = connection_tokens(headers)
        .filter(|t| !t.eq_ignore_ascii_case("keep-alive") && !t.eq_ignore_ascii_case("close"))
        .filter_map(|t| HeaderName::from_bytes(t.as_bytes()).ok())
        .collect();
    let named: Vec<HeaderName> = headers.keys().filter(|name| forbidden(name.as_str())).cloned().collect();
    for name in named.iter().chain(&listed) {
        headers.remove(name);
    }
}

/// What `Connection` lists.
pub fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Adds ourselves to `Via`, with the version that the message arrived in.
pub fn add_via(headers: &mut HeaderMap, version: Version) {
    let ours = match version {
        Version::HTTP_2 => "2.0 tollgate",
        Version::HTTP_10 => "1.0 tollgate",
        _ => "1.1 tollgate",
    };
    headers.append(header::VIA, HeaderValue::from_static(ours));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn refused(lines: &[(&str, &str)]) -> bool {
        let mut request = Request::new(());
        *request.headers_mut() = headers(lines);
        check(&request).is_err()
    }

    #[test]
    fn framing_that_two_parsers_could_read_differently_is_refused() {
        assert!(!refused(&[("transfer-encoding", "chunked")]));
        assert!(!refused(&[("transfer-encoding", "Chunked"), ("connection", "close, x-a")]));
        assert!(refused(&[("transfer-encoding", "chunked, chunked")]));
        assert!(refused(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]));
        assert!(refused(&[("transfer-encoding", "gzip, chunked")]));
        assert!(refused(&[("transfer-encoding", "chunked"), ("content-length", "5")]));
        for name in NEVER_LISTED {
            assert!(refused(&[("connection", &format!("keep-alive , {}", name.to_uppercase()))]), "{name}");
        }
        for method in [Method::CONNECT, Method::TRACE] {
            let mut request = Request::new(());
            *request.method_mut() = method;
            assert_eq!(check(&request).unwrap_err().reason, Reason::MethodUnsupported);
        }
    }

    #[test]
    fn only_end_to_end_fields_of_the_client_go_on() {
        let mut fields = headers(&[
            ("connection", "X-Hop, keep-alive"),
            ("x-hop", "1"),
            ("keep-alive", "1"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("expect", "100-continue"),
            ("proxy-authorization", "x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-anything", "x"),
            ("forwarded", "for=x"),
            ("x-real-ip", "1"),
            ("tollgate-agent", "x"),
            ("tollgate_agent", "x"),
            ("x_forwarded_for", "x"),
            ("payment", "x"),
            ("x-payment", "x"),
            ("crawler-max-price", "x"),
            ("cf-pay-per-crawl", "x"),
            ("x-original-url", "/p"),
            ("x-http-method-override", "POST"),
            ("trailer", "a"),
            ("signature", "kept"),
            ("accept", "kept"),
            ("cookie", "kept"),
            ("authorization", "kept"),
        ]);
        strip_request(&mut fields, false);
        let mut left: Vec<_> = fields.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "accept: kept",
                "authorization: kept",
                "connection: te",
                "cookie: kept",
                "signature: kept",
                "te: trailers"
            ]
        );
    }

    #[test]
    fn an_origin_cannot_speak_for_the_gateway() {
        let mut fields = headers(&[
            ("payment-response", "x"),
            ("payment-required", "x"),
            ("x-payment-response", "x"),
            ("crawler-charged", "x"),
            ("crawler-price", "x"),
            ("crawler-error", "x"),
            ("tollgate-reason", "x"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("trailer", "kept"),
            ("etag", "kept"),
        ]);
        strip_response(&mut fields);
        assert_eq!(fields.len(), 2);
    }
}
