//! The quality monitor (A32): one sample a second, of the last hour.

use serde::{Deserialize, Serialize};

/// How many samples one reply holds at most, so that it fits a message.
pub const QUALITY_PAGE: usize = 400;

/// Samples, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quality {
    /// At most [`QUALITY_PAGE`].
    pub samples: Vec<Sample>,
}

/// One second of a connection. Seconds without a connection have no sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// The second, Unix seconds.
    pub at: u64,
    /// The round trip of the last ping that was answered, in milliseconds.
    pub latency_ms: Option<f32>,
    /// The mean difference from one such round trip to the next, in milliseconds.
    pub jitter_ms: Option<f32>,
    /// The share of the last pings that went unanswered, 0 to 1.
    pub loss: Option<f32>,
    /// Bytes of inner packets received within the second.
    pub rx_bytes: u64,
    /// Bytes of inner packets sent within the second.
    pub tx_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MESSAGE_MAX;
    use crate::daemon::Reply;

    #[test]
    fn a_page_fits_a_message() {
        let sample = Sample {
            at: u64::from(u32::MAX),
            latency_ms: Some(12_345.678),
            jitter_ms: Some(12_345.678),
            loss: Some(0.012_345_678),
            rx_bytes: 10_000_000_000,
            tx_bytes: 10_000_000_000,
        };
        let page = Reply::Quality(Quality { samples: vec![sample; QUALITY_PAGE] });
        let length = serde_json::to_string(&page).expect("JSON").len();
        assert!(length < MESSAGE_MAX - 100, "{length}");
    }
}
