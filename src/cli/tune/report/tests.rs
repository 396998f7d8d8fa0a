use super::*;
use std::time::Duration;
use trilut_kernels::{Cpu, Format, Shape};
use trilut_presets::Machine;
use trilut_presets::preset::Effort;
use trilut_tuning::{Prior, ShapeUse, tune};

#[test]
fn the_page_is_whole_and_loads_nothing() {
    let layer = |phase| ShapeUse { phase, shape: Shape { m: 96, k: 200 }, count_per_token: 1 };
    let request = Request {
        shapes: vec![layer(Phase::Decode), layer(Phase::Prefill)],
        formats: vec![Format::I2S],
        threads: 1,
        effort: Effort::Measure,
        time_limit: Duration::from_millis(400),
        cpu: Cpu::detect(),
        machine: Machine { brand: "<script>&".to_owned(), ..Machine::default() },
        model_bytes: 1 << 20,
        prior: Prior::default(),
        decoded: Vec::new(),
    };
    let mut silent = trilut_tuning::Silent;
    let mut recorder = Recorder::new(&mut silent);
    let outcome = tune(&request, &mut recorder).unwrap();
    let moments = recorder.moments;
    assert!(!moments.is_empty());
    let bandwidth = Bandwidth { threads: 1, bytes: 1 << 20, passes: 1, best_ns: 1e5 };
    let html = page(&request, &outcome, &moments, bandwidth);
    for report in &outcome.shapes {
        assert!(html.contains(report.record.kernel.as_str()));
    }
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("&lt;script&gt;&amp;"));
    for foreign in ["http:", "https:", "<script", "@import", "url(", "src=", "NaN", "inf"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert_eq!(html.matches("<svg").count(), 1 + 2 * outcome.shapes.len());
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert!(html.contains(" P"), "the pick is marked");

    let dir = tempfile::tempdir().unwrap();
    let path =
        write(&dir.path().join("new/report"), &request, &outcome, &moments, bandwidth).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), html);
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(write(&dir.path().join("file"), &request, &outcome, &moments, bandwidth).is_err());
}
