//! Secrets that stand in a configuration are not shown with its mistakes.

/// The same text, as long as before, without passwords of URLs and private members of keys.
pub(super) fn masked(text: &str) -> String {
    let mut out = text.to_owned();
    for (at, _) in text.match_indices("://") {
        let authority = &text[at + 3..];
        let end = authority.find(|c: char| c.is_whitespace() || "\"'/?#`".contains(c)).unwrap_or(authority.len());
        // A password may hold what a URL may not.
        let line = &authority[..authority.find(['\n', '"', '\'', '`']).unwrap_or(authority.len())];
        let Some(host) = authority[..end].rfind('@').or_else(|| line.rfind('@')) else { continue };
        if let Some(colon) = authority[..host].find(':') {
            cover(&mut out, at + 3 + colon + 1, at + 3 + host);
        }
    }
    for name in ["\"d\"", "\\\"d\\\"", "\"k\"", "\\\"k\\\""] {
        for (at, found) in text.match_indices(name) {
            let rest = &text[at + found.len()..];
            let value = rest.trim_start_matches([' ', '\t', ':', '"', '\\']);
            let start = at + found.len() + (rest.len() - value.len());
            let end = value.find(|c: char| !(c.is_ascii_alphanumeric() || "-_=+/".contains(c))).unwrap_or(value.len());
            cover(&mut out, start, start + end);
        }
    }
    out
}

/// Stars for what stands between two places of the text.
fn cover(text: &mut String, from: usize, to: usize) {
    text.replace_range(from..to, &"*".repeat(to - from));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passwords_and_private_members_are_covered_and_nothing_else() {
        for (text, expected) in [
            ("url = \"postgres://me:pass@db/books\" # x", "url = \"postgres://me:****@db/books\" # x"),
            ("u = 'postgres://me:p/s?#@db/books'", "u = 'postgres://me:*****@db/books'"),
            ("u = 'postgres://me@db:5432/books'", "u = 'postgres://me@db:5432/books'"),
            ("public_url = \"https://a.example:8443/\"", "public_url = \"https://a.example:8443/\""),
            ("a = \"https://a:1/\"\nmail = \"x@y\"", "a = \"https://a:1/\"\nmail = \"x@y\""),
            (r#"k = '{"kty":"OKP","d":"abc-_1","x":"y"}'"#, r#"k = '{"kty":"OKP","d":"******","x":"y"}'"#),
            (r#"k = "{\"d\": \"abc\"}""#, r#"k = "{\"d\": \"***\"}""#),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_stays_as_long(text in ".*|[a:/@\"'d\\\\ \n]{0,40}") {
            prop_assert_eq!(masked(&text).len(), text.len());
        }
    }
}
