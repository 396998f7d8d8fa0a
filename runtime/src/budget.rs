//! Memory budgets of single computations, for work that strangers direct.
//!
//! A chat template comes with a model file, is a program, and can ask for any amount of memory in a few
//! steps: by doubling a text, by filters (`replace`, `join`, `format`), by printing nested or repeated
//! lists, by constants that are folded while it is read. Its engine counts steps, which says nothing of
//! that, and has no hook at which every growth passes. What all of them have in common is the allocator,
//! so that is where they are counted.
//!
//! [`BudgetAllocator`] is the system's allocator and adds up what a thread holds, if that thread was given a
//! budget. An allocation cannot fail without ending the process, and must not unwind: a thread that would
//! exceed its budget is stopped inside it for good, and whoever waits for the thread is told. That thread
//! and what it holds are lost, the locks as well: it must share none with others, and callers do not repeat
//! such work.
//!
//! A program has one allocator, which it chooses itself; `trilut` chooses this one. In programs that do not,
//! budgets are not kept.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: trilut_runtime::budget::BudgetAllocator = trilut_runtime::budget::BudgetAllocator;
//! # fn main() {}
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// How often a computation that takes long is looked after.
const GLANCE: Duration = Duration::from_millis(5);

thread_local! {
    /// The bytes that this thread may still take.
    static LEFT: Cell<isize> = const { Cell::new(0) };
    /// Where it says that it wanted more; null without a budget.
    static SPENT: Cell<*const AtomicBool> = const { Cell::new(ptr::null()) };
}

/// The system's allocator, by which threads can be held to a budget.
#[derive(Debug, Clone, Copy, Default)]
pub struct BudgetAllocator;

// SAFETY: every request is passed on to the system's allocator as it is. What is done before neither
// allocates nor unwinds: the thread's own cells are plain numbers that nothing has to set up or drop.
unsafe impl GlobalAlloc for BudgetAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the rules of the same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there for a moment.
        take(size);
        // SAFETY: as above.
        let moved = unsafe { System.realloc(at, layout, size) };
        // Without room, what was there stays.
        give(if moved.is_null() { size } else { layout.size() });
        moved
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Takes bytes from the budget of this thread, if it has one; the thread ends here where they do not suffice.
fn take(bytes: usize) {
    let spent = SPENT.get();
    if spent.is_null() {
        return;
    }
    let left = LEFT.get().saturating_sub_unsigned(bytes);
    LEFT.set(left);
    // A panic is reported with locks held that others wait for.
    if left < 0 && !thread::panicking() {
        // SAFETY: `within` keeps the flag alive until it takes the pointer away.
        unsafe { &*spent }.store(true, Ordering::Release);
        loop {
            thread::sleep(Duration::MAX);
        }
    }
}

/// Gives bytes back.
fn give(bytes: usize) {
    if !SPENT.get().is_null() {
        LEFT.set(LEFT.get().saturating_add_unsigned(bytes));
    }
}

/// Why a computation has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// It wanted more memory than it was allowed.
    #[error("it takes more than {0} bytes of memory")]
    Spent(usize),
    /// There is no thread for it.
    #[error("no thread can be started")]
    Thread(#[from] io::Error),
}

/// Runs a computation in a thread of its own, which may hold so many bytes at once.
///
/// # Errors
/// When it wants more, or no thread can be started.
///
/// # Panics
/// When the computation does.
pub fn within<T: Send + 'static>(
    bytes: usize,
    compute: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BudgetError> {
    let spent = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = sync_channel(1);
    let thread = thread::Builder::new().name("budget".to_owned()).spawn({
        let spent = Arc::clone(&spent);
        move || {
            let budget = Budget::begin(bytes, &spent);
            let result = compute();
            drop(budget);
            // Nobody listens when the caller was ended meanwhile.
            let _ = sender.send(result);
        }
    })?;
    loop {
        match receiver.recv_timeout(GLANCE) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) if spent.load(Ordering::Acquire) => {
                return Err(BudgetError::Spent(bytes));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("a thread that ends has sent its result"),
            },
        }
    }
}

/// The budget of this thread, until it is dropped.
struct Budget<'a> {
    _spent: &'a AtomicBool,
}

impl<'a> Budget<'a> {
    fn begin(bytes: usize, spent: &'a AtomicBool) -> Self {
        LEFT.set(isize::try_from(bytes).unwrap_or(isize::MAX));
        SPENT.set(spent);
        Self { _spent: spent }
    }
}

impl Drop for Budget<'_> {
    fn drop(&mut self) {
        SPENT.set(ptr::null());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: BudgetAllocator = BudgetAllocator;

    #[test]
    fn what_is_held_at_once_is_counted() {
        let sum = || (0..1000).map(|n| vec![1u8; 100_000].len() + n).sum::<usize>();
        assert_eq!(within(1 << 20, sum).unwrap(), 1000 * 100_000 + 999 * 500);
        let hoard = || (0..1000).map(|_| vec![1u8; 100_000]).collect::<Vec<_>>().len();
        assert!(matches!(within(1 << 20, hoard), Err(BudgetError::Spent(n)) if n == 1 << 20));
        let doubling = || {
            let mut text = "a".to_owned();
            (0..60).for_each(|_| text = text.clone() + &text);
            text
        };
        assert!(within(1 << 20, doubling).is_err());
        // What other threads hold is not counted.
        let elsewhere = || std::thread::spawn(|| vec![1u8; 1 << 22].len()).join().unwrap();
        assert_eq!(within(1 << 20, elsewhere).unwrap(), 1 << 22);
    }

    #[test]
    fn a_panic_goes_through() {
        let caught = std::panic::catch_unwind(|| within(1 << 20, || -> u8 { panic!("as asked") }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"as asked"));
    }
}
