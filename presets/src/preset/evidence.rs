//! Where a record comes from and how sure it is: what makes it stale, and what somebody who was not there
//! wants to know.

use serde::{Deserialize, Serialize};

/// How one record came about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The date and time in UTC, RFC 3339.
    pub date: String,
    /// The version of trilut.
    pub trilut: String,
    /// The compiler that the kernels were built with.
    pub compiler: String,
    /// The CPU's microcode then: a new one may change what is fastest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<String>,
    /// Physical cores then; they share caches and memory.
    pub cores: usize,
    /// The relative spread of repeated samples of the default: 0.02 is two percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// 10^9 bytes per second at which memory was read then, where the time depends on it and this was one speed
    /// all the time: memory may have several, and what is fastest changes with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// The 95 % interval of (winner's time / default's time) in the paired check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The 95 % interval of (the whole model's time with the picks of this phase / with the default kernels);
    /// absent where the two were not compared. Where it is not below 1 the default was put in place of the
    /// pick, and where that costs another phase more than it gains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<[f64; 2]>,
    /// The share of bootstrap samples in which the pick is the fastest of those raced to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wins: Option<f64>,
    /// The pick's time over the best median of the same run, minus 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regret: Option<f64>,
    /// The kernels that came nearest, the fastest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finalists: Vec<String>,
}

impl Evidence {
    /// A number as it is written: four places, so that the text and what was written are the same.
    pub fn rounded(value: f64) -> f64 {
        (value * 1e4).round() / 1e4
    }

    /// The first rule that it breaks.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let sound = |value: Option<f64>| value.is_none_or(|v| v.is_finite() && v >= 0.0);
        if !(sound(self.noise) && sound(self.regret) && sound(self.wins)) {
            return Some("noise, wins and regret must be numbers of at least 0");
        }
        if self.memory.is_some_and(|pace| !(pace.is_finite() && pace > 0.0)) {
            return Some("memory must be a number above 0");
        }
        if self.wins.is_some_and(|share| share > 1.0) {
            return Some("wins is a share, at most 1");
        }
        let is_broken = |[low, high]: [f64; 2]| !(low > 0.0 && low <= high && high.is_finite());
        if [self.interval, self.model].into_iter().flatten().any(is_broken) {
            return Some("interval and model must be two numbers above 0, the smaller one first");
        }
        None
    }
}
