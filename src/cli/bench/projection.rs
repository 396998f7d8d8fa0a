//! What a whole model would take, from some of its layers: two runs, with a number of layers and with half
//! of it, tell what a layer costs and what is spent besides.

use super::super::failure::Failure;
use super::plain::Measured;
use super::test::Test;
use trilut_runtime::dummy::ALL_LAYERS;
use trilut_runtime::gguf::Gguf;
use trilut_tuning::bandwidth::Bandwidth;

/// The layers of the model that a file is of, which may be some of them.
pub(super) fn all(gguf: &Gguf) -> Result<usize, Failure> {
    let of_file = gguf.arch_u32("block_count")?;
    Ok(gguf.opt_u32(ALL_LAYERS)?.unwrap_or(of_file).max(of_file) as usize)
}

/// A value for `all` layers, of values that grow evenly from `low` to `high` layers.
fn line(low: (usize, f64), high: (usize, f64), all: usize) -> f64 {
    let layer = (high.1 - low.1) / (high.0 - low.0) as f64;
    high.1 + layer * (all - high.0) as f64
}

/// The figures for `all` layers of a test that was run with some and with half of them.
pub(super) fn project(
    some: Measured,
    half: &Measured,
    test: Test,
    all: usize,
    bandwidth: Bandwidth,
) -> Measured {
    let of = |low: f64, high: f64| line((half.n_layers, low), (some.n_layers, high), all);
    let pairs = half.samples_ns.iter().zip(&some.samples_ns);
    // A layer costs something, whatever the noise says.
    let ns = pairs.map(|(&low, &high)| of(low as f64, high as f64).max(high as f64) as u64);
    let ns: Vec<u64> = ns.collect();
    let both = |low: Option<f64>, high: Option<f64>| Some(of(low?, high?));
    let bytes = of(half.bytes_per_token as f64, some.bytes_per_token as f64);
    let joules = both(half.joules_per_token, some.joules_per_token);
    let cpu_seconds = both(half.cpu_seconds_per_token, some.cpu_seconds_per_token);
    let mut projected = some;
    projected.bytes_per_token = bytes as usize;
    (projected.joules_per_token, projected.cpu_seconds_per_token) = (joules, cpu_seconds);
    projected.projected_to = Some(all);
    projected.test =
        format!("{} projected to {all} layers from {}", test.name(), projected.n_layers);
    projected.set_samples(ns, test, bandwidth);
    projected
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn layers_cost_the_same_and_the_rest_is_counted_once() {
        // 5 besides, 2 for a layer.
        assert_eq!(line((2, 9.0), (4, 13.0), 72), 149.0);
        assert_eq!(line((1, 7.0), (2, 9.0), 2), 9.0);
    }
}
