//! Path patterns, the normal form of paths, and paths that no wildcard prices.

use std::borrow::Cow;

use crate::wire::host::Complaint;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;
/// A pattern inside this prefix is meant for it.
const ACME: &str = "/.well-known/acme-challenge/";

/// A path pattern: `/a/b`, `/a/*`, `/users/{id}/posts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern in normal form, as it is shown.
    pub text: String,
    pub(super) segments: Vec<Segment>,
    /// Ends with `/*`.
    pub(super) prefix: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Every escape decoded.
    Literal(Vec<u8>),
    /// `{name}`: any one segment that is not empty.
    Named,
}

impl Pattern {
    /// Reads a pattern and brings it to normal form.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Pattern, Complaint> {
        let complain = |reason: &str, hint: Option<String>| Err((reason.to_owned(), hint));
        if text.is_empty() {
            return complain("a path cannot be empty", Some("write `/*` for every path".to_owned()));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return complain(&format!("a path pattern has at most {PATTERN_BYTES_MAX} bytes"), None);
        }
        if text == "*" {
            return complain("a path starts with `/`", Some("write `/*`".to_owned()));
        }
        if !text.starts_with('/') {
            let hint =
                if text.contains("://") { "put the host into `host`".to_owned() } else { format!("write `/{text}`") };
            return complain("a path starts with `/`", Some(hint));
        }
        if let Some((path, _)) = text.split_once('?') {
            return complain("a query is not part of a path pattern", Some(format!("write `{path}`")));
        }
        if let Some((path, _)) = text.split_once('#') {
            return complain("a fragment never reaches a server", Some(format!("write `{path}`")));
        }
        let (body, prefix) = match text.strip_suffix("/*") {
            Some(body) => (body, true),
            None => (text, false),
        };
        if body.contains('*') {
            let hint = match body.strip_suffix('*') {
                Some(rest) if !prefix && !rest.contains('*') => format!("write `{rest}/*`, or `%2A` for a literal `*`"),
                _ => "write `{name}` for one segment, or `%2A` for a literal `*`".to_owned(),
            };
            return complain("`*` can only be the last segment, as in `/p/*`", Some(hint));
        }
        check_characters(body)?;
        let normal = normal_escapes(body);
        let mut segments = Vec::new();
        let mut names = Vec::new();
        let mut parts = normal.split('/').skip(1).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            if part.is_empty() && (prefix || !last) {
                return complain("`//` is refused in requests, so it would never match", None);
            }
            if part == "." || part == ".." {
                return complain("`.` and `..` segments are refused in requests, so they would never match", None);
            }
            segments.push(match name(part)? {
                Some(name) if names.contains(&name) => {
                    return complain(&format!("the name `{name}` is used twice"), None);
                }
                Some(name) => {
                    names.push(name);
                    Segment::Named
                }
                None => Segment::Literal(decoded(part.as_bytes()).collect()),
            });
        }
        let text = format!("{normal}{}", if prefix { "/*" } else { "" });
        Ok(Pattern { text, segments, prefix })
    }

    /// Whether the pattern was written for exactly what is otherwise always free.
    pub(super) fn explicit(&self) -> bool {
        (!self.prefix && !self.segments.contains(&Segment::Named)) || self.text.starts_with(ACME)
    }
}

/// `Some(name)` of `{name}`.
fn name(part: &str) -> Result<Option<&str>, Complaint> {
    if !part.contains(['{', '}']) {
        return Ok(None);
    }
    let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')).filter(|n| !n.contains(['{', '}']))
    else {
        let hint = "write `/{name}/`, or `%7B` and `%7D` for literal braces";
        return Err((format!("a name fills its whole segment, unlike in `{part}`"), Some(hint.to_owned())));
    };
    if name.is_empty() {
        return Err(("a name in braces cannot be empty".to_owned(), Some("write `{name}`".to_owned())));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err((format!("the name `{name}` may only have letters, digits and `_`"), None));
    }
    Ok(Some(name))
}

/// Refuses what the normal form of a request never contains, or what is refused in requests.
fn check_characters(text: &str) -> Result<(), Complaint> {
    let bytes = text.as_bytes();
    for (at, c) in text.char_indices() {
        match c {
            '%' => {
                let Some(value) = escape(&bytes[at..]) else {
                    let reason = "`%` is not followed by two hexadecimal digits".to_owned();
                    return Err((reason, Some("write `%25` for a literal `%`".to_owned())));
                };
                let refused = |what: &str| {
                    Err((format!("`{what}` is refused in requests on priced hosts, so it would never match"), None))
                };
                match value {
                    0 => return refused("%00"),
                    b'/' => return refused("%2F"),
                    b'\\' => return refused("%5C"),
                    b';' => return refused("%3B"),
                    b'%' if bytes[at + 3..].len() >= 2 && bytes[at + 3..at + 5].iter().all(u8::is_ascii_hexdigit) => {
                        return refused("%25` before hexadecimal digits, as in `%2541");
                    }
                    _ => {}
                }
            }
            ';' | '\\' => {
                return Err((format!("`{c}` is refused in requests on priced hosts, so it would never match"), None));
            }
            '{' | '}' => {}
            c if is_path_char(c) => {}
            c => {
                let mut buffer = [0; 4];
                let escaped: String = c.encode_utf8(&mut buffer).bytes().map(|byte| format!("%{byte:02X}")).collect();
                return Err((
                    format!("`{}` never arrives like this in a request", c.escape_debug()),
                    Some(format!("write it as `{escaped}`")),
                ));
            }
        }
    }
    if std::str::from_utf8(&decoded(bytes).collect::<Vec<_>>()).is_err() {
        return Err(("the escapes are not valid UTF-8, which is refused in requests on priced hosts".to_owned(), None));
    }
    Ok(())
}

