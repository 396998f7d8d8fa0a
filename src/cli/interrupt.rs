//! Signals. Ctrl-C: the first asks the command to stop and keep what is finished, the second ends at once.
//! Commands that write large files stop in the same way when they are told to terminate (`kill`, a system
//! that shuts down); others have nothing to clear away, and that ends them at once.

use std::sync::atomic::{AtomicBool, Ordering};

/// Exit statuses by convention: 128 and the number of the signal.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether it was by a signal to terminate.
static TERMINATING: AtomicBool = AtomicBool::new(false);

/// Lets a closed pipe (`trilut inspect | head`) end the program quietly, as it ends others; Rust ignores
/// the signal and would panic on the next line printed.
#[cfg(unix)]
fn end_on_closed_pipe() {
    // SAFETY: restores the default action of a signal before any thread is started.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Keeps a command alive that writes to connections, which others may close at any time.
pub(crate) fn outlive_closed_pipes() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal runs no code of ours; writes fail with an error instead.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Begins to listen. Where the system offers no such signal, Ctrl-C ends the program as usual.
pub(crate) fn install() {
    #[cfg(unix)]
    end_on_closed_pipe();
    let _ = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    });
}

/// Takes signals to terminate like Ctrl-C, in a command that looks at [`asked`] often and has something to
/// clear away.
pub(crate) fn heed_termination() {
    #[cfg(unix)]
    {
        extern "C" fn terminate(_signal: libc::c_int) {
            if TERMINATING.swap(true, Ordering::Relaxed) {
                // SAFETY: ends the process; one of the few functions that a handler may call.
                unsafe { libc::_exit(TERMINATED.into()) }
            }
            ASKED.store(true, Ordering::Relaxed);
        }
        let handler: extern "C" fn(libc::c_int) = terminate;
        // SAFETY: the handler has the type that the system wants, and does what handlers may do: it changes
        // atomics, which take no lock.
        unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    }
}

/// The exit status of a command that was asked to stop.
pub(crate) fn exit_status() -> u8 {
    if TERMINATING.load(Ordering::Relaxed) { TERMINATED } else { INTERRUPTED }
}

/// Whether the user has asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Whether the user has asked to stop, which is then done with: for programs that go on.
pub(crate) fn taken() -> bool {
    ASKED.swap(false, Ordering::Relaxed)
}
