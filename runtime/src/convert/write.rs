//! Writes a plan: every tensor in one pass, a part at a time, made on all threads.

use super::block_encoder;
use super::floats::{FloatType, Floats};
use super::plan::{Content, Item, Plan, Source, factor, is_i2s, rows_of_blocks};
use super::ternary::{Measure, Seen, Space, Ternary};
use super::{ConvertError, Step, TensorReport};
use crate::gguf::{AtomicFile, TensorKind, TensorWriter};
use crate::ternary::{Codec, Scales};
use half::f16;
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_kernels::Supported;
use trilut_kernels::float::elementwise;
use trilut_presets::Shape;

/// Weights that one thread converts at a time.
const CHUNK: usize = 1 << 19;

/// Chunks that are made at once and then written.
const CHUNKS: usize = 16;

/// A file that is being written.
pub(super) struct Output<'a> {
    file: TensorWriter<AtomicFile>,
    isa: Supported,
    source: &'a Source,
    buffer: Vec<u8>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(Step, u64, u64) -> ControlFlow<()>,
}

/// The side file of `path` with everything the plan holds, and what was seen of its ternary tensors.
pub(super) fn write(
    plan: &mut Plan<'_>,
    path: &Path,
    isa: Supported,
    source: &Source,
    progress: &mut dyn FnMut(Step, u64, u64) -> ControlFlow<()>,
) -> Result<(AtomicFile, Vec<TensorReport>), ConvertError> {
    let Plan { header, items, .. } = plan;
    items.iter().for_each(|item| item.declare(header));
    let mut out = Output {
        total: header.data_bytes(),
        file: header.create(path)?,
        isa,
        source,
        buffer: Vec::new(),
        done: 0,
        progress,
    };
    let mut reports = Vec::new();
    for item in items.iter() {
        match &item.content {
            Content::Bytes { bytes, size, .. } => out.bytes(&item.name, bytes, *size)?,
            Content::Floats { floats, m, kind, plus } => {
                out.floats(item, floats, *m, *kind, *plus)?;
            }
            Content::Ternary { ternary, codec, measure } => {
                reports.push(out.ternary(item, ternary, *codec, measure)?);
            }
            Content::Scale(scale) => out.part(&item.name, &scale.to_le_bytes())?,
        }
    }
    Ok((out.file.finish()?, reports))
}

