//! What the CPUID instruction adds to, or corrects in, what the system's files say.

use super::{Cache, Machine, microarchitecture::vendor_word};
use raw_cpuid::{CacheType, CpuId};

/// Overwrites the CPU's identity; fills in caches only where the system listed none.
pub(super) fn refine(machine: &mut Machine) {
    let cpuid = CpuId::new();
    if let Some(vendor) = cpuid.get_vendor_info() {
        machine.vendor = vendor_word(vendor.as_str());
    }
    if let Some(brand) = cpuid.get_processor_brand_string() {
        machine.brand = brand.as_str().trim().to_owned();
    }
    if let Some(info) = cpuid.get_feature_info() {
        machine.family = info.family_id().into();
        machine.model = info.model_id().into();
        machine.stepping = info.stepping_id().into();
        machine.hypervisor = info.has_hypervisor().then(|| {
            cpuid
                .get_hypervisor_info()
                .map_or("virtual machine".into(), |h| format!("{:?}", h.identify()))
        });
    }
    let features = features(&cpuid);
    if !features.is_empty() {
        machine.features = features;
    }
    if machine.caches.is_empty() {
        machine.caches = caches(&cpuid);
    }
}

fn features(cpuid: &CpuId<raw_cpuid::CpuIdReaderNative>) -> Vec<String> {
    let mut names = Vec::new();
    let mut note = |has: bool, name: &str| {
        if has {
            names.push(name.to_owned());
        }
    };
    if let Some(basic) = cpuid.get_feature_info() {
        note(basic.has_avx(), "avx");
        note(basic.has_f16c(), "f16c");
        note(basic.has_fma(), "fma");
    }
    if let Some(more) = cpuid.get_extended_feature_info() {
        note(more.has_amx_int8(), "amx-int8");
        note(more.has_avx2(), "avx2");
        note(more.has_avx512_bf16(), "avx512bf16");
        note(more.has_avx512vbmi2(), "avx512vbmi2");
        note(more.has_avx512vnni(), "avx512vnni");
        note(more.has_avx512bw(), "avx512bw");
        note(more.has_avx512dq(), "avx512dq");
        note(more.has_avx512f(), "avx512f");
        note(more.has_avx512vbmi(), "avx512vbmi");
        note(more.has_avx512vl(), "avx512vl");
        note(more.has_avx_vnni(), "avxvnni");
        note(more.has_bmi2(), "bmi2");
        note(more.has_gfni(), "gfni");
    }
    names.sort_unstable();
    names
}

fn caches(cpuid: &CpuId<raw_cpuid::CpuIdReaderNative>) -> Vec<Cache> {
    let parameters = cpuid.get_cache_parameters().into_iter().flatten();
    let mut caches: Vec<Cache> = parameters
        .filter(|c| matches!(c.cache_type(), CacheType::Data | CacheType::Unified))
        .map(|c| Cache {
            level: c.level().into(),
            bytes: (c.sets() * c.associativity() * c.coherency_line_size()) as u64,
            shared_by: c.max_cores_for_cache(),
        })
        .collect();
    caches.sort_unstable_by_key(|c| c.level);
    caches
}
