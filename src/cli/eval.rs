//! `trilut eval`: multiple choice, answered by the likelihood of each choice.

use super::failure::Failure;
use super::interrupt;
use super::model::Source;
use super::output::{count, outln};
use super::progress;
use super::run::{Engine, read_text};
use std::path::PathBuf;
use trilut_runtime::likelihood::{Likelihood, likelihoods};

/// Answer multiple-choice questions by likelihood, and count the right answers.
///
/// Each line of the file is a question: the text, the number of the right choice (from 0), and the
/// choices, separated by tabs. `\n` and `\t` in them stand for a line end and a tab, `\\` for a backslash.
/// Empty lines and lines that begin with # are left out. A space is put between text and choice unless the
/// text ends with white space or the choice begins with it.
///
/// Printed are the share of questions whose right choice has the highest probability (acc), and the share
/// where its probability per byte is the highest (acc_norm), which does not favour short choices.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model file; the embedded model without it.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// File of questions; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    tsv: PathBuf,
    /// Print one JSON object per question, and one for the whole.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: Engine,
}

/// A line of the file.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    text: String,
    right: usize,
    choices: Vec<String>,
}

impl Question {
    fn parse(line: &str) -> Result<Self, String> {
        let mut fields = line.split('\t').map(unescape);
        let text = fields.next().unwrap_or_default();
        let right = fields.next().ok_or("it has no number of the right choice")?;
        let right: usize =
            right.trim().parse().map_err(|_| format!("`{right}` is no number of a choice"))?;
        let choices: Vec<String> = fields.collect();
        if choices.len() < 2 {
            return Err(format!(
                "it has {}, at least 2 are needed",
                count(choices.len(), "choice")
            ));
        }
        if choices.iter().any(String::is_empty) {
            return Err("it has an empty choice".to_owned());
        }
        if right >= choices.len() {
            let choices = count(choices.len(), "choice");
            return Err(format!("choice {right} is right, but it has {choices}, counted from 0"));
        }
        let apart = |choice: String| {
            let joined = text.is_empty()
                || text.ends_with(char::is_whitespace)
                || choice.starts_with(char::is_whitespace);
            if joined { choice } else { format!(" {choice}") }
        };
        let choices = choices.into_iter().map(apart).collect();
        Ok(Self { text, right, choices })
    }
}

fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut chars = field.chars();
    while let Some(char) = chars.next() {
        match (char, chars.as_str().chars().next()) {
            ('\\', Some('n')) => text.push('\n'),
            ('\\', Some('t')) => text.push('\t'),
            ('\\', Some('\\')) => text.push('\\'),
            _ => {
                text.push(char);
                continue;
            }
        }
        chars.next();
    }
    text
}

fn parse(text: &str) -> Result<Vec<Question>, Failure> {
    let mut questions = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        questions.push(Question::parse(line).map_err(|why| {
            Failure::new(format!("line {number} is no question"))
                .because(why)
                .hint("a question is: text TAB number of the right choice, from 0 TAB choice TAB choice ..")
        })?);
    }
    if questions.is_empty() {
        return Err(Failure::new("the file has no questions"));
    }
    Ok(questions)
}

/// The choice with the highest value; of equal ones the first.
fn best(scores: &[Likelihood], value: impl Fn(&Likelihood) -> f64) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if value(score) > value(&scores[best]) {
            best = index;
        }
    }
    best
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let questions = parse(&read_text(&args.tsv)?)?;
    let model = args.engine.load(&Source::new(args.model).open()?)?;
    let mut state = model.state(1)?;
    let (mut by_sum, mut by_byte) = (0, 0);
    let line = progress::line();
    for (number, question) in questions.iter().enumerate() {
        if interrupt::asked() {
            return Err(Failure::interrupted());
        }
        line.set_message(format!("question {} of {}", number + 1, questions.len()));
        line.tick();
        let scores = likelihoods(&model, &mut state, &question.text, &question.choices)
            .map_err(|error| Failure::from(error).context(format!("question {}", number + 1)))?;
        let sum = best(&scores, |score| score.log);
        let byte = best(&scores, Likelihood::per_byte);
        by_sum += usize::from(sum == question.right);
        by_byte += usize::from(byte == question.right);
        if args.json {
            let logs: Vec<f64> = scores.iter().map(|score| score.log).collect();
            let json = serde_json::json!({
                "question": number, "right": question.right, "chosen": sum,
                "chosen_per_byte": byte, "log_likelihoods": logs,
            });
            line.suspend(|| -> Result<(), Failure> {
                outln!("{json}");
                Ok(())
            })?;
        }
    }
    line.finish_and_clear();
    let n = questions.len();
    let share = |right: usize| right as f64 / n as f64;
    // Of a share of independent answers.
    let error = |right: usize| (share(right) * (1.0 - share(right)) / (n.max(2) - 1) as f64).sqrt();
    if args.json {
        let json = serde_json::json!({
            "questions": n, "acc": share(by_sum), "acc_error": error(by_sum),
            "acc_norm": share(by_byte), "acc_norm_error": error(by_byte),
        });
        outln!("{json}");
        return Ok(());
    }
    for (name, right) in [("acc", by_sum), ("acc_norm", by_byte)] {
        let (share, error) = (share(right), error(right));
        outln!("{name:8} {share:.4} +/- {error:.4}  ({right} of {n})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_by_field() {
        let question = Question::parse("2 + 2 =\t1\tthree\tfour\\nor so").unwrap();
        assert_eq!(question.choices, [" three", " four\nor so"]);
        assert_eq!((question.text.as_str(), question.right), ("2 + 2 =", 1));
        assert_eq!(Question::parse("a \t0\tb\t c").unwrap().choices, ["b", " c"]);
        assert_eq!(unescape(r"a\\n\q\"), r"a\n\q\");
    }

    #[test]
    fn lines_that_are_no_questions_are_explained() {
        for (line, word) in [
            ("just text", "no number"),
            ("text\tx\ta\tb", "`x` is no number"),
            ("text\t-1\ta\tb", "`-1` is no number"),
            ("text\t0\ta", "1 choice,"),
            ("text\t2\ta\tb", "counted from 0"),
            ("text\t0\ta\t", "empty choice"),
        ] {
            let error = Question::parse(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
        assert_eq!(parse("# note\n\na\t0\tb\tc\r\n").ok().map(|q| q.len()), Some(1));
        assert!(parse("# nothing\n").is_err());
    }
}
