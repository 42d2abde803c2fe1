//! What of a target its column keeps: `ledger.keep_targets`.
//!
//! | setting | `target` | `target_salt`, `target_digest` |
//! |---|---|---|
//! | `full` | `https://shop.example/a?b=c` | over the whole target |
//! | `path` | `https://shop.example/a?…` | the same |
//! | `hash` | null | the same |
//!
//! Whoever knows the whole target can show it by the digest, and so does the evidence, which names it: it is the proof of who
//! bought what, and is not shortened. It goes with its archive (`ledger archive --drop evidence`).

use std::borrow::Cow;

use super::evidence::Proof;

/// What of a target is kept beside its digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepTargets {
    /// All of it.
    #[default]
    Full,
    /// All but its query.
    Path,
    /// Nothing.
    Hash,
}

/// What stands for a query that is not kept.
const QUERY: &str = "?…";

impl KeepTargets {
    /// The column of a target.
    pub(super) fn kept(self, target: &str) -> Option<Cow<'_, str>> {
        match self {
            KeepTargets::Full => Some(Cow::Borrowed(target)),
            KeepTargets::Path => Some(without_query(target)),
            KeepTargets::Hash => None,
        }
    }
}

/// A target without its query; what is called of an MCP server stays.
fn without_query(target: &str) -> Cow<'_, str> {
    let (url, call) = target.split_at(target.find('#').unwrap_or(target.len()));
    match url.split_once('?') {
        None => Cow::Borrowed(target),
        Some((path, _)) => Cow::Owned(format!("{path}{QUERY}{call}")),
    }
}

/// Whether a column is what one of the settings keeps of a target.
pub(super) fn is_kept_of(column: &str, target: &str) -> bool {
    column == target || column == without_query(target)
}

/// The whole target of an entry, from its evidence where the column has less.
pub(super) fn whole(column: Option<&str>, evidence: Option<&[u8]>) -> Option<String> {
    let named = match evidence.map(Proof::decode) {
        Some(Ok(Proof::Signed(evidence))) => Some(evidence.target),
        Some(Ok(Proof::Settled(evidence))) => Some(evidence.target),
        _ => None,
    };
    match (column, named) {
        (Some(column), Some(named)) if !is_kept_of(column, &named) => Some(column.to_owned()),
        (column, named) => named.or_else(|| column.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_left_out_and_what_is_called_is_not() {
        let kept = |keep: KeepTargets, target: &'static str| keep.kept(target).map(Cow::into_owned);
        let target = "https://a.example/p?q=?x";
        assert_eq!(kept(KeepTargets::Full, target).as_deref(), Some(target));
        assert_eq!(kept(KeepTargets::Path, target).as_deref(), Some("https://a.example/p?…"));
        assert_eq!(kept(KeepTargets::Hash, target), None);
        assert_eq!(kept(KeepTargets::Path, "https://a.example/p").as_deref(), Some("https://a.example/p"));
        let call = kept(KeepTargets::Path, "http://a.example/mcp?k=v#tool/a%3F;sha256=AA");
        assert_eq!(call.as_deref(), Some("http://a.example/mcp?…#tool/a%3F;sha256=AA"));
        assert_eq!(
            kept(KeepTargets::Path, "http://a.example/mcp#tool/a?b").as_deref(),
            Some("http://a.example/mcp#tool/a?b")
        );
        assert!(is_kept_of("https://a.example/p?…", target) && !is_kept_of("https://a.example/q?…", target));
    }
}