/// A method of a route: a token without lower-case letters.
pub(super) fn check_method(method: &str) -> Result<(), Complaint> {
    if method.is_empty() {
        return Err(("a method cannot be empty".to_owned(), Some("leave `methods` out for all".to_owned())));
    }
    if method == "*" {
        return Err(("`*` is not a method".to_owned(), Some("leave `methods` out for all".to_owned())));
    }
    if !method.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
        return Err((format!("`{}` is not a method", method.escape_debug()), None));
    }
    if method.bytes().any(|b| b.is_ascii_lowercase()) {
        let hint = format!("write `{}`", method.to_ascii_uppercase());
        return Err(("methods are case-sensitive, and this one would never match".to_owned(), Some(hint)));
    }
    Ok(())
}

/// Paths that crawlers must be able to read to behave, that tell what is sold and whose key it is, and that certificates
/// hang on.
pub(super) fn always_free(path: &str) -> bool {
    let sitemap = || {
        let name = path.strip_prefix("/sitemap")?;
        let stem = name.strip_suffix(".xml").or_else(|| name.strip_suffix(".xml.gz"))?;
        Some(stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
    };
    match path {
        "/robots.txt"
        | "/security.txt"
        | "/crawlers.json"
        | "/.well-known/security.txt"
        | "/.well-known/x402"
        | "/.well-known/x402.json"
        | "/.well-known/did.json"
        | "/.well-known/http-message-signatures-directory" => true,
        _ if path.starts_with("/sitemap") => sitemap().unwrap_or(false),
        _ => path.strip_prefix(ACME).is_some_and(|token| {
            token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) && !token.is_empty()
        }),
    }
}

/// The one form of a request's path: escapes of unreserved characters decoded once, other escapes upper-cased,
/// characters that RFC 3986 has not in a path escaped, and a `%` that starts no escape as `%25`. A fixed point; borrowed
/// when nothing changes. What is ambiguous (`;`, `\`, `//`, dot segments, `%2F`) stays for the caller to refuse.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    let plain = |b: u8| is_path_char(char::from(b)) || b == b'\\' || b == b';';
    if path.bytes().all(|b| b != b'%' && plain(b)) {
        return Cow::Borrowed(path);
    }
    let mut normal = String::with_capacity(path.len() + 8);
    for c in normal_escapes(path).chars() {
        if c == '%' || (c.is_ascii() && plain(c as u8)) {
            normal.push(c);
            continue;
        }
        let mut buffer = [0; 4];
        c.encode_utf8(&mut buffer).bytes().for_each(|byte| push_escape(&mut normal, byte));
    }
    Cow::Owned(normal)
}

fn normal_escapes(path: &str) -> String {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        normal.push_str(&rest[..at]);
        match escape(&rest.as_bytes()[at..]) {
            Some(byte) => {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    normal.push(char::from(byte));
                } else {
                    push_escape(&mut normal, byte);
                }
                rest = &rest[at + 3..];
            }
            None => {
                // Left alone, `%4%61` would become an escape that was not one.
                normal.push_str("%25");
                rest = &rest[at + 1..];
            }
        }
    }
    normal.push_str(rest);
    normal
}

fn push_escape(text: &mut String, byte: u8) {
    let digit = |n: u8| char::from(b"0123456789ABCDEF"[usize::from(n & 15)]);
    text.push('%');
    text.push(digit(byte >> 4));
    text.push(digit(byte));
}

/// `pchar` of RFC 3986 §3.3, and `/`, but neither `%` nor `;`.
fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,=:@/".contains(c)
}

/// The byte that `%XX` at the start of `bytes` stands for.
fn escape(bytes: &[u8]) -> Option<u8> {
    let hex = |b: u8| char::from(b).to_digit(16);
    match bytes {
        [b'%', high, low, ..] => u8::try_from(hex(*high)? * 16 + hex(*low)?).ok(),
        _ => None,
    }
}

/// Bytes with each escape decoded once; a `%` that starts no escape stays.
pub(super) fn decoded(mut bytes: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (first, rest) = bytes.split_first()?;
        if *first == b'%'
            && let Some(byte) = escape(bytes)
        {
            bytes = &bytes[3..];
            return Some(byte);
        }
        bytes = rest;
        Some(*first)
    })
}
