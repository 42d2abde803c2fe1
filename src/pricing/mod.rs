//! Host, path and method → route. Pure: what a route costs and where it leads is the configuration's.
//!
//! [`Table::compile`] makes one matcher out of all routes; [`Table::find`] asks it. Which of several patterns wins:
//!
//! 1. the most specific host whose routes have a matching path: exact, then the longest `*.example.com`, then any host;
//! 2. the most specific path: exact, then named segments (the leftmost literal wins), then the longest prefix;
//! 3. the method inside that pattern, with no fall-through: a method that the pattern does not name is not allowed,
//!    rather than served by a pattern that may be free.
//!
//! A priced pattern that is no prefix, `/a` or `/users/{id}`, also stands for its path with a slash behind it, `/a/`, which
//! origins often serve alike. A pattern that has the slash beats it, `/a/*` and names further left do not. Free patterns
//! stand for what they say.
//!
//! Segments are compared with every escape decoded once, so `/a%2Cb` cannot walk around a price on `/a,b`. A lookup
//! costs O(path) steps plus one visit of each trie node that the path can reach; nothing is hashed, nothing allocated
//! (except on hosts that ignore case).

pub mod crawlers;
mod host;
mod pattern;
mod selector;
#[cfg(test)]
mod tests;
mod trie;

use sha2::{Digest, Sha256};

pub use crawlers::Crawlers;
pub use host::HostPattern;
pub use pattern::{Pattern, normal_path};
pub use selector::{Selector, Selectors};

use self::trie::{Entry, Trie, fold};
use crate::wire::host::Complaint;

/// One route as the matcher needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// What [`Found::Route`] returns, and what problems name.
    pub index: usize,
    /// `example.com`, `*.example.com` (hosts below, not itself), `[::1]`; lower case, no port. None: any host.
    pub host: Option<String>,
    /// `/a/b` (priced, also `/a/b/`), `/a/*` (also `/a` and `/a/`), `/users/{id}/posts`, `/users/{id}/*`.
    pub path: String,
    /// Upper case; empty for all. `GET` stands for `HEAD` too.
    pub methods: Vec<String>,
    /// Whether the route costs something.
    pub priced: bool,
    /// Whether the route's origin ignores the case of paths.
    pub case_insensitive: bool,
}

/// What the matcher needs besides routes.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Hosts served besides those of routes, exact or `*.example.com`.
    pub hosts: Vec<String>,
    /// Whether the origin of requests that no route matches ignores the case of paths.
    pub case_insensitive: bool,
}

/// The compiled matcher.
#[derive(Debug)]
pub struct Table {
    /// Sorted by host.
    exact: Vec<(String, HostTable)>,
    /// Sorted by suffix, `.example.com`.
    below: Vec<(String, HostTable)>,
    any: Option<HostTable>,
    /// Sorted; empty together with `served_below` when every host is served.
    served: Vec<String>,
    /// Sorted suffixes.
    served_below: Vec<String>,
}

/// All routes of one host pattern.
#[derive(Debug, Default)]
struct HostTable {
    trie: Trie,
    /// Paths are folded before they are matched.
    fold: bool,
    priced: bool,
}

/// What stands at a host and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'t> {
    /// The route of this [`RouteSpec::index`].
    Route(usize),
    /// No pattern: free pass-through.
    Free,
    /// `/robots.txt` and the like, which no wildcard prices.
    AlwaysFree,
    /// The pattern does not name the method. Carries the `Allow` field: `GET, HEAD, POST`.
    MethodNotAllowed(&'t str),
    /// The host is not served.
    UnknownHost,
}

/// Which setting of a route is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `host`
    Host,
    /// `path`
    Path,
    /// `methods`
    Methods,
}

/// Why a route cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TableProblem {
    /// [`RouteSpec::index`] of the route.
    pub route: usize,
    /// The other route, where two contradict each other.
    pub other: Option<usize>,
    /// What is wrong.
    pub field: Field,
    /// What is wrong, in a sentence without capital and full stop.
    pub reason: String,
    /// What to write instead, if that is known: `write /p/*`.
    pub hint: Option<String>,
}

