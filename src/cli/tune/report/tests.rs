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
        // Enough on a busy machine too.
        time_limit: Duration::from_secs(5),
        cpu: Cpu::detect(),
        machine: Machine { brand: "<script>&".to_owned(), ..Machine::default() },
        model_bytes: 1 << 20,
        prior: Prior::default(),
        decoded: Vec::new(),
    };
    let mut silent = trilut_tuning::Silent;
    let mut recorder = Recorder::new(&mut silent);
    let outcome = tune(&request, &mut recorder).unwrap();
    let moments = &recorder.moments[..];
    assert!(!moments.is_empty());
    let bandwidth = Bandwidth { threads: 1, bytes: 1 << 20, passes: 1, best_ns: 1e5 };
    let told = ["the model, decode: a < b".to_owned()];
    let (request, preset) = (&request, &outcome.preset);
    let whole = Page { request, preset, outcome: Some(&outcome), moments, told: &told, bandwidth };
    let html = whole.html();
    for report in &outcome.shapes {
        assert!(html.contains(&breakable(&report.record.kernel)));
    }
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("&lt;script&gt;&amp;"));
    for foreign in ["http:", "https:", "<script", "@import", "url(", "src=", "NaN", "inf"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert_eq!(html.matches("<svg").count(), 1 + 2 * outcome.shapes.len());
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert!(html.contains(" P"), "the pick is marked");
    assert!(html.contains(", 1 thread, ") && html.contains("a &lt; b"));
    assert!(!html.contains("earlier run"));

    // A run with nothing to do has the tables, and says why there are no races.
    let html = Page { outcome: None, moments: &[], told: &[], ..whole }.html();
    assert_eq!(html.matches("<tr><td>").count(), outcome.shapes.len());
    assert_eq!((html.matches("<svg").count(), html.matches("2 layers were").count()), (1, 1));
    assert!(html.contains("Nothing was searched in this run"));

    // What the gate put back is shown as it is saved.
    let mut records = preset.records().to_vec();
    let put_back = &mut records[0];
    put_back.kernel = put_back.default_kernel.clone();
    put_back.tile = trilut_presets::Tile::default_for(put_back.phase);
    put_back.evidence.as_mut().unwrap().model = Some([0.98, 1.02]);
    let preset = &Preset::new(preset.provenance.clone(), preset.machine.clone(), records);
    assert!(Page { preset, ..whole }.html().contains("<b>default (gate)</b>"));

    let dir = tempfile::tempdir().unwrap();
    let path = whole.write(&dir.path().join("new/report")).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), whole.html());
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(whole.write(&dir.path().join("file")).is_err());
}
