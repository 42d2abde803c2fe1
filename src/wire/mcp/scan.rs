//! Where the parts of a JSON text stand, so that one can be taken out or put in and the others stay as they are: numbers
//! keep their digits, strings their escapes.

use std::borrow::Cow;
use std::ops::Range;

/// Deepest nesting that is read. Parsers of servers have limits of their own, many at 128.
pub const DEPTH_MAX: usize = 128;

/// A member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'t> {
    /// Its name, unescaped.
    pub name: Cow<'t, str>,
    /// Where its name begins, with the quote.
    pub from: usize,
    /// Where its value stands.
    pub value: Range<usize>,
}

/// Why a text is not the JSON that was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON (RFC 8259).
    #[error("no JSON at byte {0}")]
    Syntax(usize),
    /// More than [`DEPTH_MAX`] levels.
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// A name that stands twice, in whatever spelling.
    #[error("the member `{0}` stands twice")]
    Twice(String),
    /// A name that some readers take for another one.
    #[error("a member is spelled like `{0}` but for its case")]
    Case(&'static str),
}

/// Reads one value and nothing after it: where it stands.
///
/// # Errors
/// [`JsonError::Syntax`], [`JsonError::TooDeep`].
pub fn value(text: &str) -> Result<Range<usize>, JsonError> {
    let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
    cursor.space();
    let from = cursor.at;
    cursor.value()?;
    let whole = from..cursor.at;
    cursor.space();
    if cursor.at == text.len() { Ok(whole) } else { Err(JsonError::Syntax(cursor.at)) }
}

/// The members of the object that stands at `object` in a text that [`value`] has read, in their order; none twice. `known` are names that matter: a member
/// that differs from one in case alone is refused, since readers that ignore case (Go, .NET) would take it for that one.
///
/// # Errors
/// [`JsonError`], also for what is no object.
pub fn members<'t>(text: &'t str, object: &Range<usize>, known: &[&'static str]) -> Result<Vec<Member<'t>>, JsonError> {
    let mut cursor = Cursor { text: &text.as_bytes()[..object.end], at: object.start };
    let mut members = Vec::new();
    cursor.expect(b'{')?;
    cursor.space();
    while cursor.peek() != Some(b'}') {
        let from = cursor.at;
        cursor.string()?;
        let name = unquoted(&text[from..cursor.at]).ok_or(JsonError::Syntax(from))?;
        cursor.colon()?;
        cursor.space();
        let begin = cursor.at;
        cursor.value()?;
        members.push(Member { name, from, value: begin..cursor.at });
        cursor.space();
        if cursor.peek() == Some(b',') {
            cursor.at += 1;
            cursor.space();
        }
    }
    let mut names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(JsonError::Twice(pair[0].chars().take(40).collect()));
    }
    let known: Vec<(&'static str, String)> = known.iter().map(|known| (*known, folded(known))).collect();
    for name in names {
        let folded = folded(name);
        if let Some((like, _)) = known.iter().find(|(known, as_folded)| folded == *as_folded && name != *known) {
            return Err(JsonError::Case(like));
        }
    }
    Ok(members)
}

/// The elements of the array that stands at `array` in a text that [`value`] has read.
///
/// # Errors
/// [`JsonError`], also for what is no array.
pub fn elements(text: &str, array: &Range<usize>) -> Result<Vec<Range<usize>>, JsonError> {
    let mut cursor = Cursor { text: &text.as_bytes()[..array.end], at: array.start };
    let mut elements = Vec::new();
    cursor.expect(b'[')?;
    cursor.space();
    while cursor.peek() != Some(b']') {
        let from = cursor.at;
        cursor.value()?;
        elements.push(from..cursor.at);
        cursor.space();
        if cursor.peek() == Some(b',') {
            cursor.at += 1;
            cursor.space();
        }
    }
    Ok(elements)
}

/// The text of a JSON string; `None` for anything else and for halves of surrogate pairs.
pub fn unquoted(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str::<String>(json).ok().map(Cow::Owned) } else { Some(inner.into()) }
}

