//! URIs of resources in one spelling: servers compare them after a URL parser has put them right, so that several texts
//! can name one resource.

use std::net::Ipv4Addr;

/// Schemes whose authority and path URL parsers change (WHATWG URL), with their default ports.
const SPECIAL: [(&str, &str); 6] =
    [("http", "80"), ("https", "443"), ("ws", "80"), ("wss", "443"), ("ftp", "21"), ("file", "")];

/// Whether a URI is in the form that URL parsers leave as it is: lower-case scheme, no characters that they strip, turn
/// or escape, no escapes of plain characters, no dot segments, and with schemes such as `https` a lower-case host, no
/// default port, no user and a path.
pub fn is_normal(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    let plain = |b: u8| (b'!'..=b'~').contains(&b) && !b"\"<>\\^`{|}".contains(&b);
    if !is_scheme || !rest.bytes().all(plain) || !escapes_are_normal(rest) {
        return false;
    }
    let path_and_authority = rest.split(['?', '#']).next().unwrap_or("");
    if path_and_authority.split('/').any(|segment| segment == "." || segment == "..") {
        return false;
    }
    let Some((_, default_port)) = SPECIAL.iter().find(|(special, _)| *special == scheme) else { return true };
    let Some((authority, _)) = path_and_authority.strip_prefix("//").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    if scheme == "file" && authority.is_empty() {
        return true;
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, "1"));
    let is_port = !port.starts_with('0') && port != *default_port && port.parse::<u16>().is_ok();
    let is_name = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && !(scheme == "file" && host == "localhost");
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or("");
    let is_number = last.starts_with(|c: char| c.is_ascii_digit());
    is_name && is_port && (!is_number || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.to_string() == host))
}

/// Two upper-case digits after each `%`, and only for characters that need it.
fn escapes_are_normal(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digit = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        let Some(two) = after.get(..2).filter(|two| two.bytes().all(digit)) else { return false };
        let byte = u8::from_str_radix(two, 16).unwrap_or(b'a');
        !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_resource_has_one_spelling() {
        for normal in [
            "memo://greeting",
            "docs://README",
            "urn:isbn:1?q=%20#F",
            "https://a.example/x/%C3%BC?q=1",
            "https://a.example:8443/",
            "http://127.0.0.1/",
            "file:///etc/x",
        ] {
            assert!(is_normal(normal), "{normal}");
        }
        for other in [
            "",
            "greeting",
            "MEMO://greeting",
            "memo://greet\ting",
            " memo://greeting",
            "memo://greeting\u{0}",
            "memo:\\greeting",
            "memo://greet%69ng",
            "memo://gr%c3%bc",
            "memo://grü",
            "memo://a/../greeting",
            "memo://a/.",
            "memo://greeting%",
            "https://A.example/",
            "https://a.example",
            "https:a.example/",
            "https://a.example:443/",
            "https://a.example:08443/",
            "https://u@a.example/",
            "http://127.1/",
            "http://0x7f.0.0.1/",
            "file://localhost/etc/x",
        ] {
            assert!(!is_normal(other), "{other}");
        }
    }
}
