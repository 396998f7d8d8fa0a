//! `trilut tune --report`: one self-contained page of what a run has found. It loads nothing from
//! anywhere, and follows the reader's choice of light or dark.

mod heatmap;
mod race;
mod roofline;

use super::super::failure::Failure;
use super::super::output;
use race::Moment;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use trilut_presets::Phase;
use trilut_presets::preset::Record;
use trilut_tuning::bandwidth::Bandwidth;
use trilut_tuning::{Event, Observer, Outcome, Request, ShapeReport, ShapeUse};

/// The file in the directory.
const FILE: &str = "index.html";

const STYLE: &str = include_str!("report/style.css");

/// Passes events on and remembers when leaders changed.
pub(super) struct Recorder<'a> {
    inner: &'a mut dyn Observer,
    begin: Instant,
    layer: Option<ShapeUse>,
    /// In the order of the run.
    pub(super) moments: Vec<Moment>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(inner: &'a mut dyn Observer) -> Self {
        Self { inner, begin: Instant::now(), layer: None, moments: Vec::new() }
    }
}

impl Observer for Recorder<'_> {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Shape { layer, .. } => self.layer = Some(*layer),
            Event::Best { candidate, ns } => self.moments.push(Moment {
                layer: self.layer,
                seconds: self.begin.elapsed().as_secs_f64(),
                ns: *ns,
                candidate: (*candidate).to_owned(),
            }),
            _ => {}
        }
        self.inner.event(event);
    }

    fn should_stop(&mut self) -> bool {
        self.inner.should_stop()
    }
}

/// Writes the page into a directory, made if missing; returns its path.
pub(super) fn write(
    directory: &Path,
    request: &Request,
    outcome: &Outcome,
    moments: &[Moment],
    bandwidth: Bandwidth,
) -> Result<PathBuf, Failure> {
    let path = directory.join(FILE);
    output::check_file(&path)?;
    std::fs::write(&path, page(request, outcome, moments, bandwidth)).map_err(|error| {
        Failure::from(error).context(format!("cannot write {}", path.display()))
    })?;
    Ok(path)
}

/// Text inside HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn page(request: &Request, outcome: &Outcome, moments: &[Moment], bandwidth: Bandwidth) -> String {
    let mut html = String::new();
    let machine = escaped(&request.machine.to_string());
    let provenance = &outcome.preset.provenance;
    // A string takes any text.
    let mut put = |text: String| html.push_str(&text);
    put(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>trilut tune: {machine}</title>\n<style>{STYLE}</style></head><body><main>\n\
         <h1>Tuned kernels</h1>\n<p>{machine}; best instruction set {}, {} threads, effort {}. \
         trilut {}, {}. The run took {:.1} s.</p>\n",
        request.isa(),
        request.threads,
        request.effort,
        escaped(&provenance.trilut),
        escaped(&provenance.date),
        outcome.took.as_secs_f64(),
    ));
    for note in &outcome.notes {
        put(format!("<p class=\"note\">{}</p>\n", escaped(note)));
    }
    for &phase in Phase::ALL {
        let reports: Vec<&ShapeReport> =
            outcome.shapes.iter().filter(|report| report.layer.phase == phase).collect();
        if !reports.is_empty() {
            put(table(phase, &reports));
        }
    }
    put(format!(
        "<h2>Where the time goes</h2>\n<figure>{}<figcaption>Each layer's speed over the work it does \
         with each byte of its weights: below the slope, memory is the limit ({}); the level line is the \
         fastest layer of the run.</figcaption></figure>\n",
        roofline::svg(&outcome.shapes, bandwidth),
        escaped(&bandwidth.to_string()),
    ));
    put("<h2>The races</h2>\n".to_owned());
    for report in &outcome.shapes {
        let own: Vec<&Moment> =
            moments.iter().filter(|moment| moment.layer == Some(report.layer)).collect();
        put(format!(
            "<section><h3>{}</h3>\n<p>{}.</p>\n\
             <figure>{}<figcaption>Time of each candidate over the best: kernels from above, tiles from \
             the left; <b>P</b> the pick, <b>D</b> the default.</figcaption></figure>\n\
             <figure>{}<figcaption>The best so far, over the time of the run.</figcaption></figure>\n\
             </section>\n",
            escaped(&report.layer.to_string()),
            escaped(&report.reason),
            heatmap::svg(report),
            race::svg(&own, report.default.median_ns),
        ));
    }
    put("</main></body></html>\n".to_owned());
    html
}

fn table(phase: Phase, reports: &[&ShapeReport]) -> String {
    let title = match phase {
        Phase::Decode => "One token at a time",
        Phase::SmallBatch => "A few tokens at once",
        Phase::Prefill => "Prompts",
    };
    let mut html = format!(
        "<h2>{title}</h2>\n<div class=\"wide\"><table><thead><tr><th>shape</th><th>pick</th><th>tile</th>\
         <th>us</th><th>GMAC/s</th><th>x default</th><th>95 % of pick / default</th><th>wins</th>\
         <th>noise</th><th>tried</th></tr></thead><tbody>\n"
    );
    for report in reports {
        let record = &report.record;
        let ns = report.winner.median_ns;
        let products = (report.layer.shape.weights() * report.layer.tokens()) as f64;
        let evidence = record.evidence.clone().unwrap_or_default();
        let percent = |share: Option<f64>| {
            share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
        };
        let interval = evidence
            .interval
            .map_or("-".to_owned(), |[low, high]| format!("{low:.3} to {high:.3}"));
        writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{:.1}</td><td>{:.2}</td>\
             <td>{interval}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            report.layer.shape,
            escaped(&record.kernel),
            escaped(&bounds(record)),
            ns / 1e3,
            products / ns,
            report.gain(),
            percent(evidence.wins),
            percent(evidence.noise),
            report.tried,
        )
        .expect("a string takes any text");
    }
    html + "</tbody></table></div>\n"
}

/// The bounds of a pick, and where prompts take over.
fn bounds(record: &Record) -> String {
    let tile = record.tile.in_words(record.phase);
    record.from.map_or(tile.clone(), |from| format!("{tile}, from {from} tokens"))
}

#[cfg(test)]
mod tests;
