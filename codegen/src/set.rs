//! A set of kernels that is wanted: what `kernels!`, the build-script API and `trilut codegen` are read
//! into, so that all three mean the same by the same words.
//!
//! | word | meaning | without it |
//! |---|---|---|
//! | `shape` | a layer, outputs x inputs | |
//! | `model` | every layer of a model | |
//! | `format` | a stored codec | all |
//! | `isa` | an instruction set | all, without the one for tests |
//! | `tile` | rows per pass and unroll, such as `r4u2`, of all layers or of one | what does well untuned |
//! | `preset` | also the kernels that won there for layers with as many inputs | |
//! | `kernel` | a kernel by its whole name | |

use crate::{Error, Named, Spec, lattice};
use std::collections::{BTreeMap, BTreeSet};
use trilut_presets::models::ModelSpec;
use trilut_presets::{
    BatchName, Fixed, Format, GemmName, Isa, KernelName, MicroTile, Preset, Shape,
};

/// A set of kernels that is being described.
#[derive(Debug, Clone, Default)]
pub struct Set {
    shapes: Vec<Shape>,
    formats: Option<Vec<Format>>,
    isas: Option<Vec<Isa>>,
    tile: Option<MicroTile>,
    /// Tiles of single layers, by their number of inputs.
    tiles: BTreeMap<usize, (Shape, MicroTile)>,
    presets: Vec<Preset>,
    kernels: Vec<Named>,
}

impl Set {
    /// Adds a layer.
    ///
    /// # Errors
    /// When it is there already.
    pub fn shape(&mut self, shape: Shape) -> Result<(), Error> {
        add(&mut self.shapes, shape, "shape")
    }

    /// Adds the layers of a model that are not there yet.
    pub fn model(&mut self, model: &ModelSpec) {
        for shape in model.shapes() {
            if !self.shapes.contains(&shape) {
                self.shapes.push(shape);
            }
        }
    }

    /// Limits the formats to those that are named.
    ///
    /// # Errors
    /// When it is there already.
    pub fn format(&mut self, format: Format) -> Result<(), Error> {
        add(self.formats.get_or_insert_default(), format, "format")
    }

    /// Limits the ISAs to those that are named.
    ///
    /// # Errors
    /// When it is there already.
    pub fn isa(&mut self, isa: Isa) -> Result<(), Error> {
        add(self.isas.get_or_insert_default(), isa, "isa")
    }

    /// Rows per pass and unroll in place of what does well untuned.
    pub fn tile(&mut self, tile: MicroTile) {
        self.tile = Some(tile);
    }

    /// The same for one layer, in place of [`Set::tile`]. Kernels are made for a number of inputs: layers
    /// with as many share them.
    ///
    /// # Errors
    /// When another layer with as many inputs has another tile.
    pub fn tile_of(&mut self, shape: Shape, tile: MicroTile) -> Result<(), Error> {
        match self.tiles.insert(shape.k, (shape, tile)) {
            Some((first, other)) if other != tile => {
                Err(Error::Tiles { first, second: shape, tiles: [other, tile] })
            }
            _ => Ok(()),
        }
    }

    /// Adds the kernels that won in a preset for layers with as many inputs as those of this set; made for
    /// that number, they come before the others.
    pub fn preset(&mut self, preset: Preset) {
        self.presets.push(preset);
    }

    /// Adds a kernel by its name.
    ///
    /// # Errors
    /// When there is none of this name, or it is there already.
    pub fn kernel(&mut self, name: &str) -> Result<(), Error> {
        add(&mut self.kernels, name.parse()?, "kernel")
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty() && self.kernels.is_empty()
    }

    /// The layers.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// The formats; all where none is named.
    pub fn formats(&self) -> &[Format] {
        self.formats.as_deref().unwrap_or(Format::ALL)
    }

    /// The numbers of inputs of the layers.
    fn ks(&self) -> BTreeSet<usize> {
        self.shapes.iter().map(|shape| shape.k).collect()
    }

    /// The formats and the ISAs of the kernels that won in a preset for layers with as many inputs as those
    /// of this set, within the formats and ISAs that are named: what there is to name where a user names a
    /// preset alone.
    ///
    /// # Errors
    /// When the preset names an illegal kernel.
    pub fn known_to(&self, preset: &Preset) -> Result<(Vec<Format>, Vec<Isa>), Error> {
        let winners = self.winners(preset, &self.ks())?;
        let formats: BTreeSet<Format> = winners.iter().filter_map(Named::format).collect();
        let isas: BTreeSet<Isa> = winners.iter().map(Named::isa).collect();
        Ok((formats.into_iter().collect(), isas.into_iter().collect()))
    }

