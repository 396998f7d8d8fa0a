//! Each int16 bound is needed: a kernel that widens one step later is wrong on adversarial input.

mod common;

use common::{Case, runnable};
use trilut_kernels::{Kernel, Runnable, Shape, registry};

mod raised0 {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised0.rs"));
}

mod raised1 {
    #![allow(unreachable_pub, reason = "generated modules export their registries")]
    include!(concat!(env!("OUT_DIR"), "/raised1.rs"));
}

/// Long enough that every bank is widened at least once before the end.
const K: usize = 9216;

#[test]
fn each_bound_fails_when_raised_by_one_step() {
    let cases = Case::adversarial(Shape::new(33, K).unwrap());
    let inputs: Vec<_> = cases.iter().map(|c| (c, c.packed(), c.activations())).collect();
    let wrong = |kernel: &Runnable| {
        inputs.iter().any(|(case, packed, x)| case.run(kernel, packed, x) != case.sums)
    };
    let sets: [&'static [Kernel]; 2] = [&raised0::KERNELS, &raised1::KERNELS];
    let mut shown = 0;
    for kernel in sets.into_iter().flat_map(runnable) {
        assert!(wrong(&kernel), "{} is exact beyond its bound", kernel.kernel().text);
        shown += 1;
    }
    // Every bank of every generic kernel that runs here was shown, bar TL2's short tail.
    let banks: usize = runnable(registry())
        .iter()
        .map(|k| k.kernel())
        .filter(|k| k.name.fixed.k.is_none())
        .map(|k| k.bounds.len() - usize::from(k.layout == trilut_kernels::Layout::Tl2))
        .sum();
    assert_eq!(shown, banks);
}

#[test]
fn each_kernel_states_bounds_that_hold() {
    for kernel in registry() {
        for bound in kernel.bounds {
            assert!(bound.magnitude * bound.adds <= 32768, "{}: {bound:?}", kernel.text);
        }
    }
}
