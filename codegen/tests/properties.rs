//! Whatever is asked for, the generator answers: with a kernel, or with the rule that is broken and legal
//! values.

use proptest::prelude::*;
use trilut_codegen::{Error, Named, Set, SetModule, Spec};
use trilut_presets::{
    Algorithm, BatchName, Fixed, Format, GemmAlgorithm, GemmName, Isa, KernelName, MicroTile, Shape,
};

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..=20_000usize, 1..=20_000usize).prop_map(|(m, k)| Shape { m, k })
}

fn micro() -> impl Strategy<Value = MicroTile> {
    let width = proptest::option::of(prop_oneof![Just(16), Just(32), Just(64), 0..100usize]);
    (0..20usize, 0..10usize, width).prop_map(|(rows, unroll, width)| MicroTile {
        rows,
        unroll,
        width,
    })
}

fn gemm_algorithm() -> impl Strategy<Value = GemmAlgorithm> {
    let n = || 0..40usize;
    prop_oneof![
        (n(), n()).prop_map(|(group, tables)| GemmAlgorithm::Vlut { group, tables }),
        n().prop_map(|rows| GemmAlgorithm::Dot { rows }),
        n().prop_map(|rows| GemmAlgorithm::Madd { rows }),
        n().prop_map(|rows| GemmAlgorithm::Mmla { rows }),
        (n(), n(), n()).prop_map(|(tables, steps, rows)| GemmAlgorithm::Mix {
            tables,
            steps,
            rows
        }),
    ]
}

/// An error says what would be legal.
fn explains(error: &Error) -> bool {
    let text = error.to_string();
    ["legal", "nearest", "must", "one of", " is no "].iter().any(|word| text.contains(word))
}

/// A legal kernel is Rust, always the same, and its name reads back as the same kernel.
fn holds(kernel: &Named) -> Result<(), TestCaseError> {
    let member = kernel.emit();
    prop_assert!(syn::parse_file(&member.text).is_ok());
    prop_assert_eq!(&kernel.emit().text, &member.text);
    prop_assert_eq!(&member.name.parse::<Named>().unwrap(), kernel);
    prop_assert!(!kernel.report().is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_shape_has_kernels_on_every_isa_that_reads_the_format(
        shape in shape(), format in any_of(Format::ALL), isa in any_of(Isa::ALL),
    ) {
        match Spec::representative(shape, format, isa).and_then(Named::try_from) {
            Ok(kernel) => holds(&kernel)?,
            Err(error) => prop_assert!(explains(&error), "{error}"),
        }
    }

    #[test]
    fn any_micro_tile_is_a_kernel_or_an_explained_error(
        shape in shape(), format in any_of(Format::ALL), isa in any_of(Isa::ALL),
        algorithm in any_of(Algorithm::ALL), micro in micro(), m in any::<bool>(),
    ) {
        let fixed = Fixed { m: m.then_some(shape.m), k: Some(shape.k) };
        let name = KernelName { format, algorithm, micro, isa, fixed };
        match Named::try_from(Spec { name }) {
            Ok(kernel) => holds(&kernel)?,
            Err(error) => prop_assert!(explains(&error), "{error}"),
        }
    }

    #[test]
    fn any_gemm_kernel_and_number_of_tokens_likewise(
        algorithm in gemm_algorithm(), tokens in 0..300usize, isa in any_of(Isa::ALL),
        width in proptest::option::of(0..80usize),
    ) {
        match Named::try_from(GemmName { algorithm, tokens, width, isa }) {
            Ok(kernel) => holds(&kernel)?,
            Err(error) => prop_assert!(explains(&error), "{error}"),
        }
    }

    #[test]
    fn any_small_batch_kernel_likewise(
        format in any_of(Format::ALL), algorithm in any_of(Algorithm::ALL), isa in any_of(Isa::ALL),
        rows in 0..10usize, tokens in 0..10usize, width in proptest::option::of(any_of(&[16, 32, 64])),
    ) {
        match Named::try_from(BatchName { format, algorithm, rows, tokens, width, isa }) {
            Ok(kernel) => holds(&kernel)?,
            Err(error) => prop_assert!(explains(&error), "{error}"),
        }
    }

    #[test]
    fn any_text_is_a_name_or_an_explained_error(text in "[a-z0-9_]{0,40}") {
        for text in [text.clone(), format!("gemv_i2s_{text}"), format!("gemm_vlut_{text}_avx2")] {
            if let Err(error) = text.parse::<Named>() {
                prop_assert!(explains(&error), "{error}");
            }
        }
    }

    #[test]
    fn any_set_is_a_module_or_an_explained_error(
        shapes in proptest::collection::vec(shape(), 1..4),
        formats in proptest::sample::subsequence(Format::ALL, 0..=Format::ALL.len()),
        isas in proptest::sample::subsequence(Isa::ALL, 0..=Isa::ALL.len()),
        arch in any_of(&[None, Some("x86_64"), Some("aarch64"), Some("riscv64")]),
    ) {
        let mut set = Set::default();
        for shape in shapes {
            // Twice the same is the one mistake that random shapes can hold.
            let _ = set.shape(shape);
        }
        formats.iter().for_each(|&format| set.format(format).unwrap());
        isas.iter().for_each(|&isa| set.isa(isa).unwrap());
        match SetModule::new(&set, arch) {
            Ok(module) => {
                prop_assert!(syn::parse_file(&module.text(&"::there".parse().unwrap())).is_ok());
                let own = |isa: Isa| isa.target_arch().is_none_or(|a| arch.is_none_or(|t| t == a));
                prop_assert!(module.members().iter().all(|member| own(member.isa)));
            }
            Err(error) => prop_assert!(explains(&error), "{error}"),
        }
    }

    #[test]
    fn any_two_numbers_are_a_shape_or_an_explained_error(m in any::<usize>(), k in any::<usize>()) {
        if let Err(error) = Shape::new(m, k) {
            let text = error.to_string();
            let nearest = text.rsplit("nearest: ").next().unwrap();
            prop_assert!(nearest.parse::<Shape>().is_ok(), "{text}");
        }
    }
}