    /// Whether kernels of an ISA are wanted for a target architecture, `None` standing for any.
    fn wants(&self, isa: Isa, arch: Option<&str>) -> bool {
        // The emulated ISA is for tests of the generator itself.
        let named = match &self.isas {
            Some(isas) => isas.contains(&isa),
            None => isa != Isa::Emulated,
        };
        named && isa.target_arch().is_none_or(|own| arch.is_none_or(|arch| arch == own))
    }

    /// The kernels for a target architecture, or for all: first those of presets, then those that do well
    /// untuned, then those by name; each once.
    ///
    /// # Errors
    /// When nothing was asked for, a kernel is illegal, no ISA reads a format, a layer with a tile is not there,
    /// or a preset knows nothing of this set.
    pub fn members(&self, arch: Option<&str>) -> Result<Vec<Named>, Error> {
        if self.is_empty() {
            return Err(Error::Empty);
        }
        let ks = self.ks();
        // Whatever the target: a mistake is one on every machine.
        for &format in self.formats().iter().filter(|_| !ks.is_empty()) {
            let mut readers = lattice::spelled_for(format);
            if !readers.any(|isa| self.wants(isa, None)) {
                let legal: Vec<&str> = lattice::spelled_for(format).map(Isa::name).collect();
                return Err(Error::Unread { format, legal: legal.join(", ") });
            }
        }
        let strangers = |(shape, _): &&(Shape, MicroTile)| !self.shapes.contains(shape);
        if let Some(&(shape, tile)) = self.tiles.values().find(strangers) {
            let legal: Vec<String> = self.shapes.iter().map(Shape::to_string).collect();
            return Err(Error::Layer { shape, tile, legal: legal.join(", ") });
        }
        let mut members = Vec::new();
        for (index, preset) in self.presets.iter().enumerate() {
            let found = self.winners(preset, &ks)?;
            if found.is_empty() {
                return Err(Error::Preset { index });
            }
            members.extend(found);
        }
        for &k in &ks {
            for &format in self.formats() {
                for isa in lattice::spelled_for(format).filter(|&isa| self.wants(isa, None)) {
                    let mut spec = Spec::representative(Shape { m: 1, k }, format, isa)?;
                    if let Some(tile) = self.tiles.get(&k).map(|&(_, tile)| tile).or(self.tile) {
                        let width = tile.width.or(spec.name.micro.width);
                        spec.name.micro = MicroTile { width, ..tile };
                    }
                    members.push(Named::try_from(spec)?);
                }
            }
        }
        members.extend(self.kernels.iter().cloned());
        let mut names = BTreeSet::new();
        // Kernels by name are wanted whatever ISAs are named.
        let of_target = |isa: Isa| isa.target_arch().is_none_or(|a| arch.is_none_or(|t| t == a));
        members.retain(|member| of_target(member.isa()) && names.insert(member.to_string()));
        Ok(members)
    }

    /// The winners of a preset for layers with one of these numbers of inputs.
    fn winners(&self, preset: &Preset, ks: &BTreeSet<usize>) -> Result<Vec<Named>, Error> {
        let mut winners = Vec::new();
        for record in preset.records().iter().filter(|record| ks.contains(&record.shape.k)) {
            if let Ok(name) = record.kernel.parse::<KernelName>() {
                if self.formats().contains(&name.format) && self.wants(name.isa, None) {
                    let fixed = Fixed { m: None, k: Some(record.shape.k) };
                    winners.push(Named::try_from(Spec { name: KernelName { fixed, ..name } })?);
                }
            } else if let Ok(name) = record.kernel.parse::<GemmName>()
                && self.wants(name.isa, None)
            {
                winners.push(Named::try_from(name)?);
            } else if let Ok(name) = record.kernel.parse::<BatchName>()
                && self.formats().contains(&name.format)
                && self.wants(name.isa, None)
            {
                winners.push(Named::try_from(name)?);
            }
        }
        Ok(winners)
    }
}

