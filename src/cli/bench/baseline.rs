//! Another engine as it is compared: its program, its model file, its arguments; and one turn of it.

use super::super::failure::Failure;
use super::child;
use super::engine::{self, Engine};
use super::meter::Meter;
use super::spelling::{self, Reported};
use super::test::Test;
use super::turn::Turn;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names that perplexity programs go by, next to the bench program; the second one is that of older
/// builds.
const PERPLEXITY: [&str; 2] = ["llama-perplexity", "perplexity"];

/// The path of a program. A bare name is a file that is here before it is one of the `PATH`.
pub(super) fn program(path: impl Into<PathBuf>) -> PathBuf {
    let path = path.into();
    if path.parent() == Some(Path::new("")) && path.is_file() {
        return Path::new(".").join(path);
    }
    path
}

/// Another engine.
#[derive(Debug, Clone)]
pub(super) struct Baseline {
    /// Its bench program.
    pub(super) program: PathBuf,
    /// Its perplexity program, if the user named one.
    pub(super) perplexity: Option<PathBuf>,
    /// The model file that it runs.
    pub(super) model: PathBuf,
    pub(super) bench_args: Vec<String>,
    pub(super) perplexity_args: Vec<String>,
    /// Its description, if the user named it.
    pub(super) engine: Option<Engine>,
    pub(super) timeout: Duration,
}

impl Baseline {
    /// Splits `[NAME=]PATH`; a name must be that of a described engine.
    pub(super) fn named(text: &str) -> Result<(Option<Engine>, PathBuf), Failure> {
        let Some((name, path)) = text.split_once('=').filter(|_| !Path::new(text).exists()) else {
            return Ok((None, program(text)));
        };
        match engine::find(name) {
            Some(engine) => Ok((Some(engine), program(path))),
            None => {
                let known: Vec<String> =
                    engine::all().into_iter().map(|engine| engine.name).collect();
                Err(Failure::usage(format!("no engine is called `{name}`"))
                    .hint(format!("these are: {}; or give the path alone", known.join(", "))))
            }
        }
    }

    /// What to call it.
    pub(super) fn name(&self) -> String {
        match &self.engine {
            Some(engine) => engine.name.clone(),
            None => {
                let name = self.program.file_name().unwrap_or(self.program.as_os_str());
                name.to_string_lossy().into_owned()
            }
        }
    }

    /// The perplexity program: the one that was named, else one next to the bench program.
    pub(super) fn perplexity_program(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.perplexity {
            return Ok(path.clone());
        }
        let beside = PERPLEXITY.map(|name| self.program.with_file_name(name));
        beside.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            Failure::new(format!(
                "there is no {} next to {}",
                PERPLEXITY[0],
                self.program.display()
            ))
            .hint("name it with --baseline-perplexity PATH, or leave --agree out")
        })
    }

    /// The arguments of one turn.
    fn args(&self, test: Test, threads: usize) -> Vec<String> {
        let (n_prompt, n_gen) = test.lengths();
        let (p, n, t) = (n_prompt.to_string(), n_gen.to_string(), threads.to_string());
        let model = self.model.to_string_lossy().into_owned();
        let own = ["-m", &model, "-p", &p, "-n", &n, "-t", &t, "-r", "1", "-o", "json"];
        // Some engines of the family do not know depths.
        let depth = Some(test.depth()).filter(|depth| *depth > 0);
        let depth = depth.into_iter().flat_map(|depth| ["-d".to_owned(), depth.to_string()]);
        let own = own.iter().map(|&word| word.to_owned()).chain(depth);
        own.chain(self.bench_args.iter().cloned()).collect()
    }

    /// Runs a test once, in a process of its own.
    pub(super) fn turn(
        &self,
        test: Test,
        threads: usize,
        meter: &Meter,
    ) -> Result<(Turn, Reported), Failure> {
        let args = self.args(test, threads);
        let finished = child::run(&self.program, &args, self.timeout, meter)?;
        let reported = spelling::result(&finished.stdout, test, threads).map_err(|why| {
            Failure::new(format!("{} gave no usable result", self.program.display()))
                .because(why)
                .hint(format!("try it by hand: {}", child::by_hand(&self.program, &args)))
        })?;
        // The result is printed when the test is done, so the test is what happened before.
        let window = finished
            .result_at
            .and_then(|end| Some((end.checked_sub(Duration::from_nanos(reported.ns))?, end)));
        let cost = window.map(|(from, to)| finished.timeline.cost(meter, from, to));
        Ok((Turn::new(reported.ns, cost, finished.memory), reported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_may_have_names() {
        let (engine, path) = Baseline::named("ik_llama.cpp=/x/llama-bench").unwrap();
        assert_eq!(engine.unwrap().name, "ik_llama.cpp");
        assert_eq!(path, Path::new("/x/llama-bench"));
        assert_eq!(Baseline::named("/x/llama-bench").unwrap(), (None, "/x/llama-bench".into()));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a=b");
        std::fs::write(&file, "").unwrap();
        assert_eq!(Baseline::named(file.to_str().unwrap()).unwrap(), (None, file));
        assert!(Baseline::named("nobody=/x").is_err());
    }
}