impl Table {
    /// Compiles routes, in any order.
    ///
    /// # Errors
    /// Every problem of every route: bad hosts, bad patterns, two routes for the same host, pattern and method.
    pub fn compile(routes: &[RouteSpec], site: &Site) -> Result<Table, Vec<TableProblem>> {
        let mut problems = Vec::new();
        let mut parsed = Vec::new();
        for route in routes {
            let mut complain = |field, (reason, hint): Complaint| {
                problems.push(TableProblem { route: route.index, other: None, field, reason, hint });
            };
            let host = match route.host.as_deref().map(HostPattern::parse).transpose() {
                Ok(host) => Some(host.unwrap_or(HostPattern::Any)),
                Err(complaint) => {
                    complain(Field::Host, complaint);
                    None
                }
            };
            let path = Pattern::parse(&route.path).map_err(|complaint| complain(Field::Path, complaint)).ok();
            for method in &route.methods {
                if let Err(complaint) = pattern::check_method(method) {
                    complain(Field::Methods, complaint);
                }
            }
            if let (Some(host), Some(path)) = (host, path) {
                parsed.push((host, path, route));
            }
        }
        let mut table = Table::of_hosts(parsed.iter().map(|(host, ..)| host), site);
        for (host, _, route) in &parsed {
            let entry = table.entry(host);
            entry.priced |= route.priced;
            entry.fold |= route.case_insensitive;
        }
        table.spread_fold(site.case_insensitive);
        for (host, path, route) in &parsed {
            let entry = table.entry(host);
            let fold = entry.fold;
            if let Err(other) = entry.trie.insert(path, route, fold) {
                let case = if fold { ", because case does not matter here" } else { "" };
                problems.push(TableProblem {
                    route: route.index,
                    other: Some(other),
                    field: Field::Path,
                    reason: format!("the same host, path and method have a route already{case}"),
                    hint: Some("give the two different paths, or methods that do not overlap".to_owned()),
                });
            }
        }
        if !problems.is_empty() {
            problems.sort_by_key(|p| p.route);
            return Err(problems);
        }
        table.finish();
        Ok(table)
    }

