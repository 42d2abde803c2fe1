//! Passes: what a route's purchase is good for besides. Pure.

use std::{fmt, str::FromStr, time::Duration};

use sha2::{Digest, Sha256};

use crate::wire::amount::Units;

/// The longest time of a pass: 366 days.
pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// A pass by number of requests is good for so long at most: 92 days. Its day stays out of archives until it is over.
pub const COUNTED: Duration = Duration::from_secs(92 * 86_400);
/// Most requests of a pass.
pub const REQUESTS_MAX: i64 = 1_000_000_000;

/// What a purchase is good for: `"24h"`, `100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Good {
    /// For a time, any number of requests.
    For(Duration),
    /// For so many requests, and [`COUNTED`].
    Times(Units),
}

impl Good {
    /// For how many seconds.
    pub fn seconds(self) -> u64 {
        match self {
            Good::For(time) => time.as_secs(),
            Good::Times(_) => COUNTED.as_secs(),
        }
    }

    /// How many requests, where they are counted.
    pub fn requests(self) -> Option<Units> {
        match self {
            Good::For(_) => None,
            Good::Times(requests) => Some(requests),
        }
    }
}

impl FromStr for Good {
    type Err = String;

    /// Reads a time: whole seconds, minutes, hours or days, `"90s"`, `"30m"`, `"24h"`, `"7d"`.
    fn from_str(text: &str) -> Result<Good, String> {
        let wrong =
            || format!("expected a time such as \"24h\" or \"7d\", at most 366 days, found `{}`", text.escape_debug());
        let unit = match text.chars().last() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        let number = &text[..text.len() - 1];
        let is_plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        let count: u64 = number.parse().ok().filter(|_| is_plain).ok_or_else(wrong)?;
        let time = count.checked_mul(unit).map(Duration::from_secs).filter(|time| *time <= LONGEST);
        time.map(Good::For).ok_or_else(wrong)
    }
}

/// As configuration and offers say it: `24h`, `100 requests`.
impl fmt::Display for Good {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Good::Times(requests) => write!(f, "{} requests", requests.get()),
            Good::For(time) => {
                let seconds = time.as_secs();
                let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
                let (unit, name) = units.into_iter().find(|(unit, _)| seconds % unit == 0).unwrap_or((1, "s"));
                write!(f, "{}{name}", seconds / unit)
            }
        }
    }
}

/// The passes that an offer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassTerms {
    /// What each is good for.
    pub good: Good,
    /// For everything that the route sells; else for the resource that was bought.
    pub whole_route: bool,
}

impl PassTerms {
    /// The class of offers that promise it, so that an id commits to it: `public;pass=86400s`, `public;pass=100;route`.
    pub fn class(&self, whose: &str) -> String {
        let good = match self.good {
            Good::For(time) => format!("{}s", time.as_secs()),
            Good::Times(requests) => requests.get().to_string(),
        };
        format!("{whose};pass={good}{}", if self.whole_route { ";route" } else { "" })
    }

    /// Whose offers a class is of, and the pass that they promise.
    pub fn of_class(class: &str) -> (&str, Option<PassTerms>) {
        let Some((whose, pass)) = class.split_once(";pass=") else { return (class, None) };
        let (good, whole_route) = match pass.strip_suffix(";route") {
            Some(good) => (good, true),
            None => (pass, false),
        };
        let good = match good.parse::<i64>() {
            Ok(requests) => Units::new(requests).map(Good::Times),
            Err(_) => good.parse().ok(),
        };
        (whose, good.map(|good| PassTerms { good, whole_route }))
    }
}

/// What a route does about passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutePass {
    /// What its offers promise; nothing any more where it is `"sold"`: what was sold before is given.
    pub offers: Option<PassTerms>,
}

/// Whose pass, for what: the start of a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope([u8; 12]);

impl Scope {
    /// Of an agent; `what` is a resource (method, authority, path, query) or a route's name.
    pub fn new(agent: &str, what: &[&str]) -> Scope {
        let mut hash = Sha256::new();
        for part in [agent].iter().chain(what) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut scope = [0; 12];
        scope.copy_from_slice(&hash.finalize()[..12]);
        Scope(scope)
    }

    /// As it stands in keys.
    pub fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

/// The pass that a payment buys besides what it pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose, for what.
    pub scope: Scope,
    /// What it is good for.
    pub good: Good,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown_in_their_largest_unit() {
        for (text, seconds, shown) in [
            ("90s", 90, "90s"),
            ("60m", 3600, "1h"),
            ("24h", 86_400, "1d"),
            ("7d", 604_800, "7d"),
            ("366d", 31_622_400, "366d"),
        ] {
            let good: Good = text.parse().unwrap();
            assert_eq!((good.seconds(), good.requests(), good.to_string().as_str()), (seconds, None, shown), "{text}");
        }
        for text in [
            "",
            "24",
            "h",
            "0h",
            "024h",
            "-1h",
            "1.5h",
            "24 h",
            "24H",
            "367d",
            "99999999999999999999d",
            "1w",
            "１h",
            "hé",
        ] {
            assert!(text.parse::<Good>().is_err(), "{text}");
        }
        let hundred = Good::Times(Units::new(100).unwrap());
        assert_eq!((hundred.to_string().as_str(), hundred.seconds()), ("100 requests", 7_948_800));
    }

    #[test]
    fn a_class_says_what_pass_its_offers_promise() {
        for (text, whole_route, class) in
            [("24h", false, "public;pass=86400s"), ("7d", true, "public;pass=604800s;route")]
        {
            let terms = PassTerms { good: text.parse().unwrap(), whole_route };
            assert_eq!(terms.class("public"), class);
            assert_eq!(PassTerms::of_class(class), ("public", Some(terms)));
        }
        let hundred = PassTerms { good: Good::Times(Units::new(100).unwrap()), whole_route: true };
        assert_eq!(hundred.class("claimed:GPTBot"), "claimed:GPTBot;pass=100;route");
        assert_eq!(PassTerms::of_class("claimed:GPTBot;pass=100;route"), ("claimed:GPTBot", Some(hundred)));
        assert_eq!(PassTerms::of_class("public"), ("public", None));
        assert_eq!(PassTerms::of_class("public;pass=soon"), ("public", None));
    }

    #[test]
    fn each_part_of_a_scope_is_one_however_they_are_cut() {
        assert_ne!(Scope::new("b", &["cd"]), Scope::new("bc", &["d"]));
        assert_ne!(Scope::new("b", &["c", "d"]), Scope::new("b", &["cd"]));
        assert_ne!(Scope::new("a", &["b"]), Scope::new("b", &["a"]));
    }
}