/// As readers that ignore case see it: `ſ` is an `s` to them, and the Kelvin sign a `k`.
fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn wrong<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax(self.at))
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return self.wrong();
        }
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn colon(&mut self) -> Result<(), JsonError> {
        self.space();
        self.expect(b':')
    }

    /// Past one value, its space not included.
    fn value(&mut self) -> Result<(), JsonError> {
        // The brackets that are open, by what closes them: no recursion that a peer could drive.
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    let close = bracket + 2;
                    self.at += 1;
                    if open.len() == DEPTH_MAX {
                        return Err(JsonError::TooDeep);
                    }
                    self.space();
                    if self.peek() == Some(close) {
                        self.at += 1;
                    } else {
                        open.push(close);
                        if close == b'}' {
                            self.name()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return self.wrong(),
            }
            loop {
                let Some(close) = open.last().copied() else { return Ok(()) };
                self.space();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if close == b'}' {
                            self.name()?;
                        }
                        break;
                    }
                    Some(byte) if byte == close => {
                        self.at += 1;
                        open.pop();
                    }
                    _ => return self.wrong(),
                }
            }
        }
    }

    fn name(&mut self) -> Result<(), JsonError> {
        self.space();
        self.string()?;
        self.colon()
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.expect(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            let digits = self.text.get(self.at + 1..self.at + 5);
                            if !digits.is_some_and(|four| four.iter().all(u8::is_ascii_hexdigit)) {
                                return self.wrong();
                            }
                            self.at += 5;
                        }
                        _ => return self.wrong(),
                    }
                }
                Some(0x20..) => self.at += 1,
                _ => return self.wrong(),
            }
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.wrong();
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return self.wrong();
        }
        self.at += word.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_are_found_where_they_stand() {
        let text = " {\"a\" : 1.50e2 ,\"\\u0062\":[{\"a\":2}], \"c\":{}} ";
        let whole = value(text).unwrap();
        let found = members(text, &whole, &[]).unwrap();
        let shown: Vec<(&str, &str)> = found.iter().map(|m| (&*m.name, &text[m.value.clone()])).collect();
        assert_eq!(shown, [("a", "1.50e2"), ("b", "[{\"a\":2}]"), ("c", "{}")]);
        let items = elements(text, &found[1].value).unwrap();
        assert_eq!(&text[items[0].clone()], "{\"a\":2}");
    }

    #[test]
    fn what_two_readers_could_see_differently_is_refused() {
        let check = |text: &str, expect: JsonError| {
            let found = value(text).and_then(|whole| members(text, &whole, &["method", "id"]));
            assert_eq!(found, Err(expect), "{text}");
        };
        check(r#"{"a":1,"\u0061":2}"#, JsonError::Twice("a".into()));
        check(r#"{"Method":1}"#, JsonError::Case("method"));
        check(r#"{"method":1,"\u004dETHOD":1}"#, JsonError::Case("method"));
        check(r#"{"Id":1}"#, JsonError::Case("id"));
        let found = members(r#"{"isError":1,"iserror":2}"#, &(0..25), &["isError"]);
        assert_eq!(found, Err(JsonError::Case("isError")), "a name may have capitals itself");
        check(r#"[1]"#, JsonError::Syntax(0));
        check(r#"{"\ud800":1}"#, JsonError::Syntax(1));
        // To a reader that ignores case the long s is an s, the Kelvin sign a k.
        let known = ["params", "k"];
        for text in ["{\"param\u{17f}\":1}", "{\"\u{212a}\":1}"] {
            assert!(matches!(members(text, &(0..text.len()), &known), Err(JsonError::Case(_))), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| [vec!["["; depth], vec!["]"; depth]].concat().concat();
        assert!(value(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(value(&nested(DEPTH_MAX + 1)), Err(JsonError::TooDeep));
        assert_eq!(value(&"[".repeat(1 << 20)), Err(JsonError::TooDeep));
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in r#"[\[\]{}:,"\\ua0-9.eE+ \-truefalsn]{0,24}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match (value(&text), theirs) {
                (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
                // Numbers beyond floats and halves of surrogate pairs are JSON all the same.
                (Ok(_), Err(e)) => {
                    let e = e.to_string();
                    prop_assert!(e.contains("out of range") || e.contains("surrogate") || e.contains("hex escape"), "{text} {e}");
                }
                (Err(e), Ok(_)) => prop_assert!(false, "{text}: {e}"),
            }
        }
    }
}
