//! Calendars: the book day in the ledger's zone, and credit periods in UTC.

use jiff::{
    Timestamp,
    civil::{Date, date},
    tz::TimeZone,
};

/// How often credit starts anew, at midnight UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditPeriod {
    /// Each day: `20261124`.
    Day,
    /// Each month: `202611`.
    Month,
}

/// The ledger's zone.
#[derive(Clone, Debug)]
pub struct BookZone(TimeZone);

impl BookZone {
    /// Looks up an IANA name, `Europe/Berlin`; `None` when there is no such zone.
    pub fn from_name(name: &str) -> Option<BookZone> {
        TimeZone::get(name).ok().map(BookZone)
    }

    /// Whole days since 1970-01-01 at that time in the zone, but no day before `open_day`: nothing lands in a closed day.
    pub fn book_day(&self, at_ms: u64, open_day: i64) -> i64 {
        days_since_1970(date_at(at_ms, &self.0)).max(open_day)
    }
}

/// The credit period at a time: `20261124` for a day, `202611` for a month.
pub fn credit_period(period: CreditPeriod, at_ms: u64) -> i64 {
    let date = date_at(at_ms, &TimeZone::UTC);
    // A date of ours lies between 1970 and 9999.
    let (year, month, day) = (date.year().unsigned_abs(), date.month().unsigned_abs(), date.day().unsigned_abs());
    let month = i64::from(year) * 100 + i64::from(month);
    match period {
        CreditPeriod::Day => month * 100 + i64::from(day),
        CreditPeriod::Month => month,
    }
}

/// When the credit period of that time ends, Unix seconds: for `Retry-After`.
pub fn credit_period_end_s(period: CreditPeriod, at_ms: u64) -> u64 {
    let today = date_at(at_ms, &TimeZone::UTC);
    let next = match period {
        CreditPeriod::Day => today.tomorrow(),
        CreditPeriod::Month => today.last_of_month().tomorrow(),
    };
    let days = next.map_or(i64::MAX / 86_400, days_since_1970);
    u64::try_from(days * 86_400).unwrap_or(0)
}

/// The period of what is bought from a balance: it has no end. No day or month has this number.
pub const BALANCE: i64 = 1;

/// When the credit period of that time began, Unix seconds.
pub fn credit_period_start_s(period: CreditPeriod, at_ms: u64) -> u64 {
    let today = date_at(at_ms, &TimeZone::UTC);
    let first = match period {
        CreditPeriod::Day => today,
        CreditPeriod::Month => today.first_of_month(),
    };
    u64::try_from(days_since_1970(first) * 86_400).unwrap_or(0)
}

/// Times past the year 9999 count as its last day.
fn date_at(at_ms: u64, zone: &TimeZone) -> Date {
    let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX);
    zone.to_datetime(at).date()
}

/// A day as the books count it: whole days since 1970-01-01.
pub fn days_since_1970(day: Date) -> i64 {
    let start = date(1970, 1, 1);
    i64::from(start.until(day).map_or(0, |span| span.get_days()))
}

/// `2026-11-24`; the number itself where no calendar has it.
pub fn day_text(days: i64) -> String {
    let day = date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).unwrap_or_default());
    day.map_or_else(|_| days.to_string(), |day| day.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    fn check_day(zone: &str, at: &str, open_day: i64, expect: i64) {
        assert_eq!(BookZone::from_name(zone).unwrap().book_day(ms(at), open_day), expect, "{zone} {at}");
    }

    #[test]
    fn book_days_follow_the_zone_and_stay_out_of_closed_days() {
        check_day("UTC", "1970-01-01T00:00:00Z", 0, 0);
        check_day("UTC", "2026-11-24T23:59:59.999Z", 0, 20_781);
        check_day("Europe/Berlin", "2026-11-24T23:00:00Z", 0, 20_782);
        check_day("America/New_York", "2026-11-25T04:59:59Z", 0, 20_781);
        // The night on which summer time ends has 25 hours and is one day.
        check_day("Europe/Berlin", "2026-10-25T22:59:59Z", 0, 20_751);
        check_day("Europe/Berlin", "2026-10-25T23:00:00Z", 0, 20_752);
        check_day("UTC", "2026-11-24T12:00:00Z", 20_782, 20_782);
        assert!(BookZone::from_name("Europe/Nowhere").is_none());
    }

    #[test]
    fn credit_periods_end_at_midnight_utc() {
        let at = ms("2026-11-30T22:00:00Z");
        assert_eq!(credit_period(CreditPeriod::Day, at), 20_261_130);
        assert_eq!(credit_period(CreditPeriod::Month, at), 202_611);
        let end = ms("2026-12-01T00:00:00Z") / 1000;
        assert_eq!(credit_period_end_s(CreditPeriod::Day, at), end);
        assert_eq!(credit_period_end_s(CreditPeriod::Month, at), end);
        let start = |period| credit_period_start_s(period, at);
        assert_eq!(start(CreditPeriod::Day), ms("2026-11-30T00:00:00Z") / 1000);
        assert_eq!(start(CreditPeriod::Month), ms("2026-11-01T00:00:00Z") / 1000);
        let leap = ms("2028-02-28T10:00:00Z");
        assert_eq!(credit_period_end_s(CreditPeriod::Day, leap), ms("2028-02-29T00:00:00Z") / 1000);
        assert_eq!(credit_period_end_s(CreditPeriod::Month, leap), ms("2028-03-01T00:00:00Z") / 1000);
        assert_eq!(credit_period(CreditPeriod::Month, u64::MAX), 999_912);
    }
}
