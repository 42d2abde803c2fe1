//! What a proxy in front of us says about its client: `X-Forwarded-*`, and `Forwarded` (RFC 7239).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, header};

/// What is known of a client through those in front of us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Its address; none where they say nothing that can be read.
    pub ip: Option<IpAddr>,
    /// Whether it came by HTTPS.
    pub https: Option<bool>,
    /// The host that it asked for.
    pub host: Option<HeaderValue>,
}

impl Original {
    /// From `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    ///
    /// Each proxy adds whom it got the request from, so addresses are read from the end: those of proxies that are
    /// trusted are passed over, the first other one is the client's. Of the other two the last value counts.
    pub fn of_x_forwarded(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Original {
        let mut ip = None;
        for text in from_the_end(headers, "x-forwarded-for") {
            let Some(next) = address(text) else { break };
            ip = Some(next);
            if !is_trusted(next) {
                break;
            }
        }
        let https = from_the_end(headers, "x-forwarded-proto").next().and_then(https);
        let host = from_the_end(headers, "x-forwarded-host").next().and_then(|host| HeaderValue::from_str(host).ok());
        Original { ip, https, host }
    }

    /// From `Forwarded`: the element of the outermost proxy that is trusted says all three.
    pub fn of_forwarded(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Original {
        let mut original = Original::default();
        let lines: Vec<&str> = headers.get_all(header::FORWARDED).iter().filter_map(|v| v.to_str().ok()).collect();
        let Some(elements) = elements(&lines.join(",")) else { return original };
        for element in elements.into_iter().rev() {
            let next = element.by_name("for").and_then(address);
            let https = element.by_name("proto").and_then(https);
            let host = element.by_name("host").and_then(|host| HeaderValue::from_str(host).ok());
            original =
                Original { ip: next.or(original.ip), https: https.or(original.https), host: host.or(original.host) };
            if !next.is_some_and(&is_trusted) {
                break;
            }
        }
        original
    }
}

/// The comma-separated values of a field, the last first.
fn from_the_end<'h>(headers: &'h HeaderMap, name: &'static str) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().rev();
    lines.flat_map(|line| line.to_str().unwrap_or("").rsplit(',')).map(str::trim)
}

fn https(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("wss") => Some(true),
        _ if text.eq_ignore_ascii_case("http") || text.eq_ignore_ascii_case("ws") => Some(false),
        _ => None,
    }
}

/// `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::9`, `[2001:db8::9]`, `[2001:db8::9]:1234`
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let ip: IpAddr = text.parse().ok().or_else(bare).or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(ip.to_canonical())
}

/// `for=192.0.2.7;proto=https`
#[derive(Debug, Default)]
struct Element(Vec<(String, String)>);

impl Element {
    fn by_name(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// `forwarded-element *( "," forwarded-element )`; none where it is not that: then nothing of it counts.
fn elements(text: &str) -> Option<Vec<Element>> {
    let mut elements = vec![Element::default()];
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(next) = rest.strip_prefix(',') {
            elements.push(Element::default());
            rest = next.trim_start();
            continue;
        }
        if let Some(next) = rest.strip_prefix(';') {
            rest = next.trim_start();
            continue;
        }
        let (name, value) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let value_and_rest = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = value.bytes().position(|b| !is_token(b)).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        elements.last_mut()?.0.push((name.to_owned(), value_and_rest.0));
        rest = value_and_rest.1.trim_start();
        if !(rest.is_empty() || rest.starts_with([',', ';'])) {
            return None;
        }
    }
    Some(elements)
}

/// The text of a quoted string whose first quote is gone, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

/// RFC 9110 §5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn is_trusted(ip: IpAddr) -> bool {
        ip.to_string().starts_with("10.")
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_first_who_is_not_trusted_from_the_end_is_the_client() {
        let of = |text: &str| Original::of_x_forwarded(&headers(&[("x-forwarded-for", text)]), is_trusted).ip;
        assert_eq!(of("192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(
            of("203.0.113.1, 192.0.2.7, 10.0.0.3"),
            ip("192.0.2.7"),
            "what the client made up itself is not read"
        );
        assert_eq!(of("10.0.0.4, 10.0.0.3"), ip("10.0.0.4"), "all are ours");
        assert_eq!(of("unknown, 10.0.0.3"), ip("10.0.0.3"));
        assert_eq!(of("[2001:db8::9]:443"), ip("2001:db8::9"));
        assert_eq!(of("::ffff:192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(of("192.0.2.7:55"), ip("192.0.2.7"));
        assert_eq!(of("what?"), None);
        let two = headers(&[("x-forwarded-for", "203.0.113.1"), ("x-forwarded-for", "192.0.2.7, 10.0.0.3")]);
        assert_eq!(Original::of_x_forwarded(&two, is_trusted).ip, ip("192.0.2.7"), "lines are one list");
    }

    #[test]
    fn scheme_and_host_are_the_nearest_proxys() {
        let said = headers(&[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http, https"),
            ("x-forwarded-host", "evil.example, shop.example:8443"),
        ]);
        let original = Original::of_x_forwarded(&said, is_trusted);
        assert_eq!(original.https, Some(true));
        assert_eq!(original.host.unwrap(), "shop.example:8443");
        assert_eq!(Original::of_x_forwarded(&headers(&[("x-forwarded-proto", "gopher")]), is_trusted).https, None);
    }

    #[test]
    fn forwarded_is_read_from_the_end() {
        let of = |text: &str| Original::of_forwarded(&headers(&[("forwarded", text)]), is_trusted);
        let original =
            of("for=203.0.113.1;host=evil.example, For=\"[2001:db8::9]:4711\";proto=https;host=\"shop.example\"");
        assert_eq!(original.ip, ip("2001:db8::9"));
        assert_eq!(original.https, Some(true));
        assert_eq!(original.host.unwrap(), "shop.example");
        let original = of("for=192.0.2.7;proto=https, for=10.0.0.3;proto=http");
        assert_eq!((original.ip, original.https), (ip("192.0.2.7"), Some(true)), "the outermost that is trusted");
        assert_eq!(of("for=_hidden, for=10.0.0.3").ip, ip("10.0.0.3"));
        for broken in ["for=\"192.0.2.7", "for", "for=192.0.2.7 proto=https", "=x", "f or=192.0.2.7"] {
            assert_eq!(of(broken), Original::default(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~]{0,60}") {
            let said = headers(&[("forwarded", &text), ("x-forwarded-for", &text), ("x-forwarded-host", &text)]);
            let _ = (Original::of_forwarded(&said, is_trusted), Original::of_x_forwarded(&said, is_trusted));
        }
    }
}
