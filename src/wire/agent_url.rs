//! Origins: scheme, host and port. An agent is named by one, `https://signer.example.com`, or by the URL of a key set on one,
//! `https://www.example.com/bot/jwks.json`.

use std::fmt;

use super::directory::WELL_KNOWN;
use super::host::{Complaint, normal_host};

/// Longest path of a key set.
const PATH_BYTES_MAX: usize = 512;

/// An `http` or `https` origin in the normal form of RFC 3986 §6.2.2 and §6.2.3: `https://signer.example.com`,
/// `http://127.0.0.1:9000`. Two are equal exactly when their texts are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentUrl {
    https: bool,
    /// As [`normal_host`] makes it.
    host: String,
    port: u16,
    /// Of an agent that is a key set: where that is, with its `/`.
    path: Option<String>,
}

impl AgentUrl {
    /// Longest text that is read: a scheme, a host of 253 characters, a port, and slashes.
    pub const BYTES_MAX: usize = 280;

    /// Reads an origin; scheme and host become lower case, the default port and a lone `/` are dropped.
    ///
    /// # Errors
    /// [`AgentUrlError`]: another scheme, userinfo, a path, query or fragment, a host that is none.
    pub fn parse(text: &str) -> Result<AgentUrl, AgentUrlError> {
        if text.len() > AgentUrl::BYTES_MAX {
            return Err(AgentUrlError::TooLong);
        }
        let scheme = |s: &str| text.get(..s.len()).is_some_and(|head| head.eq_ignore_ascii_case(s));
        let (https, rest) = if scheme("https://") {
            (true, &text[8..])
        } else if scheme("http://") {
            (false, &text[7..])
        } else {
            return Err(AgentUrlError::Scheme);
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        match tail {
            "" | "/" => {}
            _ if tail.starts_with('?') || tail.starts_with("/?") => return Err(AgentUrlError::Query),
            _ if tail.starts_with('#') || tail.starts_with("/#") => return Err(AgentUrlError::Fragment),
            _ => return Err(AgentUrlError::Path),
        }
        if authority.contains('@') {
            return Err(AgentUrlError::Userinfo);
        }
        // A colon inside brackets belongs to the address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let default = if https { 443 } else { 80 };
        let port = match port {
            None | Some("") => default,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(AgentUrlError::Port)?
            }
            Some(_) => return Err(AgentUrlError::Port),
        };
        let host = normal_host(host).map_err(AgentUrlError::Host)?;
        Ok(AgentUrl { https, host, port, path: None })
    }

    /// Reads the URL of a key set (`type=jwks_uri`): an origin and a path in its normal form. That of the well-known directory is
    /// the agent of that origin.
    ///
    /// A query is not taken, although the draft has it fetched and left out of the identifier: whoever signs would choose what the
    /// server answers with, and so perhaps the keys.
    ///
    /// # Errors
    /// [`AgentUrlError`]
    pub fn parse_key_set(text: &str) -> Result<AgentUrl, AgentUrlError> {
        if text.len() > AgentUrl::BYTES_MAX + PATH_BYTES_MAX {
            return Err(AgentUrlError::TooLong);
        }
        let start = text.find("://").map_or(0, |at| at + 3);
        let end = text[start..].find(['/', '?', '#', '\\']).map_or(text.len(), |at| start + at);
        let (origin, path) = text.split_at(end);
        let origin = AgentUrl::parse(origin)?;
        match path {
            WELL_KNOWN => Ok(origin),
            _ if path.contains('#') => Err(AgentUrlError::Fragment),
            _ if path.contains('?') => Err(AgentUrlError::Query),
            _ if path.len() > PATH_BYTES_MAX => Err(AgentUrlError::TooLong),
            _ if !is_normal_path(path) => Err(AgentUrlError::KeySetPath),
            _ => Ok(AgentUrl { path: Some(path.to_owned()), ..origin }),
        }
    }

    /// Reads either: what has a path is a key set.
    ///
    /// # Errors
    /// [`AgentUrlError`]
    pub fn parse_agent(text: &str) -> Result<AgentUrl, AgentUrlError> {
        match AgentUrl::parse(text) {
            Err(AgentUrlError::Path) => AgentUrl::parse_key_set(text),
            other => other,
        }
    }

