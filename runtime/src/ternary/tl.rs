//! TL1 and TL2: weights in the order in which one build of bitnet.cpp looks them up. The order depends on
//! the tile that the build chose for a matrix of this size, which its files do not record.
//!
//! A matrix is cut into tiles of BM outputs and BK inputs; inside, `bm` outputs and a few inputs (256 /
//! bm for TL1, 192 / bm for TL2) are one step.
//!
//! * TL1: an index `3 t0 + t1 + 4` for each pair of inputs. Of 16 outputs and 4 inputs, 16 bytes: the
//!   first pair of each in the high nibble, the second in the low one.
//! * TL2: of the inputs up to the last multiple of BK, magnitude and sign of `9 t0 + 3 t1 + t2` for each
//!   triple: first all magnitudes, of 32 outputs and 6 inputs 32 bytes, then all signs, of 32 outputs and
//!   24 inputs 16 words. The inputs that are left are pairs, of 32 outputs and 4 inputs 32 bytes. Of the
//!   32 outputs of a step, the second and third eight change places.

use super::CodecError;
use trilut_presets::Shape;

/// How a build cuts matrices of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Outputs of a tile (`bm` in a kernel_config.ini).
    pub outputs: usize,
    /// Inputs of a tile (`bk`).
    pub inputs: usize,
    /// Outputs of a step (`bmm`).
    pub step: usize,
}

/// The tiles of a build, by the size of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tiles(Vec<(Shape, Tile)>);

/// A text that gives no tiles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A line of a kernel_config.ini is neither a section, a comment nor `key = number`.
    #[error("line {line} is `{text}`, expected `key = number`")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A section lacks a key.
    #[error("the section `{section}` has no `{key}`")]
    Key {
        /// The section.
        section: String,
        /// The key.
        key: &'static str,
    },
    /// A text that is no `MxK:BM,BK,bm`.
    #[error("`{0}` is no tile; expected MxK:BM,BK,bm, such as 2560x6912:128,96,32")]
    Text(String),
}

