//! `trilut tune --report`: one self-contained page of what is saved for the layers of a run, with pictures
//! of the races that it ran. It loads nothing from anywhere, and follows the reader's choice of light or dark.

mod heatmap;
mod race;
mod roofline;

use super::super::failure::Failure;
use super::super::output;
use super::shown;
use race::Moment;
use std::fmt::Write;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use trilut_presets::atomic_file::AtomicFile;
use trilut_presets::preset::Record;
use trilut_presets::{Phase, Preset};
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

/// Where the page of a directory is.
pub(super) fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// What the page is made of.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    pub(super) request: &'a Request,
    /// What is saved, once the gate has seen it.
    pub(super) preset: &'a Preset,
    /// What this run searched, if anything.
    pub(super) outcome: Option<&'a Outcome>,
    /// When leaders changed in it.
    pub(super) moments: &'a [Moment],
    /// What the check of the whole model said.
    pub(super) told: &'a [String],
    pub(super) bandwidth: Bandwidth,
}

/// Text inside HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The name of a kernel, which may be broken behind its parts.
fn breakable(kernel: &str) -> String {
    escaped(kernel).replace('_', "_<wbr>")
}

impl Page<'_> {
    /// Writes the page into a directory, made if missing; returns its path. A reader sees the earlier page or
    /// this one.
    pub(super) fn write(&self, directory: &Path) -> Result<PathBuf, Failure> {
        let path = file(directory);
        output::check_file(&path)?;
        let mut file = AtomicFile::create(&path)?;
        file.write_all(self.html().as_bytes()).map_err(|error| {
            Failure::from(error).context(format!("cannot write {}", path.display()))
        })?;
        file.commit()?;
        Ok(path)
    }

    fn html(&self) -> String {
        let records = shown::records(self.preset, self.request);
        let mut html = self.head();
        let mut put = |text: String| html.push_str(&text);
        let notes = self.outcome.into_iter().flat_map(|outcome| &outcome.notes);
        for note in notes.chain(self.told) {
            put(format!("<p class=\"note\">{}</p>\n", escaped(note)));
        }
        for &phase in Phase::ALL {
            let own: Vec<&Record> =
                records.iter().copied().filter(|record| record.phase == phase).collect();
            if !own.is_empty() {
                put(self.table(phase, &own));
            }
        }
        if !records.is_empty() {
            put(format!(
                "<h2>Where the time goes</h2>\n<figure>{}<figcaption>Each layer's speed over the work it \
                 does with each byte of its weights: on the slope, memory is the limit ({}); above it are \
                 layers whose weights a cache held in part, and kernels that read memory faster than the plain \
                 loop that the slope is of; the level line is the fastest layer.</figcaption></figure>\n",
                roofline::svg(&records, self.bandwidth),
                escaped(&self.bandwidth.to_string()),
            ));
        }
        put("<h2>The races</h2>\n".to_owned());
        let reports = self.outcome.map_or(&[][..], |outcome| &outcome.shapes);
        let is_earlier = |record: &&&Record| self.report(record).is_none();
        let earlier = records.iter().filter(is_earlier).count();
        if earlier > 0 {
            put(format!(
                "<p>{} tuned by an earlier run: the table has what its record says, and there are no \
                 pictures of the race (<code>trilut tune --force</code> runs it again).</p>\n",
                match earlier {
                    1 => "1 layer was".to_owned(),
                    more => format!("{more} layers were"),
                },
            ));
        }
        reports.iter().for_each(|report| put(self.race(report)));
        put("</main></body></html>\n".to_owned());
        html
    }

    fn head(&self) -> String {
        let Self { request, preset, .. } = self;
        let machine = escaped(&request.machine.to_string());
        let run = match self.outcome {
            Some(outcome) => format!("The search took {:.1} s.", outcome.took.as_secs_f64()),
            None => "Nothing was searched in this run: all was tuned before.".to_owned(),
        };
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>trilut tune: {machine}</title>\n<style>{STYLE}</style></head><body><main>\n\
             <h1>Tuned kernels</h1>\n<p>{machine}; best instruction set {}, {}, effort {}. \
             trilut {}, {}. {run}</p>\n",
            request.isa(),
            output::count(request.threads, "thread"),
            request.effort,
            escaped(&preset.provenance.trilut),
            escaped(&preset.provenance.date),
        )
    }

    /// What this run found out about the layer of a record.
    fn report(&self, record: &Record) -> Option<&ShapeReport> {
        let is_own = |report: &&ShapeReport| {
            (report.layer.shape, report.layer.phase) == (record.shape, record.phase)
        };
        self.outcome?.shapes.iter().find(is_own)
    }

    fn table(&self, phase: Phase, records: &[&Record]) -> String {
        let title = match phase {
            Phase::Decode => "One token at a time",
            Phase::SmallBatch => "A few tokens at once",
            Phase::Prefill => "Prompts",
        };
        let mut html = format!(
            "<h2>{title}</h2>\n<div class=\"wide\"><table><thead><tr><th>shape</th><th>pick</th>\
             <th>tile</th><th>us</th><th>GMAC/s</th><th>x default</th><th>95 % of pick / default</th>\
             <th>wins</th><th>noise</th><th>effort</th><th>tried</th></tr></thead><tbody>\n"
        );
        for record in records {
            let ns = record.median_ns.max(1) as f64;
            let products = (record.shape.weights() * record.tokens) as f64;
            let evidence = record.evidence.clone().unwrap_or_default();
            let percent = |share: Option<f64>| {
                share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
            };
            let interval = evidence
                .interval
                .map_or("-".to_owned(), |[low, high]| format!("{low:.3} to {high:.3}"));
            let tried =
                self.report(record).map_or("-".to_owned(), |report| report.tried.to_string());
            let kind = match shown::pick(record) {
                "tuned" => String::new(),
                other => format!(" <b>{other}</b>"),
            };
            writeln!(
                html,
                "<tr><td>{}</td><td>{}{kind}</td><td>{}</td><td>{:.1}</td><td>{:.1}</td><td>{:.2}</td>\
                 <td>{interval}</td><td>{}</td><td>{}</td><td>{}</td><td>{tried}</td></tr>",
                record.shape,
                breakable(&record.kernel),
                escaped(&shown::bounds(record)),
                ns / 1e3,
                products / ns,
                record.default_ns as f64 / ns,
                percent(evidence.wins),
                percent(evidence.noise),
                record.effort,
            )
            .expect("a string takes any text");
        }
        html + "</tbody></table></div>\n"
    }

    /// The pictures of a layer's race.
    fn race(&self, report: &ShapeReport) -> String {
        let own: Vec<&Moment> =
            self.moments.iter().filter(|moment| moment.layer == Some(report.layer)).collect();
        let ShapeUse { shape, phase, .. } = report.layer;
        let saved = self.preset.record(shape, phase, self.request.threads);
        let is_put_back =
            saved.is_some_and(|saved| saved.is_default() && !report.record.is_default());
        format!(
            "<section><h3>{}</h3>\n<p>{}.{}</p>\n\
             <figure>{}<figcaption>Time of each candidate over the best: kernels from above, tiles from \
             the left; <b>P</b> the pick of the race, <b>D</b> the default.</figcaption></figure>\n\
             <figure>{}<figcaption>The best so far, over the time of the run.</figcaption></figure>\n\
             </section>\n",
            escaped(&report.layer.to_string()),
            escaped(&report.reason),
            if is_put_back {
                " The check of the whole model put the default in its place."
            } else {
                ""
            },
            heatmap::svg(report),
            race::svg(&own, report.default.median_ns),
        )
    }
}

#[cfg(test)]
mod tests;
