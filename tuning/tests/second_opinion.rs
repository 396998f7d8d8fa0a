//! The second opinion leads standard output elsewhere while it lasts, so it is tested in a process of its
//! own, by one test.

use std::time::Duration;
use trilut_kernels::{Cpu, Format, Shape};
use trilut_tuning::bench::Runner;
use trilut_tuning::second_opinion::{self, Opinion};
use trilut_tuning::{AnyKernel, Candidate};

/// Takes a scripted time for each candidate, the first one being the faster.
struct Script {
    fast: Candidate,
    fails: bool,
    taken: u64,
}

impl Runner for Script {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn sample(&mut self, candidate: &Candidate) -> Result<f64, String> {
        if self.fails {
            return Err("it fails".to_owned());
        }
        // Criterion goes by real time when it warms up.
        std::thread::sleep(Duration::from_millis(1));
        self.taken += 1;
        let wobble = 1.0 + 0.01 * (self.taken % 5) as f64;
        Ok(if candidate.is(&self.fast) { 8e4 } else { 1e5 } * wobble)
    }
}

#[test]
fn criterion_measures_both_and_a_failure_is_said() {
    let cpu = Cpu::detect();
    let kernel = AnyKernel::Gemv(cpu.default_kernel(Format::I2S, Shape { m: 64, k: 128 }));
    let fast = Candidate::untuned(kernel);
    let slow = Candidate { tile: trilut_kernels::Tile { rows_per_task: 32, prefetch: 0 }, ..fast };
    let mut runner = Script { fast, fails: false, taken: 0 };
    let left = Duration::from_millis(600);
    let opinion = second_opinion::of(&mut runner, &fast, &slow, left).unwrap().unwrap();
    assert!(!opinion.contradicts(), "{opinion:?}");
    assert!((opinion.winner[0] / opinion.default[0] - 0.8).abs() < 0.03, "{opinion:?}");
    assert!(opinion.winner[1] <= opinion.winner[0] && opinion.winner[0] <= opinion.winner[2]);
    let reversed = Opinion { winner: opinion.default, default: opinion.winner };
    assert!(reversed.contradicts());
    assert_eq!(second_opinion::of(&mut runner, &fast, &slow, Duration::ZERO), Ok(None));
    runner.fails = true;
    let error = second_opinion::of(&mut runner, &fast, &slow, left).unwrap_err();
    assert!(error.contains("it fails"), "{error}");
}
