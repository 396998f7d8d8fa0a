//! Keeping a thread on some CPUs.

/// Binds the calling thread to these CPUs; to none means to leave it as it is. A system that cannot or
/// will not do it costs speed at most, so nothing is said.
pub(crate) fn bind(cpus: &[usize]) {
    #[cfg(target_os = "linux")]
    if !cpus.is_empty() {
        // SAFETY: a set of CPUs is plain bits, and all zero is the empty one.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let most = 8 * size_of::<libc::cpu_set_t>();
        for &cpu in cpus.iter().filter(|cpu| **cpu < most) {
            // SAFETY: the number is within the set, by the filter.
            unsafe { libc::CPU_SET(cpu, &mut set) };
        }
        // SAFETY: 0 is the calling thread, and the set lives until the call returns.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cpus;
}
