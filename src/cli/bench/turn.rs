//! One turn of one engine: a test run once, how long it took and what it cost.

use super::super::failure::Failure;
use super::meter::{Cost, Meter, resident_bytes};
use super::test::{Subject, Test};

/// A turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Turn {
    /// Time of the test alone, without loading and warm-up.
    pub(super) ns: u64,
    pub(super) joules: Option<f64>,
    pub(super) cpu_seconds: Option<f64>,
    /// Bytes of the engine's process in memory, mapped files included.
    pub(super) memory: Option<u64>,
}

impl Turn {
    pub(super) fn new(ns: u64, cost: Option<Cost>, memory: Option<u64>) -> Self {
        let (joules, cpu_seconds) =
            cost.map_or((None, None), |cost| (cost.joules, cost.cpu_seconds));
        Self { ns: ns.max(1), joules, cpu_seconds, memory }
    }

    /// A turn of ours.
    pub(super) fn ours(test: Test, subject: &mut Subject, meter: &Meter) -> Result<Self, Failure> {
        let before = meter.own();
        let time = test.run(subject)?;
        let cost = meter.cost(&before, &meter.own());
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self::new(ns, Some(cost), resident_bytes("self", "VmRSS")))
    }
}

/// The median over turns of something per token; `None` unless every turn has it.
pub(super) fn per_token(
    turns: &[Turn],
    test: Test,
    of: impl Fn(&Turn) -> Option<f64>,
) -> Option<f64> {
    let values: Option<Vec<f64>> = turns.iter().map(of).collect();
    let values = values.filter(|values| !values.is_empty())?;
    Some(trilut_tuning::median(&values) / test.tokens() as f64)
}
