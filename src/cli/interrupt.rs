//! Signals. Ctrl-C: the first asks the command to stop and keep what is finished, the second ends at once.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Lets a closed pipe (`trilut inspect | head`) end the program quietly, as it ends others; Rust ignores
/// the signal and would panic on the next line printed.
#[cfg(unix)]
fn end_on_closed_pipe() {
    // SAFETY: restores the default action of a signal before any thread is started.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Begins to listen. Where the system offers no such signal, Ctrl-C ends the program as usual.
pub(crate) fn install() {
    #[cfg(unix)]
    end_on_closed_pipe();
    let _ = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
}

/// Whether the user has asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Whether the user has asked to stop, which is then done with: for programs that go on.
pub(crate) fn taken() -> bool {
    ASKED.swap(false, Ordering::Relaxed)
}
