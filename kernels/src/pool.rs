//! The thread pool of the token loop: one parallel region per token, barriers between its operations.
//!
//! A decoded token is some two hundred short operations; waking threads for each costs more than the
//! work. [`Pool::run`] wakes them once, and inside the region [`Worker::barrier`] separates the
//! operations. Waiting spins for a few tens of microseconds and then sleeps, so that a core taken away
//! by the host or by another process stalls nobody for ever and an idle pool costs nothing.
//!
//! Work is divided by position, never by timing ([`Worker::share`], [`Worker::tasks`]); on machines whose
//! cores differ, in proportion to their speed, and each thread is kept on its own core. Threads of one memory
//! node have neighbouring parts.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trilut_presets::machine::Cores;
use trilut_presets::machine::cores::Seat;

/// How long a waiting thread spins before it sleeps.
const SPIN: Duration = Duration::from_micros(40);

/// The cores of this process, looked up once: files are read for it.
fn cores() -> &'static Cores {
    static CORES: OnceLock<Cores> = OnceLock::new();
    CORES.get_or_init(Cores::detect)
}

/// The number of threads used where nobody says otherwise: one for each fast physical core that this
/// process may use, within the quota of its container. Sibling threads of a core share the units that
/// kernels keep busy, and slow cores would hold up the others at every barrier.
pub fn default_threads() -> usize {
    cores().threads().unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

/// A value with a cache line (and its prefetched neighbour) to itself.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CachePadded<T>(T);

/// What waiting threads look at: a counter that they spin on and a place to sleep.
#[derive(Debug, Default)]
struct Gate {
    count: CachePadded<AtomicUsize>,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Gate {
    fn count(&self) -> usize {
        self.count.0.load(Ordering::Acquire)
    }

    /// Counts one up and wakes whoever sleeps.
    fn advance(&self) {
        // Sequentially consistent against `sleepers`: either we see the sleeper, or it sees the count.
        self.count.0.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(locked(&self.lock));
            self.wake.notify_all();
        }
    }

    /// Waits until the count differs from `old`.
    fn wait_past(&self, old: usize, spin: Duration) {
        let mut began = None;
        loop {
            for _ in 0..64 {
                if self.count() != old {
                    return;
                }
                std::hint::spin_loop();
            }
            if began.get_or_insert_with(Instant::now).elapsed() >= spin {
                break;
            }
        }
        let mut guard = locked(&self.lock);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.count.0.load(Ordering::SeqCst) == old {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// No code that can panic runs under these locks, so a poisoned one is still consistent.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A region's closure, its lifetime erased: valid until every worker has left the region.
type Job = *const (dyn Fn(&Worker) + Sync);

struct Shared {
    threads: usize,
    /// Whether its threads are near to different memory.
    spans_nodes: bool,
    /// Where the share of each worker begins, and after the last the sum of all.
    cuts: Vec<usize>,
    spin: Duration,
    /// Counts regions; a change starts one.
    start: Gate,
    /// The closure of the current region; `None` tells the threads to leave.
    job: UnsafeCell<Option<Job>>,
    /// Counts barriers passed; a change lets the waiters go on.
    passed: Gate,
    arrived: CachePadded<AtomicUsize>,
    /// Counts regions completed by all spawned threads.
    done: Gate,
    running: CachePadded<AtomicUsize>,
    /// A worker of the current region panicked: barriers release by unwinding.
    broken: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written by the caller of `run` only while no worker is in a region (it holds
// `Pool::region`, and `done` was reached), and is read by workers only after `start` was published.
// The closure it points to is `Sync`, and `run` outlives every use of it.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer has no affinity to a thread.
unsafe impl Send for Shared {}

/// The payload that unwinds a worker out of a barrier after another one panicked.
struct Released;

impl Shared {
    fn barrier(&self) {
        if self.threads == 1 {
            return;
        }
        let passed = self.passed.count();
        // A panic sets `broken` and then advances: having read the advanced count we see it here,
        // having read the old one we are let go by the advance.
        self.leave_if_broken();
        // AcqRel: the last one to arrive has seen what all others wrote, and hands it on by `advance`.
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.0.store(0, Ordering::Relaxed);
            self.passed.advance();
        } else {
            self.passed.wait_past(passed, self.spin);
        }
        self.leave_if_broken();
    }

    fn leave_if_broken(&self) {
        if self.broken.load(Ordering::Acquire) {
            resume_unwind(Box::new(Released));
        }
    }

    /// Runs the region's closure as one worker; a panic is kept for the caller and frees the others.
    fn work(&self, index: usize, job: &(dyn Fn(&Worker) + Sync)) {
        let worker = Worker { index, threads: self.threads, shared: self };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(&worker))) {
            if !payload.is::<Released>() {
                let mut first = locked(&self.panic);
                if first.is_none() {
                    *first = Some(payload);
                } else {
                    // Leaked: dropping it runs foreign code, whose own panic would end the worker here.
                    std::mem::forget(payload);
                }
            }
            if !self.broken.swap(true, Ordering::AcqRel) {
                self.passed.advance();
            }
        }
    }
}

/// A fixed set of threads that enter parallel regions together.
pub struct Pool {
    shared: Arc<Shared>,
    /// Held by the caller for the length of a region.
    region: Mutex<()>,
    handles: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

thread_local! {
    /// Whether this thread is inside a region, where another one must not begin.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// A pool of `threads` threads (at least 1), the caller of [`Pool::run`] being one of them.
    ///
    /// # Panics
    /// When the operating system refuses a thread.
    pub fn new(threads: usize) -> Self {
        Self::seated(&cores().seats(threads.max(1)))
    }

    /// A pool with a thread for each seat, the caller's thread taking the first. It stays where the
    /// operating system has it; the others are kept on the CPUs of their seats.
    ///
    /// # Panics
    /// When there is no seat, and as [`Pool::new`].
    pub fn seated(seats: &[Seat]) -> Self {
        assert!(!seats.is_empty(), "somebody must do the work");
        let threads = seats.len();
        let mut cuts = vec![0];
        cuts.extend(seats.iter().scan(0, |sum, seat| {
            *sum += seat.weight.max(1) as usize;
            Some(*sum)
        }));
        // With more threads than cores somebody's core is needed by somebody else: do not spin.
        let spin = if threads <= default_threads() { SPIN } else { Duration::ZERO };
        let shared = Arc::new(Shared {
            threads,
            spans_nodes: seats.iter().any(|seat| seat.node != seats[0].node),
            cuts,
            spin,
            start: Gate::default(),
            job: UnsafeCell::new(None),
            passed: Gate::default(),
            arrived: CachePadded::default(),
            done: Gate::default(),
            running: CachePadded::default(),
            broken: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let spawn = |index: usize| {
            let (shared, cpus) = (Arc::clone(&shared), seats[index].cpus.clone());
            std::thread::Builder::new()
                .name(format!("trilut-{index}"))
                .spawn(move || {
                    crate::affinity::bind(&cpus);
                    serve(&shared, index);
                })
                .expect("the operating system starts a thread")
        };
        let handles = (1..threads).map(spawn).collect();
        Self { shared, region: Mutex::new(()), handles }
    }

    /// The number of workers in a region.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Whether its threads are near to different memory nodes, so that it matters who touches a page first.
    pub fn spans_nodes(&self) -> bool {
        self.shared.spans_nodes
    }

    /// Runs `work` on every thread at once and returns when all have finished; the calling thread is
    /// worker 0. Regions of one pool run one after another.
    ///
    /// # Panics
    /// When a worker panics (with its payload, after all workers have left the region), or when called
    /// from inside a region.
    pub fn run(&self, work: impl Fn(&Worker) + Sync) {
        assert!(!INSIDE.get(), "a parallel region must not be started inside another one");
        let _region = locked(&self.region);
        let shared = &*self.shared;
        let job: &(dyn Fn(&Worker) + Sync) = &work;
        if shared.threads > 1 {
            // SAFETY: this only erases the lifetime; `run` does not return or unwind before every
            // worker has left the region, so the closure outlives all uses.
            let job = unsafe {
                std::mem::transmute::<*const (dyn Fn(&Worker) + Sync + '_), Job>(job as *const _)
            };
            // SAFETY: no worker is in a region (we hold `region` and the last one is done).
            unsafe { *shared.job.get() = Some(job) };
            shared.running.0.store(shared.threads - 1, Ordering::Relaxed);
            shared.start.advance();
        }
        INSIDE.set(true);
        shared.work(0, job);
        // A loop, because the last region's final advance may come late and is not ours.
        loop {
            let done = shared.done.count();
            if shared.running.0.load(Ordering::Acquire) == 0 {
                break;
            }
            shared.done.wait_past(done, shared.spin);
        }
        INSIDE.set(false);
        if shared.broken.load(Ordering::Acquire) {
            shared.broken.store(false, Ordering::Relaxed);
            shared.arrived.0.store(0, Ordering::Relaxed);
            let payload = locked(&shared.panic).take().expect("the first panic was kept");
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: no region is running.
        unsafe { *self.shared.job.get() = None };
        self.shared.start.advance();
        for handle in self.handles.drain(..) {
            // A worker's panics are caught inside its regions: the thread itself ends normally.
            let _ = handle.join();
        }
    }
}

/// A spawned thread: waits for regions and runs them, until the pool goes.
fn serve(shared: &Shared, index: usize) {
    INSIDE.set(true);
    let mut seen = 0usize;
    loop {
        shared.start.wait_past(seen, shared.spin);
        seen = seen.wrapping_add(1);
        // SAFETY: `start` was published after `job` was written, which stays until we are done.
        let Some(job) = (unsafe { *shared.job.get() }) else { return };
        // SAFETY: the caller of `run` keeps the closure until all workers are done.
        shared.work(index, unsafe { &*job });
        if shared.running.0.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.done.advance();
        }
    }
}

/// One thread's view of a parallel region.
pub struct Worker<'a> {
    /// This worker's number, from 0 (the caller of [`Pool::run`]).
    pub index: usize,
    /// The number of workers in the region.
    pub threads: usize,
    shared: &'a Shared,
}

impl Worker<'_> {
    /// Waits until every worker of the region has called this as often; what they wrote before is
    /// visible afterwards.
    ///
    /// # Panics
    /// When another worker panicked, to leave the region (silently).
    pub fn barrier(&self) {
        self.shared.barrier();
    }

    /// This worker's part of `0..n`: contiguous, beginning at a multiple of `quantum`, to within one of
    /// them in proportion to the speed of its core. Depends on the worker's number alone.
    pub fn share(&self, n: usize, quantum: usize) -> Range<usize> {
        let cuts = &self.shared.cuts;
        let (units, all) = (n.div_ceil(quantum), cuts[self.threads]);
        let cut = |i: usize| (units * cuts[i] / all * quantum).min(n);
        cut(self.index)..cut(self.index + 1)
    }

    /// This worker's parts of `0..n` when it is dealt out in pieces of `size` in turn; with a size of
    /// 0 the one part of [`Worker::share`] at multiples of `quantum`.
    pub fn tasks(
        &self,
        n: usize,
        size: usize,
        quantum: usize,
    ) -> impl Iterator<Item = Range<usize>> {
        let (first, size, step) = match size {
            0 => (self.share(n, quantum), n.max(1), n.max(1)),
            size => {
                // One task holds everything at most, and no product may wrap around: two workers
                // would be given the same rows.
                let size = size.min(n.next_multiple_of(quantum).max(quantum));
                let start = self.index.saturating_mul(size).min(n);
                (start..n.min(start.saturating_add(size)), size, size.saturating_mul(self.threads))
            }
        };
        let rest = (first.start.saturating_add(step)..n).step_by(step);
        let rest = rest.map(move |start| start..n.min(start.saturating_add(size)));
        std::iter::once(first).chain(rest).filter(|range| !range.is_empty())
    }
}

/// Part `index` of `0..n` cut into `parts` even pieces at multiples of `quantum`: the share of a worker
/// among workers on cores that are alike.
pub fn share(n: usize, quantum: usize, index: usize, parts: usize) -> Range<usize> {
    let units = n.div_ceil(quantum);
    let cut = |i: usize| (units * i / parts * quantum).min(n);
    cut(index)..cut(index + 1)
}

/// A slice whose parts are written by different workers of a region.
///
/// The borrow checker cannot see which worker writes which part between two barriers; this type keeps
/// the slice borrowed and its bounds checked, and leaves that one promise to the caller.
pub struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: the parts that different threads get are disjoint or only read, by the contract of `get`
// and `get_mut`.
unsafe impl<T: Send + Sync> Sync for Parts<'_, T> {}
// SAFETY: it is a unique borrow of a slice.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Takes the slice for the length of a region.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: std::marker::PhantomData }
    }

    /// Another name for a part, for memory that is put to several uses in turn. The contracts of `get`
    /// and `get_mut` are about what is done under any of its names.
    ///
    /// # Panics
    /// When the range is outside the slice.
    pub fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice, by the check.
        let start = unsafe { self.start.add(range.start) };
        Self { start, len: range.len(), slice: std::marker::PhantomData }
    }

    /// A part to read.
    ///
    /// # Safety
    /// Nobody may write to any of it while the result is used.
    ///
    /// # Panics
    /// When the range is outside the slice.
    pub unsafe fn get(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice, by the check; not written to, by the contract.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// A part to write.
    ///
    /// # Safety
    /// Nobody else may read or write any of it while the result is used.
    ///
    /// # Panics
    /// When the range is outside the slice.
    #[expect(clippy::mut_from_ref, reason = "disjoint parts of one slice, by the contract")]
    pub unsafe fn get_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice, by the check; used by nobody else, by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_quick_regions_with_barriers() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            let mut counts = vec![0usize; threads];
            for _ in 0..500 {
                let parts = Parts::new(&mut counts);
                pool.run(|worker| {
                    for step in 0..4 {
                        let at = (worker.index + step) % threads;
                        // SAFETY: each worker writes one element, a different one in each step, and a
                        // barrier separates the steps.
                        unsafe { parts.get_mut(at..at + 1)[0] += 1 };
                        worker.barrier();
                    }
                });
            }
            assert_eq!(counts, vec![2000; threads]);
        }
    }

    #[test]
    fn barriers_hand_over_what_was_written() {
        let pool = Pool::new(3);
        let mut values = vec![0usize; 3];
        let parts = Parts::new(&mut values);
        pool.run(|worker| {
            for step in 1..=1000 {
                // SAFETY: each worker writes its own element between two barriers.
                unsafe { parts.get_mut(worker.index..worker.index + 1)[0] = step * worker.index };
                worker.barrier();
                // SAFETY: nobody writes between these two barriers.
                assert_eq!(unsafe { parts.get(0..3) }, [0, step, 2 * step]);
                worker.barrier();
            }
        });
    }

    #[test]
    fn a_slow_worker_is_waited_for() {
        let pool = Pool::new(2);
        let arrived = AtomicUsize::new(0);
        pool.run(|worker| {
            if worker.index == 1 {
                std::thread::sleep(SPIN * 100);
            }
            arrived.fetch_add(1, Ordering::SeqCst);
            worker.barrier();
            assert_eq!(arrived.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn shares_cover_everything_once() {
        for threads in 1..6 {
            for n in [0, 1, 5, 31, 32, 33, 64, 100, 640] {
                for quantum in [1, 32] {
                    for size in [0, 32, 64, 1000, 1 << 62, usize::MAX & !31] {
                        let mut taken = vec![0; n];
                        let seat = Seat { cpus: vec![], weight: 1, node: 0 };
                        let shared = Pool::seated(&vec![seat; threads]).shared.clone();
                        for index in 0..threads {
                            let worker = Worker { index, threads, shared: &shared };
                            assert!(
                                worker.share(n, quantum).start.is_multiple_of(quantum)
                                    || n == worker.share(n, quantum).start
                            );
                            for range in worker.tasks(n, size, quantum) {
                                taken[range].iter_mut().for_each(|t| *t += 1);
                            }
                        }
                        assert!(taken.iter().all(|t| *t == 1), "{n} {quantum} {size} {threads}");
                    }
                }
            }
        }
    }

    #[test]
    fn shares_follow_the_speed_of_the_cores() {
        let seat = |weight| Seat { cpus: vec![], weight, node: 0 };
        let pool = Pool::seated(&[seat(1024), seat(1024), seat(512)]);
        let shares = Mutex::new(vec![0..0; 3]);
        pool.run(|worker| locked(&shares)[worker.index] = worker.share(1000, 32));
        assert_eq!(*locked(&shares), [0..384, 384..800, 800..1000]);
        for n in [0, 1, 31, 33, 640, 12_345] {
            pool.run(|worker| locked(&shares)[worker.index] = worker.share(n, 32));
            let shares = locked(&shares);
            assert_eq!((shares[0].start, shares[2].end), (0, n));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
        // A CPU that does not exist is no reason to fail.
        let far = Seat { cpus: vec![9999], weight: 1, node: 0 };
        Pool::seated(&[far.clone(), far]).run(|worker| worker.barrier());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            for guilty in 0..threads {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    pool.run(|worker| {
                        worker.barrier();
                        assert_ne!(worker.index, guilty, "guilty");
                        worker.barrier();
                        worker.barrier();
                    });
                }));
                let payload = outcome.unwrap_err();
                assert!(payload.downcast_ref::<String>().unwrap().contains("guilty"));
                let ran = AtomicUsize::new(0);
                pool.run(|worker| {
                    worker.barrier();
                    ran.fetch_add(1, Ordering::SeqCst);
                });
                assert_eq!(ran.load(Ordering::SeqCst), threads);
            }
        }
    }

    #[test]
    fn callers_take_turns_and_nesting_is_refused() {
        let pool = Pool::new(2);
        let busy = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(|worker| {
                            assert!(busy.fetch_add(1, Ordering::SeqCst) < 2);
                            worker.barrier();
                            worker.barrier();
                            busy.fetch_sub(1, Ordering::SeqCst);
                            worker.barrier();
                        });
                    }
                });
            }
        });
        let nested = catch_unwind(AssertUnwindSafe(|| pool.run(|_| pool.run(|_| {}))));
        assert!(nested.is_err());
    }
}
