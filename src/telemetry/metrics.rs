//! The counts as OpenMetrics text. Labels are names of the configuration and words of this program, so their number is
//! bounded; nothing that a client sends becomes one.

use std::fmt::{self, Write as _};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::tally::{BOUNDS_US, Totals, Verdict};

/// The type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is told besides the counts.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// `/readyz` would say yes.
    pub ready: bool,
    /// Priced routes are served.
    pub ledger_open: bool,
    /// When the process started, Unix seconds.
    pub started_s: u64,
    /// Configurations that were taken over while it runs, and those that were not.
    pub reloads: [u64; 2],
    /// Lines of the access log that nobody had room for.
    pub lines_lost: u64,
}

/// The text of a scrape.
///
/// # Errors
/// Never: writing to a string does not fail.
pub fn encode(totals: Totals, state: State) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tollgate");
    registry.register_collector(Box::new(Scrape { totals, state }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Scrape {
    totals: Totals,
    state: State,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Scrape { totals, state } = self;
        {
            let help = "Requests that have an answer, by route and by what became of them";
            let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
            for ((route, verdict), count) in totals.requests.iter().filter(|(_, count)| **count > 0) {
                let labels = [("route", &**route), ("verdict", verdict.name())];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        {
            let help = "Requests that were refused, by reason code";
            let mut family = encoder.encode_descriptor("refusals", help, None, MetricType::Counter)?;
            for (reason, count) in totals.reasons.iter().filter(|(_, count)| **count > 0) {
                ConstCounter::new(*count).encode(family.encode_family(&[("reason", *reason)])?)?;
            }
        }
        {
            let help = "What routes have sold for, in millionths of the currency of their price";
            let mut family = encoder.encode_descriptor("charged_millionths", help, None, MetricType::Counter)?;
            for ((route, currency), sum) in totals.charged.iter().filter(|(_, sum)| **sum > 0) {
                let labels = [("route", &**route), ("currency", &**currency)];
                ConstCounter::new(*sum).encode(family.encode_family(&labels)?)?;
            }
        }
        let seen = || totals.observed.iter().filter(|(_, [requests, _])| *requests > 0);
        {
            let help = "Requests on routes that only observe, by what would have become of them";
            let mut family = encoder.encode_descriptor("observed", help, None, MetricType::Counter)?;
            for ((route, _, would), [requests, _]) in seen() {
                ConstCounter::new(*requests).encode(family.encode_family(&[("route", &**route), ("would", would)])?)?;
            }
        }
        {
            let help = "Observed requests whose payment would have been refused, by reason code";
            let mut family = encoder.encode_descriptor("observed_refusals", help, None, MetricType::Counter)?;
            for (reason, count) in totals.observed_reasons.iter().filter(|(_, count)| **count > 0) {
                ConstCounter::new(*count).encode(family.encode_family(&[("reason", *reason)])?)?;
            }
        }
        {
            let help =
                "What observed requests would have earned, or, of those without payment, been asked for; in millionths";
            let mut family = encoder.encode_descriptor("would_be_millionths", help, None, MetricType::Counter)?;
            for ((route, currency, would), [_, earned]) in seen().filter(|(_, [_, earned])| *earned > 0) {
                let labels = [("route", &**route), ("currency", &**currency), ("would", would)];
                ConstCounter::new(*earned).encode(family.encode_family(&labels)?)?;
            }
        }
        {
            let help = "From a request to the head of its answer";
            let unit = Some(&Unit::Seconds);
            let mut family = encoder.encode_descriptor("request_duration", help, unit, MetricType::Histogram)?;
            for verdict in Verdict::ALL {
                let Some((buckets, sum_us)) = totals.times.get(&verdict) else { continue };
                let count = buckets.iter().sum();
                if count == 0 {
                    continue;
                }
                let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::MAX]);
                let buckets: Vec<(f64, u64)> = bounds.zip(buckets.iter().copied()).collect();
                let labels = [("verdict", verdict.name())];
                let mut metric = family.encode_family(&labels)?;
                metric.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
                    *sum_us as f64 / 1e6,
                    count,
                    &buckets,
                    None,
                )?;
            }
        }
        let [connections, in_flight, exchanges] = totals.open;
        let gauges = [
            ("connections_open", "Connections of clients", connections as u64),
            ("requests_in_flight", "Requests being served", in_flight as u64),
            ("exchanges_open", "Paid requests that have not ended, with or without their client", exchanges as u64),
            ("ready", "1 when /readyz says yes", u64::from(state.ready)),
            ("ledger_open", "1 when priced routes are served", u64::from(state.ledger_open)),
            ("start_time_seconds", "When the process started, Unix time", state.started_s),
        ];
        for (name, help, value) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        {
            let help = "Configurations that were to be taken over while the process runs";
            let mut family = encoder.encode_descriptor("reloads", help, None, MetricType::Counter)?;
            for (result, count) in ["taken", "refused"].into_iter().zip(state.reloads) {
                ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
            }
        }
        let lost = encoder.encode_descriptor(
            "access_lines_lost",
            "Lines of the access log that could not be written in time",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(state.lines_lost).encode(lost)?;
        let mut build = encoder.encode_descriptor("build", "This program", None, MetricType::Info)?;
        let mut version = String::new();
        write!(version, "{}", env!("CARGO_PKG_VERSION"))?;
        build.encode_info(&[("version", version.as_str())])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::tally::{RouteName, Tallies, Would};
    use super::*;
    use crate::payment::reason::Reason;

    #[test]
    fn the_text_is_openmetrics() {
        let tallies = Tallies::default();
        let routes: Arc<[RouteName]> = [RouteName { name: "a\"b".into(), currency: Some("USD".into()) }].into();
        let tally = tallies.add(&routes);
        tally.answered(Some(0), Verdict::Paid, Duration::from_micros(700));
        tally.answered(None, Verdict::Refused, Duration::from_secs(11));
        tally.refused(Reason::BadHost);
        tally.charged(0, 10_000);
        tally.observed(0, Would::Ask, 7);
        tally.observed(0, Would::Refuse(Reason::InvalidSignature), 0);
        let state = State { ready: true, ..State::default() };
        let text = encode(tallies.totals(), state).unwrap();
        for line in [
            "tollgate_requests_total{route=\"a\\\"b\",verdict=\"paid\"} 1",
            "tollgate_requests_total{route=\"\",verdict=\"refused\"} 1",
            "tollgate_refusals_total{reason=\"bad_host\"} 1",
            "tollgate_charged_millionths_total{route=\"a\\\"b\",currency=\"USD\"} 10000",
            "tollgate_observed_total{route=\"a\\\"b\",would=\"asked\"} 1",
            "tollgate_observed_total{route=\"a\\\"b\",would=\"refused\"} 1",
            "tollgate_observed_refusals_total{reason=\"invalid_signature\"} 1",
            "tollgate_would_be_millionths_total{route=\"a\\\"b\",currency=\"USD\",would=\"asked\"} 7",
            "tollgate_request_duration_seconds_bucket{le=\"0.0005\",verdict=\"paid\"} 0",
            "tollgate_request_duration_seconds_bucket{le=\"0.001\",verdict=\"paid\"} 1",
            "tollgate_request_duration_seconds_bucket{le=\"10.0\",verdict=\"refused\"} 0",
            "tollgate_request_duration_seconds_count{verdict=\"refused\"} 1",
            "tollgate_ready 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
