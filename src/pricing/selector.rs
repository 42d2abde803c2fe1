//! What an MCP server sells at one path: tools, prompts and resources by name.

use std::collections::HashMap;

use crate::wire::mcp::{Kind, uri};

/// What a route sells: `tool = "add"`, `resource = "memo://*"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Of which kind.
    pub kind: Kind,
    /// The name or URI, or the start of it.
    pub name: String,
    /// Names that begin with it count too.
    pub prefix: bool,
}

impl Selector {
    /// Reads what stands in a route; a `*` at the end stands for any rest.
    ///
    /// # Errors
    /// What is wrong, in a sentence without capital and full stop.
    pub fn parse(kind: Kind, text: &str) -> Result<Selector, String> {
        let (name, prefix) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        if name.is_empty() && !prefix {
            return Err("expected a name, or `*` for all".to_owned());
        }
        if name.contains('*') {
            return Err("a `*` can stand at the end only".to_owned());
        }
        // A beginning is whole enough to be looked at once something stands behind it.
        let whole = if prefix { format!("{name}x/") } else { name.to_owned() };
        if kind == Kind::Resource && !name.is_empty() && !uri::is_normal(&whole) {
            return Err(
                "the URI is not in the form that URL parsers leave as it is (lower-case scheme and host, no dot \
                        segments, upper-case escapes only where needed)"
                    .to_owned(),
            );
        }
        Ok(Selector { kind, name: name.to_owned(), prefix })
    }
}

impl std::fmt::Display for Selector {
    /// `tool/add`, `resource/memo://*`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}{}", self.kind.word(), self.name, if self.prefix { "*" } else { "" })
    }
}

/// The selectors of one path.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    exact: HashMap<(Kind, String), usize>,
    /// The longest first.
    prefixes: Vec<(Kind, String, usize)>,
    resources: bool,
}

impl Selectors {
    /// Adds the selector of a route, by the route's index.
    ///
    /// # Errors
    /// The route that has the same selector.
    pub fn insert(&mut self, selector: &Selector, route: usize) -> Result<(), usize> {
        let Selector { kind, name, prefix } = selector;
        self.resources |= *kind == Kind::Resource;
        if !prefix {
            let key = (*kind, name.clone());
            if let Some(other) = self.exact.get(&key) {
                return Err(*other);
            }
            self.exact.insert(key, route);
            return Ok(());
        }
        if let Some((_, _, other)) = self.prefixes.iter().find(|(k, n, _)| k == kind && n == name) {
            return Err(*other);
        }
        self.prefixes.push((*kind, name.clone(), route));
        self.prefixes.sort_by_key(|(_, name, _)| std::cmp::Reverse(name.len()));
        Ok(())
    }

    /// The route that sells it: an exact name, else the longest beginning.
    pub fn find(&self, kind: Kind, name: &str) -> Option<usize> {
        if let Some(route) = self.exact.get(&(kind, name.to_owned())) {
            return Some(*route);
        }
        let begins = |(k, start, _): &&(Kind, String, usize)| *k == kind && name.starts_with(start.as_str());
        self.prefixes.iter().find(begins).map(|(_, _, route)| *route)
    }

    /// Whether resources are sold, so that a URI must have one spelling.
    pub fn sells_resources(&self) -> bool {
        self.resources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_selector_wins() {
        let mut selectors = Selectors::default();
        let all = [("add", 0), ("*", 1), ("a*", 2), ("ad*", 3)];
        for (text, route) in all {
            selectors.insert(&Selector::parse(Kind::Tool, text).unwrap(), route).unwrap();
        }
        for (text, route) in all {
            assert_eq!(selectors.insert(&Selector::parse(Kind::Tool, text).unwrap(), 9), Err(route));
        }
        let find = |name| selectors.find(Kind::Tool, name);
        assert_eq!([find("add"), find("adder"), find("abc"), find("Add"), find("")], [0, 3, 2, 1, 1].map(Some));
        assert_eq!(selectors.find(Kind::Prompt, "add"), None);
        assert!(!selectors.sells_resources());
        selectors.insert(&Selector::parse(Kind::Resource, "memo://*").unwrap(), 4).unwrap();
        assert_eq!((selectors.find(Kind::Resource, "memo://a"), selectors.sells_resources()), (Some(4), true));
    }

    #[test]
    fn selectors_that_could_never_match_are_refused() {
        for (kind, text) in [
            (Kind::Tool, ""),
            (Kind::Tool, "a*b"),
            (Kind::Resource, "Memo://a"),
            (Kind::Resource, "https://a.example"),
            (Kind::Resource, "memo"),
        ] {
            assert!(Selector::parse(kind, text).is_err(), "{text}");
        }
        for text in ["*", "memo://*", "memo://a", "https://a.example/x*", "file:///*", "https://*"] {
            assert!(Selector::parse(Kind::Resource, text).is_ok(), "{text}");
        }
        assert_eq!(Selector::parse(Kind::Tool, "a*").unwrap().to_string(), "tool/a*");
    }
}
