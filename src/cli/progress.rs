//! What a person sees of work in progress, on a terminal only: of a tuning run a bar with the time left and
//! the best so far, of other work a line.

use super::interrupt;
use crate::cli::output::say;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use trilut_tuning::{Event, Observer};

/// A line on stderr that disappears with its value; hidden when stderr is not a terminal.
pub(crate) fn line() -> ProgressBar {
    ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear)
}

/// Draws a tuning run on stderr.
pub(crate) struct Bar {
    bar: ProgressBar,
    shape: String,
}

impl Bar {
    /// A bar that appears with the first event; hidden when stderr is not a terminal.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new(1000);
        let template = "{spinner} [{bar:24}] {percent:>3}%  left {eta:>4}  {wide_msg}";
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        bar.set_style(style.progress_chars("=> "));
        Self { bar, shape: String::new() }
    }
}

impl Observer for Bar {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Shape { layer, .. } => {
                self.shape = layer.to_string();
                self.bar.set_message(self.shape.clone());
            }
            Event::Best { candidate, ns } => {
                let shape = &self.shape;
                self.bar.set_message(format!("{shape}  best {:.1} us {candidate}", ns / 1e3));
            }
            Event::Progress(part) => self.bar.set_position((part * 1000.0) as u64),
            Event::Refused(refused) => {
                self.bar.suspend(|| say!("refused {}: {}", refused.kernel, refused.reason));
            }
            Event::Begin { .. }
            | Event::Note(_)
            | Event::Dropped { .. }
            | Event::Trial { .. }
            | Event::Done(_) => {}
        }
    }

    fn should_stop(&mut self) -> bool {
        interrupt::asked()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