/// Adds what is not there yet.
fn add<T: PartialEq + std::fmt::Display>(
    list: &mut Vec<T>,
    item: T,
    what: &'static str,
) -> Result<(), Error> {
    if list.contains(&item) {
        return Err(Error::Twice { what, given: item.to_string() });
    }
    list.push(item);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shapes: &[(usize, usize)], formats: &[Format], isas: &[Isa]) -> Set {
        let mut set = Set::default();
        shapes.iter().for_each(|&(m, k)| set.shape(Shape { m, k }).unwrap());
        formats.iter().for_each(|&format| set.format(format).unwrap());
        isas.iter().for_each(|&isa| set.isa(isa).unwrap());
        set
    }

    fn names(set: &Set, arch: Option<&str>) -> Vec<String> {
        set.members(arch).unwrap().iter().map(Named::to_string).collect()
    }

    #[test]
    fn shapes_with_the_same_inputs_share_their_kernels() {
        let set = set(&[(64, 256), (128, 256)], &[Format::I2S], &[Isa::Scalar, Isa::Avx2]);
        assert_eq!(names(&set, None).len(), 2);
        assert_eq!(names(&set, Some("aarch64")), ["gemv_i2s_dot_r1u1_scalar_k256"]);
    }

    #[test]
    fn everything_is_taken_where_nothing_is_named() {
        let members = names(&set(&[(64, 256)], &[], &[]), None);
        for format in Format::ALL {
            for isa in lattice::spelled_for(*format).filter(|isa| *isa != Isa::Emulated) {
                let is_it = |name: &&String| {
                    let name: KernelName = name.parse().unwrap();
                    (name.format, name.isa) == (*format, isa)
                };
                assert_eq!(members.iter().filter(is_it).count(), 1, "{format} {isa}");
            }
        }
    }

    #[test]
    fn winners_of_a_preset_come_first() {
        let zen5 = Preset::parse(include_str!("../../presets/x86_64/zen5.toml"), "zen5").unwrap();
        let record = &zen5.records()[0];
        let shape = record.shape;
        let mut set = set(&[(shape.m, shape.k)], &[], &[]);
        let plain = names(&set, Some("x86_64"));
        set.preset(zen5.clone());
        let tuned = names(&set, Some("x86_64"));
        assert!(plain.iter().all(|name| tuned.contains(name)));
        assert_ne!(plain[0], tuned[0]);
        let mut stranger = super::tests::set(&[(7, 13)], &[], &[]);
        stranger.preset(zen5);
        assert_eq!(stranger.members(None).unwrap_err(), Error::Preset { index: 0 });
    }

    #[test]
    fn mistakes_name_what_is_wrong() {
        assert_eq!(Set::default().members(None).unwrap_err(), Error::Empty);
        let mut twice = set(&[(1, 2)], &[], &[]);
        assert!(twice.shape(Shape { m: 1, k: 2 }).unwrap_err().to_string().contains("1x2"));
        let error = twice.kernel("gemv_i2s_madd_r5u1_avx2").unwrap_err();
        assert!(error.to_string().contains("nearest"), "{error}");
        twice.kernel("gemm_dot_r8t32_avx512").unwrap();
        assert!(names(&twice, None).contains(&"gemm_dot_r8t32_avx512".to_owned()));
        assert!(twice.kernel("gemm_dot_r8t32_avx512").is_err());
        let mut tile = set(&[(1, 2)], &[Format::I2S], &[Isa::Avx2]);
        tile.tile("r4u4".parse().unwrap());
        assert_eq!(names(&tile, None), ["gemv_i2s_maddx4_r4u4_avx2_k2"]);
        tile.tile("r3u4".parse().unwrap());
        assert!(tile.members(None).unwrap_err().to_string().contains("nearest: 2"));
    }

    #[test]
    fn a_layer_may_have_a_tile_of_its_own() {
        let (first, second) = (Shape { m: 64, k: 256 }, Shape { m: 32, k: 512 });
        let mut both = set(&[(64, 256), (32, 512)], &[Format::I2S], &[Isa::Avx2]);
        both.tile("r4u4".parse().unwrap());
        both.tile_of(second, "r2u1".parse().unwrap()).unwrap();
        let tiled = ["gemv_i2s_maddx4_r4u4_avx2_k256", "gemv_i2s_maddx4_r2u1_avx2_k512"];
        assert_eq!(names(&both, None), tiled);
        both.tile_of(first, "r2u1".parse().unwrap()).unwrap();
        let mut stranger = both.clone();
        stranger.tile_of(Shape { m: 1, k: 2 }, "r2u1".parse().unwrap()).unwrap();
        let error = stranger.members(None).unwrap_err().to_string();
        assert!(error.contains("1x2") && error.contains("legal: 64x256, 32x512"), "{error}");
        // Said again it is no mistake; another layer with as many inputs shares its kernels.
        both.tile_of(first, "r2u1".parse().unwrap()).unwrap();
        let other = Shape { m: 65, k: 256 };
        let error = both.tile_of(other, "r2u2".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("layers 64x256 and 65x256") && error.contains("r2u1 and r2u2"));
    }

    #[test]
    fn a_preset_knows_formats_and_isas() {
        let zen5 = Preset::parse(include_str!("../../presets/x86_64/zen5.toml"), "zen5").unwrap();
        let layer = set(&[(2560, 6912)], &[], &[]);
        let (formats, isas) = layer.known_to(&zen5).unwrap();
        assert_eq!(formats, [Format::Base3]);
        assert_eq!(isas, [Isa::Avx512, Isa::Avx512Vbmi]);
        let narrow = set(&[(2560, 6912)], &[], &[Isa::Avx512Vbmi]);
        let known = narrow.known_to(&zen5).unwrap();
        assert_eq!(known, (vec![Format::Base3], vec![Isa::Avx512Vbmi]));
        assert_eq!(set(&[(7, 13)], &[], &[]).known_to(&zen5).unwrap(), (vec![], vec![]));
    }
}
