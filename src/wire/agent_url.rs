//! Origins: scheme, host and port. An agent is named by one, `https://signer.example.com`.

use std::fmt;

use super::host::{Complaint, normal_host};

/// An `http` or `https` origin in the normal form of RFC 3986 §6.2.2 and §6.2.3: `https://signer.example.com`,
/// `http://127.0.0.1:9000`. Two are equal exactly when their texts are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentUrl {
    https: bool,
    /// As [`normal_host`] makes it.
    host: String,
    port: u16,
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
        Ok(AgentUrl { https, host, port })
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
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
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

    proptest! {
        #[test]
        fn the_normal_form_is_a_fixed_point(text in "https?://[a-zA-Z0-9.:\\[\\]/@-]{0,20}|\\PC*") {
            if let Ok(url) = AgentUrl::parse(&text) {
                prop_assert_eq!(AgentUrl::parse(&url.to_string()), Ok(url));
            }
        }
    }
}
