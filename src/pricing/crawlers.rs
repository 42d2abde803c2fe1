//! Who names itself as a crawler of the AI trade in `User-Agent`. Anybody can say anything there: this is for those who are
//! honest.

/// The names that ship, one a line; `#` begins a comment, which also says where they are from and when they were taken.
const SHIPPED: &str = include_str!("crawlers.txt");

/// Longest name.
pub const NAME_BYTES_MAX: usize = 63;

/// Names of crawlers, whatever their case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crawlers {
    /// Lower case, sorted.
    names: Vec<Box<[u8]>>,
    /// By first byte, the lengths that names have, a bit each: most words are no name at the first look.
    lengths: Box<[u64; 256]>,
}

impl Crawlers {
    /// The shipped names and `more`, without those `ignored`; all of them [are names](is_name).
    pub fn new<'a>(more: impl Iterator<Item = &'a str>, ignored: &[&str]) -> Crawlers {
        let is_ignored = |name: &str| ignored.iter().any(|ignored| ignored.eq_ignore_ascii_case(name));
        let names = Crawlers::shipped().chain(more).filter(|name| !is_ignored(name));
        let mut names: Vec<Box<[u8]>> = names.map(|name| name.to_ascii_lowercase().into_bytes().into()).collect();
        names.sort_unstable();
        names.dedup();
        let mut lengths = Box::new([0; 256]);
        for name in &names {
            if let Some(first) = name.first() {
                lengths[usize::from(*first)] |= 1 << name.len().min(NAME_BYTES_MAX);
            }
        }
        Crawlers { names, lengths }
    }

    /// The shipped names, as their owners write them.
    pub fn shipped<'a>() -> impl Iterator<Item = &'a str> {
        SHIPPED.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    /// Whether a User-Agent has one of the names as a word.
    pub fn are_named_in(&self, user_agent: &[u8]) -> bool {
        words(user_agent).any(|word| self.find(word).is_some())
    }

    /// The first of the names that a User-Agent has as a word, in lower case.
    pub fn name_in(&self, user_agent: &[u8]) -> Option<&str> {
        let name = words(user_agent).find_map(|word| self.find(word))?;
        std::str::from_utf8(name).ok()
    }

    fn find(&self, word: &[u8]) -> Option<&[u8]> {
        let first = word.first().filter(|_| word.len() <= NAME_BYTES_MAX)?;
        if self.lengths[usize::from(first.to_ascii_lowercase())] & (1 << word.len()) == 0 {
            return None;
        }
        let mut lower = [0; NAME_BYTES_MAX];
        let lower = &mut lower[..word.len()];
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        let at = self.names.binary_search_by(|name| (**name).cmp(lower)).ok()?;
        self.names.get(at).map(|name| &**name)
    }
}

/// The words of a User-Agent: `GPTBot` of `(compatible; GPTBot/1.2; +https://…)`.
pub fn words(user_agent: &[u8]) -> impl Iterator<Item = &[u8]> {
    user_agent.split(|byte| !is_of_word(*byte)).filter(|word| !word.is_empty())
}

/// Whether a text can be looked for: one word.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_of_word)
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crawlers_are_found_as_words_whatever_their_case() {
        let crawlers = Crawlers::new(["MyBot_2"].into_iter(), &["ccbot"]);
        let check = |user_agent: &str, expect| {
            assert_eq!(crawlers.are_named_in(user_agent.as_bytes()), expect, "{user_agent}");
        };
        check(
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            true,
        );
        check("gptbot", true);
        check("Mozilla/5.0 (compatible; ClaudeBot/1.0; +claudebot@anthropic.com)", true);
        check("meta-externalagent/1.1", true);
        check("mybot_2", true);
        check("\u{fc}GPTBot\u{fc}", true);
        check("CCBot/2.0", false);
        check("NotGPTBot/1.0 GPTBots GPTBot-Image GPT Bot", false);
        check("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", false);
        check("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", false);
        check("", false);
        check(&"a".repeat(10_000), false);
        check(&format!("{} GPTBot", "g".repeat(64)), true);
        assert_eq!(crawlers.name_in(b"Mozilla/5.0 (compatible; GPTBot/1.2) ClaudeBot"), Some("gptbot"));
        assert_eq!(crawlers.name_in(b"CCBot/2.0"), None);
    }

    #[test]
    fn each_shipped_name_is_one_word_and_there_once() {
        let mut names: Vec<String> = Crawlers::shipped().map(str::to_ascii_lowercase).collect();
        assert!(names.len() > 50 && names.iter().all(|name| is_name(name)), "{names:?}");
        let crawlers = Crawlers::new(std::iter::empty(), &[]);
        assert!(names.iter().all(|name| crawlers.are_named_in(name.as_bytes())));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), crawlers.names.len());
    }
}