impl Output<'_> {
    fn bytes(&mut self, name: &str, bytes: &[u8], size: u64) -> Result<(), ConvertError> {
        for part in bytes.chunks(CHUNK * 4) {
            self.part(name, part)?;
            self.source.release(part);
        }
        // Padding, which not all files hold.
        match usize::try_from(size).ok().and_then(|size| size.checked_sub(bytes.len())) {
            Some(missing) if missing > 0 => self.part(name, &vec![0; missing]),
            _ => Ok(()),
        }
    }

    /// Converts floats to another type.
    fn floats(
        &mut self,
        item: &Item<'_>,
        floats: &Floats<'_>,
        m: usize,
        kind: TensorKind,
        plus: f32,
    ) -> Result<(), ConvertError> {
        let (isa, k) = (self.isa, floats.k);
        let row_bytes = kind.bytes(&[k as u64]).unwrap_or(0) as usize;
        let rows = (CHUNK / k).clamp(1, m);
        let mut buffer = std::mem::take(&mut self.buffer);
        for start in (0..m).step_by(rows * CHUNKS) {
            let count = (rows * CHUNKS).min(m - start);
            buffer.resize(count * row_bytes, 0);
            let convert = |values: &mut Vec<f32>, (chunk, out): (usize, &mut [u8])| {
                values.resize(k, 0.0);
                let first = start + chunk * rows;
                for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
                    floats.row(isa, row, values);
                    if plus != 0.0 {
                        values.iter_mut().for_each(|value| *value += plus);
                    }
                    narrow(isa, values, kind, out).map_err(|what| {
                        ConvertError::tensor(&item.name, format!("has {what} in row {row}"))
                    })?;
                }
                Ok(())
            };
            let verbatim = plus == 0.0 && FloatType::from_id(kind.id()) == Some(floats.kind);
            if verbatim && floats.kind != FloatType::F32 {
                buffer.copy_from_slice(floats.rows(start, count));
                check_f16(&buffer, &item.name)?;
            } else {
                buffer
                    .par_chunks_mut(rows * row_bytes)
                    .enumerate()
                    .map_init(Vec::new, convert)
                    .collect::<Result<(), ConvertError>>()?;
            }
            self.part(&item.name, &buffer)?;
            self.source.release(floats.rows(start, count));
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Packs a ternary matrix.
    fn ternary(
        &mut self,
        item: &Item<'_>,
        ternary: &Ternary<'_>,
        codec: Codec,
        measure: &Measure,
    ) -> Result<TensorReport, ConvertError> {
        let (isa, m, k) = (self.isa, ternary.m, ternary.k);
        let rows = (CHUNK / k).max(1).next_multiple_of(rows_of_blocks(codec, k));
        let stored = |rows: usize| {
            let bytes = codec.bytes(Shape { m: rows, k });
            bytes.map_err(|error| {
                ConvertError::tensor(&ternary.name, format!("cannot be stored: {error}"))
            })
        };
        // Of I2_S without the scale behind all blocks.
        let tail = if is_i2s(codec) { 4 } else { 0 };
        let chunk_bytes = stored(rows.min(m))? - tail;
        let in_blocks = Scales::One(factor(codec, measure));
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut seen = Seen::default();
        for start in (0..m).step_by(rows * CHUNKS) {
            let count = (rows * CHUNKS).min(m - start);
            buffer.resize(stored(count)? - tail, 0);
            let pack = |(weights, space): &mut (Vec<i8>, Space),
                        (chunk, out): (usize, &mut [u8])| {
                let first = start + chunk * rows;
                let shape = Shape { m: rows.min(m - first), k };
                weights.resize(shape.weights(), 0);
                let seen = ternary.rows(isa, measure, first, weights, space)?;
                let packed = codec.encode(shape, weights, &in_blocks).map_err(|error| {
                    ConvertError::tensor(&ternary.name, format!("cannot be stored: {error}"))
                })?;
                out.copy_from_slice(&packed[..out.len()]);
                Ok(seen)
            };
            let parts: Vec<Seen> = buffer
                .par_chunks_mut(chunk_bytes)
                .enumerate()
                .map_init(Default::default, pack)
                .collect::<Result<_, ConvertError>>()?;
            // In order: the same sums on any number of threads.
            parts.into_iter().for_each(|part| seen += part);
            self.part(&item.name, &buffer)?;
        }
        self.source.release(ternary.bytes());
        self.buffer = buffer;
        if is_i2s(codec) {
            let mut tail = [0; 32];
            tail[..4].copy_from_slice(&measure.scale.to_le_bytes());
            self.part(&item.name, &tail)?;
        }
        if seen.zeros == (m * k) as u64 {
            return Err(ConvertError::tensor(&ternary.name, "holds nothing but zeros"));
        }
        Ok(TensorReport {
            name: item.name.clone(),
            m,
            k,
            scale: measure.scale,
            zeros: seen.zeros as f64 / (m * k) as f64,
            error: (seen.square > 0.0).then(|| (seen.error / seen.square).sqrt()),
        })
    }

    fn part(&mut self, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        self.file.write(name, bytes)?;
        self.done += bytes.len() as u64;
        match (self.progress)(Step::Write, self.done.min(self.total), self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ConvertError::Cancelled),
        }
    }
}

/// Writes a row of values in a type; the error says what cannot be stored.
pub(super) fn narrow(
    isa: Supported,
    values: &[f32],
    kind: TensorKind,
    out: &mut [u8],
) -> Result<(), &'static str> {
    if !values.iter().all(|value| value.is_finite()) {
        return Err("a value that is infinite or not a number");
    }
    match (kind, kind.block_format()) {
        (TensorKind::F32, _) => {
            let out = out.as_chunks_mut().0.iter_mut();
            out.zip(values).for_each(|(out, value)| *out = value.to_le_bytes());
        }
        (_, Some(format)) => {
            block_encoder::encode(format, values, out);
            if format.first_not_finite(out).is_some() {
                return Err("a value that is too large");
            }
        }
        _ => {
            let mut part = [f16::ZERO; 256];
            for (values, out) in values.chunks(256).zip(out.chunks_mut(512)) {
                let part = &mut part[..values.len()];
                elementwise::narrow_f16(isa, values, part);
                if !part.iter().all(|value| value.is_finite()) {
                    return Err("a value that is too large for F16");
                }
                let out = out.as_chunks_mut().0.iter_mut();
                out.zip(part).for_each(|(out, value)| *out = value.to_le_bytes());
            }
        }
    }
    Ok(())
}

/// Refuses infinite and NaN values among those that are copied.
fn check_f16(bytes: &[u8], name: &str) -> Result<(), ConvertError> {
    let bad = |&&b: &&[u8; 2]| !f16::from_le_bytes(b).is_finite();
    match bytes.as_chunks().0.iter().find(bad) {
        None => Ok(()),
        Some(_) => Err(ConvertError::tensor(name, "has a value that is infinite or not a number")),
    }
}