impl Tiles {
    /// Reads the kernel_config.ini that the code generators of bitnet.cpp write.
    ///
    /// # Errors
    /// When a line cannot be understood, or a section lacks m, k, bm, bk or bmm.
    pub fn from_ini(text: &str) -> Result<Self, TileError> {
        let mut sections: Vec<(String, Vec<(String, usize)>)> = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            let wrong = || TileError::Line { line: index + 1, text: line.to_owned() };
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                sections.push((name.to_owned(), Vec::new()));
                continue;
            }
            let (key, value) = line.split_once(['=', ':']).ok_or_else(wrong)?;
            let value = value.trim().parse().map_err(|_| wrong())?;
            let (_, keys) = sections.last_mut().ok_or_else(wrong)?;
            keys.push((key.trim().to_lowercase(), value));
        }
        let tile = |(section, keys): (String, Vec<(String, usize)>)| {
            let key = |key: &'static str| {
                let found = keys.iter().find(|(k, _)| k == key).map(|(_, value)| *value);
                found.ok_or_else(|| TileError::Key { section: section.clone(), key })
            };
            let tile = Tile { outputs: key("bm")?, inputs: key("bk")?, step: key("bmm")? };
            Ok((Shape { m: key("m")?, k: key("k")? }, tile))
        };
        sections.into_iter().map(tile).collect::<Result<_, _>>().map(Self)
    }

    /// Adds a tile given as `MxK:BM,BK,bm`; returns the size of the matrices that it is for.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn add(&mut self, text: &str) -> Result<Shape, TileError> {
        let parse = || -> Option<(Shape, Tile)> {
            let (shape, tile) = text.split_once(':')?;
            let (m, k) = shape.split_once('x')?;
            let number = |text: &str| text.trim().parse().ok();
            let mut tile = tile.split(',').map(number);
            let [outputs, inputs, step] = [tile.next()??, tile.next()??, tile.next()??];
            let shape = Shape { m: number(m)?, k: number(k)? };
            tile.next().is_none().then_some((shape, Tile { outputs, inputs, step }))
        };
        let entry = parse().ok_or_else(|| TileError::Text(text.to_owned()))?;
        // A later one wins.
        self.0.insert(0, entry);
        Ok(entry.0)
    }

    /// The tile of matrices of a size.
    pub fn find(&self, shape: Shape) -> Option<Tile> {
        self.0.iter().find(|(s, _)| *s == shape).map(|(_, tile)| *tile)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The steps of a part of a matrix: bytes of `rows` outputs and `columns` inputs each.
#[derive(Debug, Clone, Copy)]
struct Steps {
    /// Outputs of the matrix, of a tile and of a step.
    m: usize,
    outputs: usize,
    rows: usize,
    /// Inputs of the part, of a tile and of a step.
    k: usize,
    inputs: usize,
    columns: usize,
}

impl Steps {
    /// The number of the step that holds a weight, in the order of the file.
    fn index(&self, row: usize, column: usize) -> usize {
        let Self { outputs, rows, k, inputs, columns, .. } = *self;
        let tile = row / outputs * (k / inputs) + column / inputs;
        let within = row % outputs / rows * (inputs / columns) + column % inputs / columns;
        tile * (outputs / rows * (inputs / columns)) + within
    }

    fn count(&self) -> usize {
        self.m / self.rows * (self.k / self.columns)
    }
}

/// Where the second and third eight of 32 outputs have changed places.
fn swapped(row: usize) -> usize {
    match row / 8 {
        1 => row + 8,
        2 => row - 8,
        _ => row,
    }
}

/// The parts of a TL2 matrix.
struct Tl2 {
    /// Magnitudes, and at the same time the order of the triples.
    triples: Steps,
    signs: Steps,
    pairs: Steps,
    /// Inputs that are triples.
    three: usize,
}

impl Tl2 {
    fn signs_at(&self) -> usize {
        self.triples.count() * 32
    }

    fn pairs_at(&self) -> usize {
        self.signs_at() + self.signs.count() * 32
    }
}

impl Tile {
    fn refuse(self, codec: &'static str, shape: Shape, rule: &'static str) -> CodecError {
        CodecError::Tile { codec, shape, tile: Box::new(self), rule }
    }

    fn is_whole(self, shape: Shape) -> bool {
        let Self { outputs, inputs, step } = self;
        let positive = outputs > 0 && inputs > 0 && step > 0;
        positive && shape.m.is_multiple_of(outputs) && outputs.is_multiple_of(step)
    }

    /// Bytes of a TL1 matrix with its scale.
    pub(super) fn check_tl1(self, shape: Shape) -> Result<usize, CodecError> {
        let refuse = |rule| Err(self.refuse("TL1", shape, rule));
        if !self.is_whole(shape) {
            return refuse("BM must divide the outputs, and bm BM");
        }
        if !matches!(self.step, 16 | 32 | 64) {
            return refuse("bm must be 16, 32 or 64");
        }
        if !shape.k.is_multiple_of(self.inputs) || !self.inputs.is_multiple_of(256 / self.step) {
            return refuse("BK must divide the inputs, and be a multiple of 256 / bm");
        }
        Ok(shape.weights() / 4 + 4)
    }

    /// The byte of a TL1 matrix that holds the pair which begins at `column`, and its first bit.
    fn pair(self, shape: Shape, row: usize, column: usize) -> (usize, usize) {
        let (Self { outputs, inputs, step: rows }, Shape { m, k }) = (self, shape);
        let steps = Steps { m, outputs, rows, k, inputs, columns: 256 / rows };
        // A step has 64 bytes: by 16 outputs, then by 4 inputs.
        let (row_in, column_in) = (row % rows, column % steps.columns);
        let atom = row_in / 16 * (steps.columns / 4) + column_in / 4;
        (steps.index(row, column) * 64 + atom * 16 + row_in % 16, 4 - column_in % 4 / 2 * 4)
    }

    /// Writes a row's weights; the error is a code that stands for nothing.
    pub(super) fn row_tl1(
        self,
        shape: Shape,
        data: &[u8],
        row: usize,
        out: &mut [i8],
    ) -> Result<(), u8> {
        for (pair, out) in out.chunks_exact_mut(2).enumerate() {
            let (byte, bit) = self.pair(shape, row, 2 * pair);
            write_pair(data[byte] >> bit & 15, out)?;
        }
        Ok(())
    }

    pub(super) fn encode_tl1(self, shape: Shape, weights: &[i8], out: &mut [u8]) {
        for (row, weights) in weights.chunks_exact(shape.k).enumerate() {
            for (pair, t) in weights.chunks_exact(2).enumerate() {
                let (byte, bit) = self.pair(shape, row, 2 * pair);
                out[byte] |= ((3 * t[0] + t[1] + 4) as u8) << bit;
            }
        }
    }

    /// Bytes of a TL2 matrix with its scale.
    pub(super) fn check_tl2(self, shape: Shape) -> Result<usize, CodecError> {
        let refuse = |rule| Err(self.refuse("TL2", shape, rule));
        if !self.is_whole(shape) || self.step != 32 {
            return refuse("BM must divide the outputs and be a multiple of bm, which must be 32");
        }
        if !self.inputs.is_multiple_of(24) || shape.k < 256 {
            return refuse("BK must be a multiple of 24, and there must be 256 inputs at least");
        }
        if !(shape.k % self.inputs).is_multiple_of(32) {
            return refuse("the inputs beyond whole tiles must be a multiple of 32");
        }
        // The converter's own formula, each step rounded down.
        let Shape { m, k } = shape;
        let codes = (k - 256) * m / 3 * 5 / 8 + 256 * m / 2 * 4 / 8;
        if self.tl2(shape).pairs_at() + self.tl2(shape).pairs.count() * 32 > codes {
            return refuse("the converter has no room for this many inputs beyond whole tiles");
        }
        Ok(codes.next_multiple_of(32) + 4)
    }

    fn tl2(self, shape: Shape) -> Tl2 {
        let (Self { outputs, inputs, step: rows }, Shape { m, k }) = (self, shape);
        let three = k / inputs * inputs;
        let steps = |k, inputs, columns| Steps { m, outputs, rows, k, inputs, columns };
        Tl2 {
            triples: steps(three, inputs, 6),
            signs: steps(three, inputs, 24),
            pairs: steps(k - three, 32, 4),
            three,
        }
    }

    /// Writes a row's weights; the error is a code that stands for nothing.
    pub(super) fn row_tl2(
        self,
        shape: Shape,
        data: &[u8],
        row: usize,
        out: &mut [i8],
    ) -> Result<(), u8> {
        let parts = self.tl2(shape);
        let (three, two) = out.split_at_mut(parts.three);
        for (triple, out) in three.chunks_exact_mut(3).enumerate() {
            let (index, sign) = parts.triple(row, 3 * triple);
            let magnitude = data[index.0] >> index.1 & 15;
            if magnitude > 13 {
                return Err(magnitude);
            }
            let negative = data[sign.0] >> sign.1 & 1 == 1;
            let value = if negative { 13 - magnitude } else { 13 + magnitude } as i8;
            out.copy_from_slice(&[value / 9 - 1, value / 3 % 3 - 1, value % 3 - 1]);
        }
        for (pair, out) in two.chunks_exact_mut(2).enumerate() {
            let (byte, bit) = parts.pair(row, 2 * pair);
            write_pair(data[byte] >> bit & 15, out)?;
        }
        Ok(())
    }

    pub(super) fn encode_tl2(self, shape: Shape, weights: &[i8], out: &mut [u8]) {
        let parts = self.tl2(shape);
        for (row, weights) in weights.chunks_exact(shape.k).enumerate() {
            let (three, two) = weights.split_at(parts.three);
            for (triple, t) in three.chunks_exact(3).enumerate() {
                let (index, sign) = parts.triple(row, 3 * triple);
                let value = 9 * t[0] + 3 * t[1] + t[2];
                out[index.0] |= value.unsigned_abs() << index.1;
                out[sign.0] |= u8::from(value < 0) << sign.1;
            }
            for (pair, t) in two.chunks_exact(2).enumerate() {
                let (byte, bit) = parts.pair(row, 2 * pair);
                out[byte] |= ((3 * t[0] + t[1] + 4) as u8) << bit;
            }
        }
    }
}

impl Tl2 {
    /// Byte and bit of the magnitude, and of the sign, of the triple that begins at `column`.
    fn triple(&self, row: usize, column: usize) -> ((usize, usize), (usize, usize)) {
        let within = row % 32;
        let byte = self.triples.index(row, column) * 32 + swapped(within);
        let magnitude = (byte, 4 - column % 6 / 3 * 4);
        // Of 8 triples, 16 words; in a word, from the high bit down, each triple's two halves of 16 outputs.
        let bit = 15 - (column % 24 / 3 * 2 + within / 16);
        let word = self.signs_at() + self.signs.index(row, column) * 32 + within % 16 * 2;
        (magnitude, (word + bit / 8, bit % 8))
    }

    /// Byte and bit of the pair that begins at `column` of the inputs that are pairs.
    fn pair(&self, row: usize, column: usize) -> (usize, usize) {
        let byte = self.pairs_at() + self.pairs.index(row, column) * 32 + swapped(row % 32);
        (byte, 4 - column % 4 / 2 * 4)
    }
}

fn write_pair(index: u8, out: &mut [i8]) -> Result<(), u8> {
    if index > 8 {
        return Err(index);
    }
    out.copy_from_slice(&[(index / 3) as i8 - 1, (index % 3) as i8 - 1]);
    Ok(())
}
