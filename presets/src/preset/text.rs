//! Presets as TOML text.
//!
//! Written by hand, so that each record is a short block of one-line fields that diffs well, and read
//! by serde.

use super::{Evidence, Preset, PresetError, Provenance, Record, Rule, SCHEMA};
use crate::Machine;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use toml::Spanned;

/// Read before all else: the fields of a newer schema are unknown, and that is not their fault.
#[derive(Deserialize)]
struct Head {
    schema: Spanned<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "schema")]
    _schema: u32,
    provenance: Spanned<Provenance>,
    machine: Machine,
    #[serde(default)]
    record: Vec<Spanned<Record>>,
}

pub(super) fn parse(text: &str, origin: &str) -> Result<Preset, PresetError> {
    let line = |at: usize| {
        1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count()
    };
    let invalid = |at: usize, rule: String| PresetError::Invalid {
        origin: origin.to_owned(),
        line: line(at),
        source: Rule(rule),
    };
    let syntax = |error: toml::de::Error| {
        // Errors without a place are about something missing at the top level.
        invalid(error.span().map_or(0, |s| s.start), error.message().to_owned())
    };
    let head: Head = toml::from_str(text).map_err(syntax)?;
    let (schema, at) = (*head.schema.get_ref(), head.schema.span().start);
    if schema > SCHEMA {
        return Err(PresetError::Newer { origin: origin.to_owned(), line: line(at), schema });
    }
    if schema != SCHEMA {
        return Err(invalid(at, format!("there is no schema {schema}; the first one is 1")));
    }
    let body: Body = toml::from_str(text).map_err(syntax)?;
    let noise = body.provenance.get_ref().noise;
    if noise.is_some_and(|noise| !noise.is_finite() || noise < 0.0) {
        let rule = "noise must be a number of at least 0".to_owned();
        return Err(invalid(body.provenance.span().start, rule));
    }
    let mut seen = BTreeMap::new();
    for record in &body.record {
        let at = record.span().start;
        let record = record.get_ref();
        if let Some(rule) = record.broken_rule() {
            return Err(invalid(at, rule));
        }
        if let Some(first) = seen.insert(record.key(), at) {
            let (shape, phase, threads) = record.key();
            let what = format!("{shape}, {phase}, threads = {threads}");
            return Err(invalid(
                at,
                format!("there is a record for {what} in line {} already", line(first)),
            ));
        }
    }
    let records = body.record.into_iter().map(Spanned::into_inner).collect();
    Ok(Preset::new(body.provenance.into_inner(), body.machine, records))
}

pub(super) fn write(preset: &Preset) -> String {
    let mut text = format!(
        "{}: the fastest exact kernels found on one machine.\n\
         # `trilut tune` writes it, `trilut doctor` says whether it is used.\n\n",
        Preset::HEADING
    );
    let out = &mut text;
    field(out, "schema", SCHEMA);

    out.push_str("\n[provenance]\n");
    let p = &preset.provenance;
    field(out, "trilut", quoted(&p.trilut));
    field(out, "date", quoted(&p.date));
    field(out, "isa", quoted(p.isa.name()));
    field(out, "effort", quoted(p.effort.name()));
    field(out, "threads", p.threads);
    if let Some(noise) = p.noise {
        field(out, "noise", decimal(noise));
    }

    out.push_str("\n[machine]\n");
    let m = &preset.machine;
    field(out, "arch", quoted(&m.arch));
    field(out, "vendor", quoted(&m.vendor));
    field(out, "brand", quoted(&m.brand));
    field(out, "family", m.family);
    field(out, "model", m.model);
    field(out, "stepping", m.stepping);
    field(out, "microarchitecture", quoted(&m.microarchitecture));
    field(out, "features", list(m.features.iter().map(|f| quoted(f))));
    let caches = m.caches.iter().map(|c| {
        format!("{{ level = {}, bytes = {}, shared_by = {} }}", c.level, c.bytes, c.shared_by)
    });
    field(out, "caches", list(caches));
    field(out, "logical_cpus", m.logical_cpus);
    field(out, "physical_cores", m.physical_cores);
    if let Some(hypervisor) = &m.hypervisor {
        field(out, "hypervisor", quoted(hypervisor));
    }
    if let Some(microcode) = &m.microcode {
        field(out, "microcode", quoted(microcode));
    }
    field(out, "memory_bytes", m.memory_bytes);

    for r in preset.records() {
        out.push_str("\n[[record]]\n");
        field(out, "shape", quoted(&r.shape.to_string()));
        field(out, "phase", quoted(r.phase.name()));
        if r.tokens != 1 {
            field(out, "tokens", r.tokens);
        }
        field(out, "threads", r.threads);
        field(out, "format", quoted(r.format.name()));
        field(out, "formats", list(r.formats.iter().map(|f| quoted(f.name()))));
        field(out, "space", quoted(&format!("{:#018x}", r.space)));
        field(out, "kernel", quoted(&r.kernel));
        field(out, "hash", quoted(&format!("{:#018x}", r.hash)));
        let tile = r.tile;
        let (rows, prefetch) = (tile.rows_per_task, tile.prefetch);
        field(out, "tile", format!("{{ rows_per_task = {rows}, prefetch = {prefetch} }}"));
        field(out, "effort", quoted(r.effort.name()));
        if let Some(from) = r.from {
            field(out, "from", from);
        }
        field(out, "weights", quoted(r.weights.name()));
        field(out, "median_ns", r.median_ns);
        field(out, "samples", list(r.samples.iter()));
        field(out, "default_kernel", quoted(&r.default_kernel));
        field(out, "default_ns", r.default_ns);
        if let Some(scalar_ns) = r.scalar_ns {
            field(out, "scalar_ns", scalar_ns);
        }
        if let Some(confidence) = r.confidence {
            field(out, "confidence", decimal(confidence));
        }
        if let Some(evidence) = &r.evidence {
            write_evidence(out, evidence);
        }
    }
    text
}

fn write_evidence(out: &mut String, e: &Evidence) {
    out.push_str("[record.evidence]\n");
    field(out, "date", quoted(&e.date));
    field(out, "trilut", quoted(&e.trilut));
    field(out, "compiler", quoted(&e.compiler));
    if let Some(microcode) = &e.microcode {
        field(out, "microcode", quoted(microcode));
    }
    field(out, "cores", e.cores);
    if let Some(noise) = e.noise {
        field(out, "noise", decimal(noise));
    }
    if let Some(memory) = e.memory {
        field(out, "memory", decimal(memory));
    }
    if let Some(interval) = e.interval {
        field(out, "interval", list(interval.into_iter().map(decimal)));
    }
    if let Some(model) = e.model {
        field(out, "model", list(model.into_iter().map(decimal)));
    }
    if let Some(wins) = e.wins {
        field(out, "wins", decimal(wins));
    }
    if let Some(regret) = e.regret {
        field(out, "regret", decimal(regret));
    }
    if !e.finalists.is_empty() {
        field(out, "finalists", list(e.finalists.iter().map(|name| quoted(name))));
    }
}

fn field(out: &mut String, name: &str, value: impl Display) {
    writeln!(out, "{name} = {value}").expect("a string takes any text");
}

/// A TOML string, escaped.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A fraction to four places: enough for any noise, and the same bytes after reading it back.
fn decimal(value: f64) -> String {
    format!("{value:.4}")
}

fn list<T: Display>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|i| i.to_string()).collect();
    format!("[{}]", items.join(", "))
}
