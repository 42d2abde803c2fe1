//! Entity tags of documents that are made here: `"Zm9vYmFyYmF6cXV4"` (RFC 9110 §8.8.3).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

/// The strong tag of these bytes.
pub fn of(body: &[u8]) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(body)[..12]))
}

/// Whether If-None-Match names the tag (RFC 9110 §13.1.2: weak comparison, `*` matches).
pub fn is_known(tag: &str, asked: &HeaderMap) -> bool {
    let lines = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_in_any_list_and_strength() {
        let tag = of(b"body");
        assert_eq!((tag.len(), of(b"other") == tag), (18, false));
        let known = |lines: &[&str]| {
            let mut asked = HeaderMap::new();
            for line in lines {
                asked.append(header::IF_NONE_MATCH, line.parse().unwrap());
            }
            is_known(&tag, &asked)
        };
        let weak = format!("\"x\" , W/{tag}");
        assert!(known(&[&tag]) && known(&["*"]) && known(&["\"x\"", &weak]));
        assert!(!known(&[]) && !known(&["\"x\""]) && !known(&[tag.trim_matches('"')]));
    }
}