    /// What stands at `path` (the request's normal form, without query) of `host` (lower case, without port).
    pub fn find(&self, host: &str, path: &str, method: &str) -> Found<'_> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.serves(host) {
            return Found::UnknownHost;
        }
        match self.entry_at(host, path) {
            Some(entry) if entry.explicit => entry.method(method),
            _ if pattern::always_free(path) => Found::AlwaysFree,
            Some(entry) => entry.method(method),
            None => Found::Free,
        }
    }

    /// Routes that have the same host and path pattern as this one, for other methods; by [`RouteSpec::index`].
    pub fn same_pattern(&self, route: usize) -> impl Iterator<Item = usize> {
        let hosts = self.exact.iter().chain(&self.below).map(|(_, table)| table).chain(&self.any);
        hosts.flat_map(move |table| table.trie.same_pattern(route))
    }

    /// Whether a route that can match on this host costs something: there, ambiguous paths are refused.
    pub fn has_priced(&self, host: &str) -> bool {
        self.tables(host.strip_suffix('.').unwrap_or(host)).any(|table| table.priced)
    }

    /// Whether requests to this host (lower case, without port) are served.
    pub fn serves(&self, host: &str) -> bool {
        if self.served.is_empty() && self.served_below.is_empty() {
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        self.served.binary_search_by(|h| h.as_str().cmp(host)).is_ok()
            || suffixes(host).any(|suffix| self.served_below.binary_search_by(|s| s.as_str().cmp(suffix)).is_ok())
    }

    /// SHA-256 of a canonical listing of everything that decides a price.
    pub fn hash(listing: &[u8]) -> [u8; 32] {
        Sha256::digest(listing).into()
    }

    /// An empty table for each host.
    fn of_hosts<'a>(hosts: impl Iterator<Item = &'a HostPattern>, site: &Site) -> Table {
        let mut table =
            Table { exact: Vec::new(), below: Vec::new(), any: None, served: Vec::new(), served_below: Vec::new() };
        for host in hosts {
            match host {
                HostPattern::Exact(name) => {
                    table.exact.push((name.clone(), HostTable::default()));
                    table.served.push(name.clone());
                }
                HostPattern::Below(suffix) => {
                    table.below.push((suffix.clone(), HostTable::default()));
                    table.served_below.push(suffix.clone());
                }
                HostPattern::Any => table.any = Some(HostTable::default()),
            }
        }
        for host in &site.hosts {
            match HostPattern::parse(host) {
                Ok(HostPattern::Below(suffix)) => table.served_below.push(suffix),
                Ok(HostPattern::Exact(name)) => table.served.push(name),
                // The configuration has complained already; a name that cannot arrive serves nobody.
                _ => table.served.push(host.clone()),
            }
        }
        for list in [&mut table.exact, &mut table.below] {
            list.sort_by(|a, b| a.0.cmp(&b.0));
            list.dedup_by(|a, b| a.0 == b.0);
        }
        for list in [&mut table.served, &mut table.served_below] {
            list.sort();
            list.dedup();
        }
        table
    }

    /// The table of a host pattern that [`Table::of_hosts`] has seen.
    fn entry(&mut self, host: &HostPattern) -> &mut HostTable {
        let (list, name) = match host {
            HostPattern::Any => return self.any.get_or_insert_with(HostTable::default),
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Below(suffix) => (&mut self.below, suffix),
        };
        let at = list.partition_point(|(key, _)| key < name);
        if list.get(at).is_none_or(|(key, _)| key != name) {
            list.insert(at, (name.clone(), HostTable::default()));
        }
        &mut list[at].1
    }

    /// A request that misses a pattern for its case must not land on an origin that ignores case: so a table folds when
    /// any table that is asked after it does, or the origin of requests without a route.
    fn spread_fold(&mut self, everywhere: bool) {
        let any = everywhere || self.any.as_ref().is_some_and(|table| table.fold);
        let below: Vec<String> = self.below.iter().filter(|(_, t)| t.fold).map(|(suffix, _)| suffix.clone()).collect();
        for (name, table) in self.exact.iter_mut().chain(&mut self.below) {
            table.fold |= any || below.iter().any(|suffix| name.ends_with(suffix.as_str()));
        }
        if let Some(table) = &mut self.any {
            table.fold |= everywhere;
        }
    }

    fn finish(&mut self) {
        let tables = self.exact.iter_mut().chain(&mut self.below).map(|(_, table)| table).chain(&mut self.any);
        tables.for_each(|table| table.trie.finish());
    }

    fn entry_at(&self, host: &str, path: &str) -> Option<&Entry> {
        let mut folded = None;
        self.tables(host).find_map(|table| {
            if table.fold {
                table.trie.find(folded.get_or_insert_with(|| fold(path.as_bytes())), true)
            } else {
                table.trie.find(path.as_bytes(), false)
            }
        })
    }

    /// Tables that a host is looked up in, most specific first.
    fn tables<'t, 'h>(&'t self, host: &'h str) -> impl Iterator<Item = &'t HostTable> + use<'t, 'h> {
        let exact = lookup(&self.exact, host);
        let below = suffixes(host).filter_map(|suffix| lookup(&self.below, suffix));
        exact.into_iter().chain(below).chain(&self.any)
    }
}

fn lookup<'a>(list: &'a [(String, HostTable)], key: &str) -> Option<&'a HostTable> {
    list.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok().map(|at| &list[at].1)
}

/// `.b.c`, `.c` of `a.b.c`, longest first; the label before the first point is never empty.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &host[at..])
}
