//! Hosts of routes.

use std::net::Ipv4Addr;

use crate::wire::host::{Complaint, normal_host};

/// Which hosts a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `example.com`, `192.0.2.1`, `[2001:db8::1]`
    Exact(String),
    /// `*.example.com`: every host below, at any depth, but not `example.com`. Holds `.example.com`.
    Below(String),
    /// Any host.
    Any,
}

impl HostPattern {
    /// Reads `example.com` or `*.example.com`; letters become lower case.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<HostPattern, Complaint> {
        if let Some(rest) = text.strip_prefix("*.") {
            let name = normal_host(rest)?;
            if name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() {
                return Err(("an address has no hosts below it".to_owned(), None));
            }
            return Ok(HostPattern::Below(format!(".{name}")));
        }
        if text.contains('*') {
            let hint = "write `*.example.com`";
            return Err(("`*` can only stand for the leftmost labels".to_owned(), Some(hint.to_owned())));
        }
        normal_host(text).map(HostPattern::Exact)
    }
}
