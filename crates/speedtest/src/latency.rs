//! What a series of round trips comes to.

use std::time::Duration;

use serde::Serialize;

/// Round trips of small messages, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half took no longer.
    pub median_ms: f64,
    /// The shortest.
    pub min_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Mean difference between one and the next; 0 with a single one.
    pub jitter_ms: f64,
    /// How many there were.
    pub samples: usize,
}

impl Latency {
    /// Of round trips in the order in which they were made; `None` if there are none.
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    pub(crate) fn of(round_trips: &[Duration]) -> Option<Latency> {
        let in_order: Vec<f64> = round_trips.iter().map(|it| it.as_secs_f64() * 1e3).collect();
        let mut sorted = in_order.clone();
        sorted.sort_by(f64::total_cmp);
        let (min_ms, max_ms) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        let steps: Vec<f64> = in_order.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        Some(Latency {
            median_ms: low.midpoint(high),
            min_ms,
            max_ms,
            jitter_ms: steps.iter().sum::<f64>() / steps.len().max(1) as f64,
            samples: sorted.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ms: &[u64]) -> Option<Latency> {
        let round_trips: Vec<_> = ms.iter().copied().map(Duration::from_millis).collect();
        Latency::of(&round_trips)
    }

    #[test]
    fn the_figures_are_those_of_the_series() {
        assert_eq!(
            of(&[30, 10, 20]),
            Some(Latency {
                median_ms: 20.0,
                min_ms: 10.0,
                max_ms: 30.0,
                jitter_ms: 15.0,
                samples: 3
            })
        );
        let even = of(&[10, 40, 20, 30]).unwrap();
        assert_eq!((even.median_ms, even.samples), (25.0, 4));
        assert!((even.jitter_ms - 20.0).abs() < 1e-9, "{even:?}");
    }

    #[test]
    fn one_is_enough_and_none_is_none() {
        let one = of(&[7]).unwrap();
        assert_eq!((one.median_ms, one.min_ms, one.max_ms, one.jitter_ms), (7.0, 7.0, 7.0, 0.0));
        assert_eq!(of(&[]), None);
    }
}
