//! How long an answer is good for: `Cache-Control` and `Age` (RFC 9111), `Retry-After` (RFC 9110 §10.2.3).

use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL, HeaderMap, RETRY_AFTER};

/// A directory is not read more often than that, whatever it says.
pub const FRESH_MIN: Duration = Duration::from_secs(60);
/// A key that its agent removed is gone after that, whatever the directory said.
pub const FRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a directory that says nothing.
const FRESH_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// The longest wait after a failure.
pub const RETRY_MAX: Duration = Duration::from_secs(5 * 60);

/// Freshness of a 200, from [`FRESH_MIN`] to [`FRESH_MAX`]: `max-age` less `Age`, an hour without `max-age`, the least
/// with `no-store` or `no-cache`.
pub fn fresh_for(headers: &HeaderMap) -> Duration {
    let mut fresh = None;
    for directive in headers.get_all(CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let name = name.trim();
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return FRESH_MIN;
        }
        if name.eq_ignore_ascii_case("max-age") {
            // §4.2.1: of several, and of nonsense, the shorter reading.
            let seconds = seconds(value.trim().trim_matches('"')).unwrap_or(0);
            fresh = Some(fresh.map_or(seconds, |f: u64| f.min(seconds)));
        }
    }
    let age = headers.get(AGE).and_then(|v| v.to_str().ok()).and_then(seconds).unwrap_or(0);
    match fresh {
        None => FRESH_DEFAULT,
        Some(seconds) => Duration::from_secs(seconds.saturating_sub(age)).clamp(FRESH_MIN, FRESH_MAX),
    }
}

/// `Retry-After` as a wait from `now_ms` (Unix), at most [`RETRY_MAX`].
pub fn retry_after(headers: &HeaderMap, now_ms: u64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match seconds(text) {
        Some(seconds) => Duration::from_secs(seconds),
        None => {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
            at.saturating_sub(Duration::from_millis(now_ms))
        }
    };
    Some(wait.min(RETRY_MAX))
}

/// 1*DIGIT; more than fits is the most that fits (RFC 9111 §1.2.2).
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn cache_control_is_read_and_clamped() {
        let check = |lines: &[(&'static str, &str)], expect: u64| {
            assert_eq!(fresh_for(&headers(lines)).as_secs(), expect, "{lines:?}");
        };
        check(&[], 3600);
        check(&[("age", "3000")], 3600);
        check(&[("cache-control", "public")], 3600);
        check(&[("cache-control", "max-age=600")], 600);
        check(&[("cache-control", "public, Max-Age = \"600\"")], 600);
        check(&[("cache-control", "max-age=600"), ("age", "100")], 500);
        check(&[("cache-control", "max-age=600"), ("age", "700")], 60);
        check(&[("cache-control", "max-age=600"), ("cache-control", "max-age=300")], 300);
        check(&[("cache-control", "max-age=5")], 60);
        check(&[("cache-control", "max-age=-5")], 60);
        check(&[("cache-control", "max-age")], 60);
        check(&[("cache-control", "max-age=99999999999999999999999")], 86400);
        check(&[("cache-control", "max-age=600, no-store")], 60);
        check(&[("cache-control", "no-cache")], 60);
    }

    #[test]
    fn retry_after_is_read_and_bounded() {
        let check = |value: &str, expect: Option<u64>| {
            let wait = retry_after(&headers(&[("retry-after", value)]), 784_111_777_000);
            assert_eq!(wait.map(|wait| wait.as_secs()), expect, "{value}");
        };
        check("7", Some(7));
        check("86400", Some(300));
        check("99999999999999999999999", Some(300));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:49:30 GMT", Some(0));
        check("-1", None);
        check("soon", None);
    }
}