    /// Of an agent that is a key set, its path: `/bot/jwks.json`. Whoever may write there speaks for it, which need not be the
    /// host's owner.
    pub fn key_set(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// True for `https`.
    pub fn https(&self) -> bool {
        self.https
    }

    /// Lower-case name or address, IPv6 in brackets: `signer.example.com`, `[2001:db8::1]`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's default if none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host, with the port unless it is the scheme's default: `signer.example.com`, `127.0.0.1:9000`.
    pub fn authority(&self) -> String {
        let default = if self.https { 443 } else { 80 };
        if self.port == default { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for AgentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path) = (if self.https { "https" } else { "http" }, self.path.as_deref().unwrap_or_default());
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

/// Whether there is one way to write this path: no empty, `.` or `..` segment, escapes only of what must be escaped, in capitals
/// (RFC 3986 §6.2.2).
fn is_normal_path(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/').filter(|rest| !rest.is_empty()) else { return false };
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let is_escape = |hex: &str| {
        let is_upper = hex.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        hex.len() == 2
            && is_upper
            && u8::from_str_radix(hex, 16).is_ok_and(|b| !unreserved(b) && !b"/\\\0".contains(&b))
    };
    segments.split('/').all(|segment| {
        let mut parts = segment.split('%');
        let plain = |part: &str| part.bytes().all(|b| unreserved(b) || b"!$&'()*+,;=:@".contains(&b));
        let first = parts.next().is_some_and(plain);
        let rest =
            parts.all(|part| part.is_char_boundary(2) && part.len() >= 2 && is_escape(&part[..2]) && plain(&part[2..]));
        first && rest && !matches!(segment, "" | "." | "..")
    })
}

/// Why a text is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentUrlError {
    /// Neither `https://` nor `http://`.
    #[error("it must start with `https://` or `http://`")]
    Scheme,
    /// `user@`
    #[error("it must not carry a user or password")]
    Userinfo,
    /// More than `/` after the authority.
    #[error("it must end after host and port, without a path")]
    Path,
    /// `?…`
    #[error("it must not carry a query")]
    Query,
    /// `#…`
    #[error("it must not carry a fragment")]
    Fragment,
    /// Of a key set.
    #[error("the path of a key set must be more than `/`, and written as RFC 3986 normalises it")]
    KeySetPath,
    /// Not 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// Carries what is wrong with the host.
    #[error("{}", .0.0)]
    Host(Complaint),
    /// Longer than [`AgentUrl::BYTES_MAX`].
    #[error("it is longer than any host and port can be")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_origins_have_one_text() {
        for (text, expect) in [
            ("https://signer.example.com", "https://signer.example.com"),
            ("HTTPS://Signer.Example.COM:443/", "https://signer.example.com"),
            ("https://signer.example.com.", "https://signer.example.com"),
            ("https://a:0443", "https://a"),
            ("https://a:80", "https://a:80"),
            ("http://a:80", "http://a"),
            ("http://a:", "http://a"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("https://[2001:DB8::0:1]:8443/", "https://[2001:db8::1]:8443"),
            ("https://[::1]", "https://[::1]"),
        ] {
            assert_eq!(AgentUrl::parse(text).unwrap().to_string(), expect);
        }
    }

    #[test]
    fn everything_else_says_why() {
        use AgentUrlError::*;
        for (text, expect) in [
            ("", Scheme),
            ("signer.example.com", Scheme),
            ("ftp://a", Scheme),
            ("https:/a", Scheme),
            ("https://u@a", Userinfo),
            ("https://u:p@a", Userinfo),
            ("https://a/b", Path),
            ("https://a//", Path),
            ("https://a\\b", Path),
            ("https://a?b", Query),
            ("https://a/?b", Query),
            ("https://a#b", Fragment),
            ("https://a:0", Port),
            ("https://a:65536", Port),
            ("https://a:+1", Port),
            ("https://a:b", Port),
        ] {
            assert_eq!(AgentUrl::parse(text), Err(expect), "{text}");
        }
        for text in
            ["https://", "https:///", "https://a b", "https://é", "https://127.1", "https://[::1", "https://%61"]
        {
            assert!(matches!(AgentUrl::parse(text), Err(Host(_))), "{text}");
        }
    }

    #[test]
    fn a_key_set_has_one_text_and_is_never_an_origin() {
        for (text, expect) in [
            ("https://a.example/jwks.json", "https://a.example/jwks.json"),
            ("HTTPS://A.example:443/bot/%2B/jwks.json", "https://a.example/bot/%2B/jwks.json"),
            ("http://127.0.0.1:9000/keys/", ""),
            ("http://127.0.0.1:9000/keys", "http://127.0.0.1:9000/keys"),
            ("https://a.example/.well-known/http-message-signatures-directory", "https://a.example"),
        ] {
            let found = AgentUrl::parse_key_set(text).map(|url| url.to_string()).unwrap_or_default();
            assert_eq!(found, expect, "{text}");
        }
        use AgentUrlError::*;
        for (text, expect) in [
            ("https://a.example", KeySetPath),
            ("https://a.example/", KeySetPath),
            ("https://a.example//k", KeySetPath),
            ("https://a.example/./k", KeySetPath),
            ("https://a.example/b/../k", KeySetPath),
            ("https://a.example/%2e%2e/k", KeySetPath),
            ("https://a.example/%41", KeySetPath),
            ("https://a.example/%2f", KeySetPath),
            ("https://a.example/%2F", KeySetPath),
            ("https://a.example/%4", KeySetPath),
            ("https://a.example/%é0", KeySetPath),
            ("https://a.example/k\\j", KeySetPath),
            ("https://a.example\\k", KeySetPath),
            ("https://a.example/k j", KeySetPath),
            ("https://a.example/é", KeySetPath),
            ("https://a.example/k?a=b", Query),
            ("https://a.example?k", Query),
            ("https://a.example/k#a?b", Fragment),
            ("https://u@a.example/k", Userinfo),
            ("ftp://a.example/k", Scheme),
            ("a.example/k", Scheme),
        ] {
            assert_eq!(AgentUrl::parse_key_set(text), Err(expect), "{text}");
        }
        assert_eq!(AgentUrl::parse_key_set(&format!("https://a/{}", "k".repeat(512))), Err(TooLong));
        assert_eq!(AgentUrl::parse("https://a.example/jwks.json"), Err(Path));
    }

    proptest! {
        #[test]
        fn a_key_set_is_a_fixed_point(text in "https://[a-z.]{1,9}/[a-zA-Z0-9./%?#~-]{0,20}|\\PC*") {
            if let Ok(url) = AgentUrl::parse_key_set(&text) {
                let again = url.to_string();
                match url.key_set() {
                    Some(_) => prop_assert_eq!(AgentUrl::parse_key_set(&again), Ok(url)),
                    None => prop_assert_eq!(AgentUrl::parse(&again), Ok(url)),
                }
            }
        }

        #[test]
        fn the_normal_form_is_a_fixed_point(text in "https?://[a-zA-Z0-9.:\\[\\]/@-]{0,20}|\\PC*") {
            if let Ok(url) = AgentUrl::parse(&text) {
                prop_assert_eq!(AgentUrl::parse(&url.to_string()), Ok(url));
            }
        }
    }
}
