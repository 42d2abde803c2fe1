//! JSON text with holes, cut once and filled for each request.

/// Something that is known only when a request is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    /// The absolute URL.
    Resource,
    /// The sealed id of the entry with this index.
    Id(usize),
    /// The signature of the entry with this index.
    Signed(usize),
    /// The code of what is wrong.
    Error,
    /// The same for people.
    Message,
}

/// `text hole text hole … text`
#[derive(Debug)]
pub struct Pieces {
    first: String,
    rest: Vec<(Hole, String)>,
    bytes: usize,
}

/// What goes into the holes.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// `https://a.example/p`
    pub resource: &'a str,
    /// One for each entry.
    pub ids: &'a [String],
    /// One for each entry, where offers are signed.
    pub signed: &'a [String],
    /// `payment_required`
    pub error: &'a str,
    /// `This resource has a price.`
    pub message: &'a str,
}

/// Makes hole markers that none of the operator's texts contains.
pub struct Holes {
    mark: String,
    ids: usize,
}

impl Holes {
    /// Markers for JSON that contains these texts and so many ids.
    pub fn new<'t>(texts: impl Iterator<Item = &'t str> + Clone, ids: usize) -> Holes {
        let mut mark = String::from("@");
        while texts.clone().any(|t| t.contains(&mark)) {
            mark.push('@');
        }
        Holes { mark, ids }
    }

    /// Stands where a value goes in; JSON escapes none of it.
    pub fn of(&self, hole: Hole) -> String {
        format!("{}<{hole:?}>{}", self.mark, self.mark)
    }

    /// The JSON with its markers cut out.
    pub fn cut(&self, json: &serde_json::Value) -> Pieces {
        let text = json.to_string();
        let ids = (0..self.ids).flat_map(|i| [Hole::Id(i), Hole::Signed(i)]);
        let holes: Vec<(String, Hole)> =
            [Hole::Resource, Hole::Error, Hole::Message].into_iter().chain(ids).map(|h| (self.of(h), h)).collect();
        let next = |text: &str| {
            let found = holes.iter().filter_map(|(mark, hole)| Some((text.find(mark.as_str())?, mark.len(), *hole)));
            found.min_by_key(|(at, ..)| *at)
        };
        let (mut rest, mut left) = (Vec::new(), &*text);
        let mut first = None;
        let mut hole_before = None;
        loop {
            let found = next(left);
            let piece = found.map_or(left, |(at, ..)| &left[..at]).to_owned();
            match hole_before {
                None => first = Some(piece),
                Some(hole) => rest.push((hole, piece)),
            }
            let Some((at, length, hole)) = found else { break };
            hole_before = Some(hole);
            left = &left[at + length..];
        }
        Pieces { first: first.unwrap_or_default(), rest, bytes: text.len() }
    }
}

impl Pieces {
    /// The JSON.
    pub fn fill(&self, filling: &Filling<'_>) -> String {
        let ids: usize = filling.ids.iter().chain(filling.signed).map(String::len).sum();
        let mut text =
            String::with_capacity(self.bytes + ids + 2 * filling.resource.len() + filling.message.len() + 32);
        text.push_str(&self.first);
        for (hole, piece) in &self.rest {
            let value = match hole {
                Hole::Resource => filling.resource,
                Hole::Id(i) => filling.ids.get(*i).map_or("", String::as_str),
                Hole::Signed(i) => filling.signed.get(*i).map_or("", String::as_str),
                Hole::Error => filling.error,
                Hole::Message => filling.message,
            };
            push_escaped(&mut text, value);
            text.push_str(piece);
        }
        text
    }
}

/// Appends `value` as the inside of a JSON string.
fn push_escaped(text: &mut String, value: &str) {
    if !value.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        text.push_str(value);
        return;
    }
    let quoted = serde_json::Value::from(value).to_string();
    text.push_str(&quoted[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn holes_are_filled_with_anything_and_texts_that_look_like_holes_stay() {
        let evil = "@<Resource>@ @@<Id(0)>@@";
        let holes = Holes::new([evil].into_iter(), 2);
        let of = |hole| holes.of(hole);
        let pieces = holes.cut(&json!({
            "a": of(Hole::Id(1)), "b": evil, "c": [of(Hole::Resource), of(Hole::Id(0)), of(Hole::Resource)],
            "d": of(Hole::Error), "e": of(Hole::Message)
        }));
        let ids = ["one".to_owned(), "two".to_owned()];
        let filling = Filling { resource: "u\"\\\n", ids: &ids, signed: &[], error: "@@@", message: "é" };
        let filled: serde_json::Value = serde_json::from_str(&pieces.fill(&filling)).unwrap();
        assert_eq!(filled, json!({"a": "two", "b": evil, "c": ["u\"\\\n", "one", "u\"\\\n"], "d": "@@@", "e": "é"}));
        assert_eq!(Holes::new([].into_iter(), 0).cut(&json!([])).fill(&filling), "[]");
    }
}
