//! One host's patterns, by segment.

use std::cmp::Ordering;

use super::{
    Found, RouteSpec,
    pattern::{Pattern, Segment, decoded},
};

/// A trie of segments. A node is reached by exactly one sequence of segments, so a lookup visits each at most once.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by decoded segment.
    literals: Vec<(Box<[u8]>, usize)>,
    named: Option<usize>,
    /// The pattern that ends here.
    end: Option<usize>,
    /// The pattern that ends here with `/*`.
    prefix: Option<usize>,
}

/// All routes of one pattern.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Beats the paths that are otherwise always free.
    pub(super) explicit: bool,
    /// Also stands for its path with a slash behind it, unless that has a pattern of its own: priced, and not a prefix.
    with_slash: bool,
    /// No methods: all.
    routes: Vec<(Vec<String>, usize)>,
    allow: String,
}

impl Default for Trie {
    fn default() -> Trie {
        Trie { nodes: vec![Node::default()], entries: Vec::new() }
    }
}

impl Trie {
    /// Adds a route, or returns the one that holds the same pattern and method.
    pub(super) fn insert(&mut self, pattern: &Pattern, route: &RouteSpec, ignore_case: bool) -> Result<(), usize> {
        let mut node = 0;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(bytes) if ignore_case => self.literal(node, fold_decoded(bytes.iter().copied())),
                Segment::Literal(bytes) => self.literal(node, bytes.clone()),
                Segment::Named => match self.nodes[node].named {
                    Some(next) => next,
                    None => {
                        let next = self.push();
                        self.nodes[node].named = Some(next);
                        next
                    }
                },
            };
        }
        let node = &mut self.nodes[node];
        let slot = if pattern.prefix { &mut node.prefix } else { &mut node.end };
        let entry = *slot.get_or_insert_with(|| {
            self.entries.push(Entry { explicit: pattern.explicit(), ..Entry::default() });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[entry];
        if let Some((_, other)) = entry.routes.iter().find(|(methods, _)| overlap(methods, &route.methods)) {
            return Err(*other);
        }
        entry.routes.push((route.methods.clone(), route.index));
        let ends_with_slash = pattern.segments.last() == Some(&Segment::Literal(Vec::new()));
        entry.with_slash |= route.priced && !pattern.prefix && !ends_with_slash;
        Ok(())
    }

    /// The other routes of the pattern that this route has.
    pub(super) fn same_pattern(&self, route: usize) -> impl Iterator<Item = usize> {
        let indexes = |entry: &Entry| entry.routes.iter().map(|(_, index)| *index).collect::<Vec<_>>();
        let with_it = self.entries.iter().map(indexes).find(|indexes| indexes.contains(&route));
        with_it.unwrap_or_default().into_iter().filter(move |other| *other != route)
    }

    /// Prepares what lookups return.
    pub(super) fn finish(&mut self) {
        for entry in &mut self.entries {
            let mut allow: Vec<&str> = Vec::new();
            for method in entry.routes.iter().flat_map(|(methods, _)| methods) {
                let head = (method == "GET").then_some("HEAD");
                for method in [method.as_str()].into_iter().chain(head) {
                    if !allow.contains(&method) {
                        allow.push(method);
                    }
                }
            }
            entry.allow = allow.join(", ");
        }
    }

    /// The most specific pattern of a path; `folded` when [`fold`] made it, so that nothing is left to decode.
    pub(super) fn find(&self, path: &[u8], folded: bool) -> Option<&Entry> {
        let rest = path.strip_prefix(b"/").unwrap_or(path);
        let mut prefix = None;
        let end = self.walk(0, Some(rest), 0, folded, &mut prefix);
        end.or(prefix.map(|(_, entry)| entry)).map(|entry| &self.entries[entry])
    }

    /// Literals before names, so that the first end found is the most specific, and of equally deep prefixes the first.
    /// Recursion is as deep as the longest pattern, at most.
    fn walk(
        &self,
        node: usize,
        rest: Option<&[u8]>,
        depth: usize,
        folded: bool,
        prefix: &mut Option<(usize, usize)>,
    ) -> Option<usize> {
        let node = &self.nodes[node];
        if let Some(entry) = node.prefix
            && prefix.is_none_or(|(best, _)| depth > best)
        {
            *prefix = Some((depth, entry));
        }
        let Some(rest) = rest else {
            return node.end;
        };
        let (segment, rest) = match rest.iter().position(|b| *b == b'/') {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        if let Ok(at) = node.literals.binary_search_by(|(literal, _)| compare(literal, segment, folded))
            && let Some(end) = self.walk(node.literals[at].1, rest, depth + 1, folded, prefix)
        {
            return Some(end);
        }
        // Origins often serve `/a/` like `/a`, so the price of `/a` is not walked around by a slash.
        if segment.is_empty() && rest.is_none() && node.end.is_some_and(|entry| self.entries[entry].with_slash) {
            return node.end;
        }
        let named = node.named.filter(|_| !segment.is_empty())?;
        self.walk(named, rest, depth + 1, folded, prefix)
    }

    fn literal(&mut self, node: usize, bytes: Vec<u8>) -> usize {
        match self.nodes[node].literals.binary_search_by(|(literal, _)| literal.as_ref().cmp(&bytes)) {
            Ok(at) => self.nodes[node].literals[at].1,
            Err(at) => {
                let next = self.push();
                self.nodes[node].literals.insert(at, (bytes.into(), next));
                next
            }
        }
    }

    fn push(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }
}

impl Entry {
    /// The route of a method, without fall-through.
    pub(super) fn method(&self, method: &str) -> Found<'_> {
        match self.routes.iter().find(|(methods, _)| names(methods, method)) {
            Some((_, index)) => Found::Route(*index),
            None => Found::MethodNotAllowed(&self.allow),
        }
    }
}

fn names(methods: &[String], method: &str) -> bool {
    methods.is_empty() || methods.iter().any(|m| m == method || (m == "GET" && method == "HEAD"))
}

fn overlap(a: &[String], b: &[String]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|m| names(b, m)) || b.iter().any(|m| names(a, m))
}

/// Compares a stored segment with one of a request.
fn compare(literal: &[u8], segment: &[u8], folded: bool) -> Ordering {
    if folded || !segment.contains(&b'%') {
        literal.cmp(segment)
    } else {
        literal.iter().copied().cmp(decoded(segment))
    }
}

/// A path for hosts that ignore case: segments decoded, then folded. An escaped slash stays escaped, which no literal is.
pub(super) fn fold(path: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(path.len());
    for (at, segment) in path.split(|b| *b == b'/').enumerate() {
        if at > 0 {
            folded.push(b'/');
        }
        let segment = fold_decoded(decoded(segment));
        for byte in segment {
            if byte == b'/' { folded.extend(b"%2f") } else { folded.push(byte) }
        }
    }
    folded
}

/// Upper then lower case, which joins at least what file systems and frameworks join; bytes that are no UTF-8 stay.
fn fold_decoded(bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    let bytes: Vec<u8> = bytes.collect();
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.is_ascii() => {
            text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect::<String>().into_bytes()
        }
        _ => bytes.to_ascii_lowercase(),
    }
}
