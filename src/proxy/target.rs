//! The one normal form of a request's host and path: it decides the price *and* goes upstream.

use std::borrow::Cow;

use http::header::{self, HeaderValue};
use http::{Method, Request, Uri};

use crate::payment::reason::{Reason, Refusal};
use crate::pricing::normal_path;
use crate::wire::host::normal_host;

/// Where a request goes. What is normal already, as nearly always, is shared with the request and not copied.
#[derive(Debug, Clone)]
pub struct Target {
    /// Lower case, the scheme's default port dropped: `example.com`, `example.com:8402`.
    authority: HeaderValue,
    /// Length of the host inside `authority`.
    host_len: usize,
    /// As received.
    uri: Uri,
    /// The path's normal form, where it is not as received.
    path: Option<String>,
}

impl Target {
    /// Reads host and path of a request.
    ///
    /// `https` says how the client sees us; `strict` whether a host refuses ambiguous paths (those with a priced route).
    ///
    /// # Errors
    /// [`Reason::BadHost`], [`Reason::AmbiguousPath`], [`Reason::UrlTooLong`].
    pub fn of<B>(
        request: &Request<B>,
        https: bool,
        url_bytes_max: usize,
        strict: impl FnOnce(&str) -> bool,
    ) -> Result<Target, Refusal> {
        let uri = request.uri();
        let raw = uri.path();
        if raw.len() + uri.query().map_or(0, str::len) > url_bytes_max {
            return Err(Refusal::new(Reason::UrlTooLong, format!("at most {url_bytes_max} bytes are read")));
        }
        let (authority, host_len) = authority(request, https)?;
        let raw = if raw.is_empty() { "/" } else { raw };
        if raw == "*" && request.method() == Method::OPTIONS && uri.query().is_none() {
            return Ok(Target { authority, host_len, uri: uri.clone(), path: None });
        }
        if !raw.starts_with('/') {
            return Err(Refusal::new(Reason::BadRequest, "the request target must begin with `/`"));
        }
        let path = normal_path(raw);
        if strict(&text(&authority)[..host_len])
            && let Some(what) = broken_escape(raw).or_else(|| ambiguity(&path))
        {
            return Err(Refusal::new(Reason::AmbiguousPath, format!("the path contains {what}")));
        }
        let path = match path {
            Cow::Owned(path) => Some(path),
            Cow::Borrowed(_) => None,
        };
        Ok(Target { authority, host_len, uri: uri.clone(), path })
    }

    /// `example.com`, `example.com:8402`: also `@authority`.
    pub fn authority(&self) -> &str {
        text(&self.authority)
    }

    /// The same, as a field's value.
    pub fn authority_value(&self) -> HeaderValue {
        self.authority.clone()
    }

    /// Host without port.
    pub fn host(&self) -> &str {
        &self.authority()[..self.host_len]
    }

    /// The path in its normal form.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_else(|| self.raw_path())
    }

    /// Whether the request is about the server as a whole: `OPTIONS *` (RFC 9110 §9.3.7).
    pub fn is_whole_server(&self) -> bool {
        self.path() == "*"
    }

    /// The path as received, for signatures.
    pub fn raw_path(&self) -> &str {
        match self.uri.path() {
            "" => "/",
            path => path,
        }
    }

    /// The query as received, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Whether path and query can go on as they were received.
    pub fn is_normal(&self) -> bool {
        self.path.is_none() && !self.uri.path().is_empty()
    }

    /// The absolute URL: `https://example.com/p?q=1`.
    pub fn url(&self, scheme: &str) -> String {
        let query = self.query();
        let (authority, path) = (self.authority(), self.path());
        let mut url =
            String::with_capacity(scheme.len() + authority.len() + path.len() + query.map_or(0, str::len) + 4);
        for part in [scheme, "://", authority, path] {
            url.push_str(part);
        }
        if let Some(query) = query {
            url.push('?');
            url.push_str(query);
        }
        url
    }

    /// Path and query as they go upstream.
    pub fn path_and_query(&self) -> String {
        match self.query() {
            Some(query) => format!("{}?{query}", self.path()),
            None => self.path().to_owned(),
        }
    }
}

/// The text of a value that was made from an authority: ASCII.
fn text(value: &HeaderValue) -> &str {
    std::str::from_utf8(value.as_bytes()).unwrap_or("")
}

/// The authority: from the request target (HTTP/2, absolute form) or Host; both must agree.
fn authority<B>(request: &Request<B>, https: bool) -> Result<(HeaderValue, usize), Refusal> {
    let bad = |detail: &str| Refusal::new(Reason::BadHost, detail);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host_value = hosts.next();
    let host = host_value.map(|h| h.to_str().map_err(|_| bad("`Host` is not ASCII"))).transpose()?;
    if hosts.next().is_some() {
        return Err(bad("`Host` stands more than once"));
    }
    let target = request.uri().authority().map(|a| a.as_str());
    let named = target.or(host).ok_or_else(|| bad("`Host` is missing"))?;
    if let Some(scheme) = request.uri().scheme_str()
        && !matches!(scheme, "http" | "https")
    {
        return Err(bad("the request target's scheme is not http"));
    }
    if let (None, Some(value), true) = (target, host_value, is_plain_name(named)) {
        return Ok((value.clone(), named.len()));
    }
    let parsed = parse_authority(named, https).ok_or_else(|| bad("this is no host"))?;
    if let (Some(_), Some(host)) = (target, host)
        && parse_authority(host, https).as_ref() != Some(&parsed)
    {
        return Err(bad("`Host` disagrees with the request target"));
    }
    let (authority, host_len) = parsed;
    let value = HeaderValue::try_from(authority).map_err(|_| bad("this is no host"))?;
    Ok((value, host_len))
}

