//! Metrics in the OpenMetrics text format.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of a sample: names and values.
pub type Labels = Vec<(&'static str, String)>;

/// The metrics of one moment.
pub struct Metrics(Registry);

impl Metrics {
    /// Creates an empty set; every name begins with `prefix` and an underscore.
    pub fn new(prefix: &str) -> Self {
        Self(Registry::with_prefix(prefix))
    }

    /// Adds a counter; its samples are named `name` with `_total`.
    pub fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in samples {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// Adds a gauge. Values beyond 2^63 are cut off.
    pub fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in samples {
            family
                .get_or_create(&labels)
                .set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.0.register(name, help, family);
    }

    /// Returns the text, with `# EOF` as its last line.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_types_and_samples() {
        let mut metrics = Metrics::new("vhost_test");
        let guest = |name: &str| vec![("guest", name.to_owned())];
        metrics.counter("frames", "Frames", [(guest("a"), 7), (guest("a"), 1)]);
        metrics.gauge("link_up", "Whether the link is up", [(guest("q\"\n"), 1)]);
        let expected = "\
            # HELP vhost_test_frames Frames.\n\
            # TYPE vhost_test_frames counter\n\
            vhost_test_frames_total{guest=\"a\"} 8\n\
            # HELP vhost_test_link_up Whether the link is up.\n\
            # TYPE vhost_test_link_up gauge\n\
            vhost_test_link_up{guest=\"q\\\"\\n\"} 1\n\
            # EOF\n";
        assert_eq!(metrics.text().unwrap(), expected);
    }
}
