//! A program of another engine, run to its end: what it printed and when, what it used, how it ended.
//!
//! It runs in a process group of its own, so that whatever it starts ends with it when it takes too long
//! or the user interrupts, and it ends with this process.

use super::super::failure::{Failure, printable};
use super::super::interrupt;
use super::meter::{Meter, Timeline, resident_bytes};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How long output may keep coming after the program ended, from something that it left behind.
const LINGER: Duration = Duration::from_secs(2);

/// The most bytes that are kept of each stream; a bench prints a few thousand.
const MOST_OUTPUT: usize = 8 << 20;

/// What a program did.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// When the last closing brace arrived on stdout: results are flushed when the test is done.
    pub(super) result_at: Option<Instant>,
    pub(super) timeline: Timeline,
    /// The most bytes in memory.
    pub(super) memory: Option<u64>,
}

/// Some bytes of a stream, with the moment of their arrival.
type Chunk = (Instant, Vec<u8>);

/// Runs a program until it succeeds.
///
/// # Errors
/// When it is no program or cannot be started, fails, or takes longer than `timeout`, and when the user
/// interrupts.
pub(super) fn run(
    program: &Path,
    args: &[String],
    timeout: Duration,
    meter: &Meter,
) -> Result<Finished, Failure> {
    if is_plain_text(program) {
        return Err(Failure::new(format!("{} is no program", program.display()))
            .because("it is text without a `#!` line")
            .hint("give the path of a llama-bench program"));
    }
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    isolate(&mut command);
    let failed = |what: &str| Failure::new(format!("{} {what}", program.display()));
    let mut child = command.spawn().map_err(|error| cannot_start(program, &error))?;
    let began = Instant::now();
    let stdout = listen(child.stdout.take());
    let stderr = listen(child.stderr.take());
    let (mut timeline, mut memory) = (Timeline::default(), None);
    let name = child.id().to_string();
    let status = loop {
        timeline.push(meter.of(child.id()));
        memory = resident_bytes(&name, "VmHWM").max(memory);
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => {
                end(&mut child);
                return Err(error.into());
            }
        }
        if interrupt::asked() {
            end(&mut child);
            return Err(Failure::interrupted());
        }
        if began.elapsed() >= timeout {
            end(&mut child);
            let limit = humantime::format_duration(timeout);
            return Err(failed(&format!("did not finish within {limit}"))
                .because(reason(&text(&collect(&stderr))))
                .hint("raise --baseline-timeout, or try the command by hand"));
        }
        std::thread::sleep(LOOK);
    };
    let (stdout, stderr) = (collect(&stdout), text(&collect(&stderr)));
    if !status.success() {
        return Err(failed(&ending(status))
            .because(reason(&stderr))
            .hint(format!("try it by hand: {}", by_hand(program, args))));
    }
    let braces = stdout.iter().filter(|(_, bytes)| bytes.contains(&b'}'));
    let result_at = braces.map(|(at, _)| *at).next_back();
    Ok(Finished { stdout: text(&stdout), stderr, result_at, timeline, memory })
}

/// The command as a shell would take it.
pub(super) fn by_hand(program: &Path, args: &[String]) -> String {
    let words = std::iter::once(program.to_string_lossy().into_owned()).chain(args.iter().cloned());
    // Only a zero byte cannot be quoted, which no argument holds.
    let quoted = words.map(|word| shlex::try_quote(&word).map_or(word.clone(), |q| q.into_owned()));
    quoted.collect::<Vec<_>>().join(" ")
}

/// Whether a file is text that names no interpreter: a shell would be made to run it.
fn is_plain_text(program: &Path) -> bool {
    // Others, such as pipes, would be waited for.
    if !program.is_file() {
        return false;
    }
    let mut head = Vec::new();
    let read = File::open(program).and_then(|file| file.take(512).read_to_end(&mut head));
    read.is_ok() && !head.starts_with(b"#!") && !head.contains(&0)
}

fn cannot_start(program: &Path, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "build it, and give the path of its llama-bench program",
        std::io::ErrorKind::PermissionDenied => "make it executable: chmod +x FILE",
        _ => "give the path of a llama-bench program for this system",
    };
    Failure::of(error).context(format!("cannot start {}", program.display())).hint(hint)
}

/// A group of its own, which ends with us.
#[cfg(unix)]
fn isolate(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec the closure makes one system call, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
}

#[cfg(not(unix))]
fn isolate(_: &mut Command) {}

/// Ends a program and what it started.
fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Ok(group) = libc::pid_t::try_from(child.id()) {
        // SAFETY: sends a signal to the group that the child was started in; no wait for it succeeded
        // yet, so the number is still its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    // One that is gone already is as dead as one that was killed.
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads a stream in a thread, so that the program never waits for us.
fn listen(stream: Option<impl Read + Send + 'static>) -> Receiver<Chunk> {
    let (sender, receiver) = channel();
    if let Some(mut stream) = stream {
        std::thread::spawn(move || {
            let (mut buffer, mut kept) = ([0; 8192], 0);
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                // What is beyond the limit is read, so that the program goes on, and dropped.
                let keep = n.min(MOST_OUTPUT - kept);
                kept += keep;
                let chunk = (Instant::now(), buffer[..keep].to_vec());
                if keep > 0 && sender.send(chunk).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// Everything that arrived, up to the end of the stream.
fn collect(stream: &Receiver<Chunk>) -> Vec<Chunk> {
    let (until, mut chunks) = (Instant::now() + LINGER, Vec::new());
    loop {
        match stream.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(chunk) => chunks.push(chunk),
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return chunks,
        }
    }
}

fn text(chunks: &[Chunk]) -> String {
    let bytes: Vec<u8> = chunks.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a program that failed ended.
fn ending(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was ended by signal {signal}");
    }
    status.code().map_or("failed".to_owned(), |code| format!("ended with exit code {code}"))
}

/// The line of stderr that says most: the last one that speaks of an error, else the last one.
fn reason(stderr: &str) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    let speaks = |line: &&str| {
        let line = line.to_lowercase();
        ["error", "assert", "fail", "invalid", "cannot", "undefined", "unknown"]
            .iter()
            .any(|word| line.contains(word))
    };
    let line = lines().find(speaks).or_else(|| lines().next());
    line.map_or("it said nothing on stderr".to_owned(), |line| {
        format!("it said: {}", printable(line).chars().take(300).collect::<String>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_line_is_found() {
        let backtrace =
            "loading\nfile.cpp:588: GGML_ASSERT(k >= 512) failed\n#0 main ()\n[detached]\n";
        assert_eq!(reason(backtrace), "it said: file.cpp:588: GGML_ASSERT(k >= 512) failed");
        assert_eq!(reason("one\ntwo \n\n"), "it said: two");
        assert_eq!(reason(" \n"), "it said nothing on stderr");
        assert_eq!(reason("error: \u{1b}[31m"), "it said: error: \\u{1b}[31m");
    }

    #[test]
    fn commands_can_be_pasted() {
        let args = ["-m".to_owned(), "a b.gguf".to_owned()];
        assert_eq!(by_hand(Path::new("/x/llama-bench"), &args), "/x/llama-bench -m 'a b.gguf'");
    }
}