/// A lower-case name without port: the normal form already.
fn is_plain_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'.' || b == b'-';
    let points = text.starts_with('.') || text.ends_with('.') || text.contains("..");
    !text.is_empty() && text.len() <= 253 && text.bytes().all(plain) && !points
}

/// `Example.com:80` → (`example.com`, length of the host); `None` for anything but a host with an optional port.
fn parse_authority(text: &str, https: bool) -> Option<(String, usize)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let mut authority = normal_host(host).ok()?;
    let host_len = authority.len();
    if let Some(port) = port {
        if port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let port: u16 = port.parse().ok()?;
        if port != if https { 443 } else { 80 } {
            authority.push_str(&format!(":{port}"));
        }
    }
    Some((authority, host_len))
}

/// What in a normal path another reader could read differently.
fn ambiguity(path: &str) -> Option<&'static str> {
    let bytes = path.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' => return Some("`\\`"),
            b';' => return Some("`;`"),
            b'/' if bytes.get(i + 1) == Some(&b'/') => return Some("`//`"),
            b'/' if dot_segment(&bytes[i + 1..]) => return Some("a dot segment"),
            b'%' => {
                let escape = bytes.get(i + 1..i + 3).unwrap_or(b"");
                match escape {
                    b"2F" => return Some("`%2F`"),
                    b"5C" => return Some("`%5C`"),
                    b"3B" => return Some("`%3B`"),
                    b"00" => return Some("`%00`"),
                    b"25" if bytes.get(i + 3..i + 5).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)) => {
                        return Some("a double escape");
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    // Only escapes can hold bytes outside ASCII here.
    (path.contains('%') && !decodes_to_utf8(path)).then_some("bytes that are not UTF-8")
}

/// The normal form of `%zz` is `%25zz`, which another reader need not take for the same.
fn broken_escape(raw: &str) -> Option<&'static str> {
    let bytes = raw.as_bytes();
    let broken = |at: usize| !bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let mut signs = raw.match_indices('%').map(|(at, _)| at);
    signs.any(broken).then_some("`%` without two hex digits")
}

fn dot_segment(rest: &[u8]) -> bool {
    let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
    matches!(&rest[..end], b"." | b"..")
}

fn decodes_to_utf8(path: &str) -> bool {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).unwrap_or(0) as u8;
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex(bytes.next()) << 4 | hex(bytes.next()) } else { byte });
    }
    std::str::from_utf8(&decoded).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str, hosts: &[&str]) -> Result<Target, Reason> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        Target::of(&request.body(()).unwrap(), false, 100, |_| true).map_err(|r| r.reason)
    }

    #[test]
    fn one_host_in_one_form() {
        let check = |uri: &str, hosts: &[&str], expect: Result<(&str, &str), Reason>| {
            let found = target(uri, hosts);
            let found = found.as_ref().map(|t| (t.authority(), t.host())).map_err(|r| *r);
            assert_eq!(found, expect, "{uri} {hosts:?}");
        };
        check("/", &["Example.COM"], Ok(("example.com", "example.com")));
        check("/", &["example.com:80"], Ok(("example.com", "example.com")));
        check("/", &["example.com:8402"], Ok(("example.com:8402", "example.com")));
        check("/", &["example.com."], Ok(("example.com", "example.com")));
        check("/", &["[::1]:8402"], Ok(("[::1]:8402", "[::1]")));
        check("/", &["127.0.0.1:8402"], Ok(("127.0.0.1:8402", "127.0.0.1")));
        check("http://a.example/", &["A.example"], Ok(("a.example", "a.example")));
        check("http://a.example/", &["b.example"], Err(Reason::BadHost));
        for hosts in [
            &[][..],
            &["a.example", "a.example"],
            &[""],
            &["a b"],
            &["a/b"],
            &["user@a.example"],
            &["a.example:x"],
            &["a.example:99999"],
            &["a..b"],
            &[".a"],
            &["a,b"],
            &["127.1"],
            &["0x7f.1"],
            &["[::1"],
            &["a.example:"],
        ] {
            if hosts == ["a.example:"] {
                continue;
            }
            check("/", hosts, Err(Reason::BadHost));
        }
    }

    #[test]
    fn one_path_in_one_form() {
        let check = |path: &str, expect: Result<&str, Reason>| {
            let found = target(path, &["a.example"]);
            assert_eq!(found.as_ref().map(|t| t.path()).map_err(|r| *r), expect, "{path}");
        };
        check("/", Ok("/"));
        check("/a/b/", Ok("/a/b/"));
        check("/%61%2d%7E/%c3%a9", Ok("/a-~/%C3%A9"));
        check("/a%20b", Ok("/a%20b"));
        check("/..a/.b/c.", Ok("/..a/.b/c."));
        for path in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/.",
            "/%2e%2e/a",
            "/%2E/a",
            "//a",
            "/a//b",
            "/a%2Fb",
            "/a%2fb",
            "/a%5cb",
            "/a;b",
            "/a%3bb",
            "/a%00",
            "/%252e",
            "/a%25zz%2541",
            "/%ff",
            "/%c0%af",
            "/%c3",
            "/%zz",
            "/x%",
            "/%6",
            "/%%61",
        ] {
            check(path, Err(Reason::AmbiguousPath));
        }
        check(&format!("/{}", "a".repeat(100)), Err(Reason::UrlTooLong));
        let received = target("/%61?q=%61", &["a.example"]).unwrap();
        assert_eq!((received.raw_path(), received.path_and_query().as_str()), ("/%61", "/a?q=%61"));
    }
}
