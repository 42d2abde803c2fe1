//! Hosts: names and addresses, in one form.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What is wrong (a sentence without capital and full stop), and what to write instead.
pub type Complaint = (String, Option<String>);

/// The form of a host, without port, that hosts are compared in: lower case, no trailing point, IPv6 in brackets in its
/// shortest text.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn normal_host(text: &str) -> Result<String, Complaint> {
    let complain = |reason: &str, hint: Option<String>| Err((reason.to_owned(), hint));
    if let Some(inner) = text.strip_prefix('[') {
        let Some((address, rest)) = inner.split_once(']') else {
            return complain("the closing `]` of the IPv6 address is missing", None);
        };
        let Ok(address) = address.parse::<Ipv6Addr>() else {
            return complain("this is no IPv6 address", None);
        };
        return match rest {
            "" => Ok(format!("[{address}]")),
            _ => complain("a host here has no port", Some(format!("write `[{address}]`"))),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return complain("an IPv6 address stands in brackets", Some(format!("write `[{text}]`")));
    }
    if text.contains("://") {
        return complain("a host has no scheme", Some("write `example.com`".to_owned()));
    }
    if let Some((host, _)) = text.split_once(':') {
        return complain("a host here has no port", Some(format!("write `{host}`")));
    }
    if text.contains('/') {
        return complain("a host has no path", None);
    }
    if !text.is_ascii() {
        return complain("a host is ASCII", Some("write its `xn--…` form".to_owned()));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() {
        return complain("a host cannot be empty", None);
    }
    if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
        return complain("a host has at most 253 characters, and 63 between two points", None);
    }
    if name.split('.').any(str::is_empty) {
        return complain("a label of the host is empty", None);
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        return complain(&format!("a host cannot contain `{}`", bad.escape_default()), None);
    }
    // Resolvers read `127.1`, `0x7f000001` and the like as addresses: only the plain form is let through.
    let last = name.rsplit('.').next().unwrap_or_default();
    let digits = last.bytes().all(|b| b.is_ascii_digit());
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if (digits || hex) && name.parse::<Ipv4Addr>().is_err() {
        return complain("this is no IPv4 address", None);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form() {
        for (text, expect) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("a_b.x-y.c", "a_b.x-y.c"),
            ("xn--caf-dma.example", "xn--caf-dma.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(normal_host(text).unwrap(), expect);
        }
        let long = ["a".repeat(64), vec!["a"; 128].join(".")];
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a:1",
            "[::1]:80",
            "[::1",
            "[1.2.3.4]",
            "::1",
            "https://a",
            "a/b",
            "é.com",
            "a*",
            "1.2.3",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "1.2.3.0xf",
            "256.1.1.1",
            "01.2.3.4",
            "a@b",
            "a%2eb",
            &long[0],
            &long[1],
        ] {
            assert!(normal_host(text).is_err(), "{text:?} was accepted");
        }
    }
}
