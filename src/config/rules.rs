//! `[[routes.agents]]`: what single agents get of a route that has a price.

use ipnet::IpNet;

use super::AgentPattern;
use crate::wire::amount::Money;

/// One section: whom it is for, and what they get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRule {
    /// Whom it is for.
    pub who: Who,
    /// What they get.
    pub then: Then,
}

/// Whom a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// `agent`: agents that prove by a signature who they are.
    Agent(AgentPattern),
    /// `user_agent`: whoever has this word in User-Agent.
    UserAgent(String),
    /// `addresses`: whoever comes from there.
    Addresses(Vec<IpNet>),
}

/// What the agents of a rule get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// `price`: another price, of the same currency.
    Price(Money),
    /// `allow`: the page, free.
    Allow,
    /// `block`: nothing.
    Block,
}

impl AgentRule {
    /// The class of offers at this rule's price: `claimed:GPTBot`.
    pub fn class(&self) -> String {
        format!("claimed:{}", self.name())
    }

    /// Whom it is for, as a word: `GPTBot`, `10.0.0.0/8`, `https://*.example.com`.
    pub fn name(&self) -> String {
        match &self.who {
            Who::Agent(pattern) => pattern.to_string(),
            Who::UserAgent(word) => word.clone(),
            Who::Addresses(nets) => nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        }
    }
}

/// What an agent that proved who it is gets, by the rule that names it most closely.
pub fn of_agent<'r>(rules: &'r [AgentRule], agent: &str) -> Option<&'r AgentRule> {
    // Whoever may write a file on a host does not speak for it: a pattern only keeps a key set out.
    let is_key_set = agent.splitn(4, '/').nth(3).is_some();
    let named = rules.iter().filter_map(|rule| match &rule.who {
        Who::Agent(pattern) => {
            let by_name = matches!(pattern, AgentPattern::Exact(_));
            let counts = !is_key_set || by_name || rule.then == Then::Block;
            Some((pattern.closeness(agent).filter(|_| counts)?, rule))
        }
        _ => None,
    });
    named.max_by_key(|(closeness, _)| *closeness).map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_pattern_decides() {
        let rule = |pattern, then| AgentRule { who: Who::Agent(pattern), then };
        let rules = [
            rule(AgentPattern::Any, Then::Block),
            rule(AgentPattern::Below(".example.com".into()), Then::Allow),
            rule(AgentPattern::Exact("https://a.example.com".into()), Then::Price(Money::parse("1 USD").unwrap())),
            rule(AgentPattern::Below(".b.example.com".into()), Then::Block),
        ];
        let check = |agent: &str, expect| assert_eq!(of_agent(&rules, agent).map(|rule| rule.then), expect, "{agent}");
        check("https://a.example.com", Some(Then::Price(Money::parse("1 USD").unwrap())));
        check("https://c.example.com", Some(Then::Allow));
        check("https://c.b.example.com", Some(Then::Block));
        check("https://example.com", Some(Then::Block));
        check("http://c.example.com", None);
        // Of a key set its host counts, not how its path ends.
        check("https://c.b.example.com/keys", Some(Then::Block));
        // And a pattern lets none in.
        check("https://c.example.com/keys", Some(Then::Block));
        assert_eq!(of_agent(&rules[1..3], "https://c.example.com/keys"), None);
        assert_eq!(of_agent(&rules[1..3], "https://a.example.com/keys"), None);
        check("https://elsewhere.example/x.b.example.com", Some(Then::Block));
        assert_eq!(of_agent(&rules[1..], "https://elsewhere.example/a.example.com"), None);
        assert_eq!(of_agent(&rules[1..], "https://elsewhere.example"), None);
    }
}
