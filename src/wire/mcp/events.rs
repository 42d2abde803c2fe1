//! `text/event-stream` (WHATWG HTML §9.2), cut into events as its bytes come in, each with its own bytes.

/// The field that resumes a broken stream.
pub const LAST_EVENT_ID: &str = "last-event-id";

/// Cuts a stream into events. Lines end with LF, CR or CRLF, in any mix.
#[derive(Debug)]
pub struct Splitter {
    bytes: Vec<u8>,
    /// Where the event begins that is being looked at.
    from: usize,
    /// How far the bytes have been looked through.
    looked: usize,
    /// Where the line begins that is being looked at.
    line: usize,
    /// The last event ended with CR; a LF after it belongs to that end.
    after_cr: bool,
    /// The most bytes that an event may have.
    most: usize,
}

/// An event is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {0} bytes")]
pub struct TooLong(pub usize);

impl Splitter {
    /// A splitter for events of at most so many bytes.
    pub fn new(most: usize) -> Splitter {
        Splitter { bytes: Vec::new(), from: 0, looked: 0, line: 0, after_cr: false, most }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.from);
        self.looked -= self.from;
        self.line -= self.from;
        self.from = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole event, as it came. A lone LF is the second half of the line end before it.
    ///
    /// # Errors
    /// [`TooLong`]; the stream can't be cut any further.
    pub fn event(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        if self.after_cr && self.from < self.bytes.len() {
            self.after_cr = false;
            if self.bytes[self.from] == b'\n' {
                return Ok(Some(self.take(self.from + 1)));
            }
        }
        while let Some(byte) = self.bytes.get(self.looked).copied() {
            let is_blank = self.looked == self.line;
            let end = match (byte, self.bytes.get(self.looked + 1)) {
                (b'\n', _) => self.looked + 1,
                (b'\r', Some(b'\n')) => self.looked + 2,
                (b'\r', Some(_)) => self.looked + 1,
                // It ends here, whether a LF follows or not.
                (b'\r', None) if is_blank => {
                    self.after_cr = true;
                    self.looked + 1
                }
                (b'\r', None) => break,
                _ => {
                    self.looked += 1;
                    continue;
                }
            };
            if is_blank {
                return if end - self.from > self.most { Err(TooLong(self.most)) } else { Ok(Some(self.take(end))) };
            }
            (self.looked, self.line) = (end, end);
        }
        if self.bytes.len() - self.from > self.most { Err(TooLong(self.most)) } else { Ok(None) }
    }

    /// What is left when the stream continues elsewhere: bytes of an event that is not whole yet.
    pub fn rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.from)
    }

    fn take(&mut self, end: usize) -> Vec<u8> {
        let event = self.bytes[self.from..end].to_vec();
        (self.from, self.looked, self.line) = (end, end, end);
        event
    }
}

/// The data of an event, its lines joined by LF; `None` for one without, such as a comment.
pub fn data(event: &[u8]) -> Option<String> {
    let mut data: Option<String> = None;
    for line in lines(event) {
        if let Some(value) = data_of(line) {
            let value = String::from_utf8_lossy(value);
            match &mut data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => data = Some(value.into_owned()),
            }
        }
    }
    data
}

/// The event with other data, in one line; its other lines and comments stay.
pub fn with_data(event: &[u8], text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.len() + text.len() + 8);
    let mut is_written = false;
    for line in lines(event).filter(|line| !line.is_empty()) {
        if data_of(line).is_none() {
            out.extend_from_slice(line);
            out.push(b'\n');
        } else if !is_written {
            is_written = true;
            out.extend(one_line(text));
        }
    }
    out.push(b'\n');
    out
}

/// An event of this data: `data: {…}`.
pub fn event(text: &str) -> Vec<u8> {
    let mut out = one_line(text);
    out.push(b'\n');
    out
}

/// JSON has line ends between its tokens only, where a space does as well.
fn one_line(json: &str) -> Vec<u8> {
    format!("data: {}\n", json.replace(['\n', '\r'], " ")).into_bytes()
}

fn data_of(line: &[u8]) -> Option<&[u8]> {
    let (name, value) = match line.iter().position(|byte| *byte == b':') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &line[line.len()..]),
    };
    // A stream may begin with a byte order mark.
    let name = name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name);
    (name == b"data").then(|| value.strip_prefix(b" ").unwrap_or(value))
}

fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    // The empty line inside CRLF is none to begin with: empty lines say nothing.
    event.split(|byte| matches!(byte, b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All events of a stream that comes in these chunks, and what is left.
    fn split(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut splitter, mut events) = (Splitter::new(1000), Vec::new());
        for chunk in chunks {
            splitter.push(chunk);
            while let Some(event) = splitter.event().unwrap() {
                events.push(event);
            }
        }
        (events, splitter.rest())
    }

    #[test]
    fn events_end_at_blank_lines_of_every_kind() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = ["id: 1", "data: a", "data:b", "", ": hello", "", "data", "", "event: x", "data: c"].join(end);
            let (events, rest) = split(&[stream.as_bytes()]);
            let data: Vec<Option<String>> = events.iter().map(|event| data(event)).collect();
            assert_eq!(data, [Some("a\nb".into()), None, Some(String::new())], "{end:?}");
            assert_eq!([events.concat(), rest].concat(), stream.as_bytes());
        }
    }

    #[test]
    fn data_is_replaced_on_one_line_and_the_rest_stays() {
        let event = b": hi\r\nid: 7\r\ndata: {\r\nevent: message\r\ndata: }\r\n\r\n";
        let expected = ": hi\nid: 7\ndata: {\"a\": 1}\nevent: message\n\n";
        assert_eq!(String::from_utf8(with_data(event, "{\"a\":\n1}")).unwrap(), expected);
        assert_eq!(event_text("{}"), "data: {}\n\n");
    }

    fn event_text(text: &str) -> String {
        String::from_utf8(event(text)).unwrap()
    }

    #[test]
    fn an_event_is_bounded() {
        let mut splitter = Splitter::new(10);
        splitter.push(b"data: 45\n\n");
        assert!(splitter.event().unwrap().is_some());
        splitter.push(b"data: 45678");
        assert_eq!(splitter.event(), Err(TooLong(10)));
        let mut splitter = Splitter::new(10);
        splitter.push(b"data: 456\n\n");
        assert_eq!(splitter.event(), Err(TooLong(10)));
    }

    proptest! {
        #[test]
        fn any_chunks_give_the_same_events(
            stream in "(data: ?a?|data|: c|id: 1|[\r\n]){0,40}", cuts in prop::collection::vec(1_usize..6, 0..80)
        ) {
            let mut chunks: Vec<&[u8]> = Vec::new();
            let mut left = stream.as_bytes();
            for cut in cuts {
                let (chunk, rest) = left.split_at(cut.min(left.len()));
                chunks.push(chunk);
                left = rest;
            }
            chunks.push(left);
            let (whole, whole_rest) = split(&[stream.as_bytes()]);
            let (events, rest) = split(&chunks);
            let said = |events: &[Vec<u8>]| events.iter().filter_map(|event| data(event)).collect::<Vec<_>>();
            prop_assert_eq!(said(&whole), said(&events));
            prop_assert_eq!([events.concat(), rest].concat(), stream.as_bytes());
            prop_assert_eq!([whole.concat(), whole_rest].concat(), stream.as_bytes());
        }
    }
}
