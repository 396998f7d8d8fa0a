//! A comparison for a person and for a program: Markdown, CSV, JSON, JSON lines.

use super::super::failure::{Failure, one_line};
use super::super::table::Table;
use super::Output;
use super::comparison::{Against, Comparison, Side};
use crate::cli::output::say;

/// Everything that was compared, except for JSON lines, which are printed as they come.
pub(super) fn whole(output: Output, comparisons: &[Comparison]) -> Result<String, Failure> {
    match output {
        Output::Md => Ok(markdown(comparisons)),
        Output::Csv => Ok(csv(comparisons)),
        Output::Json => serde_json::to_string_pretty(comparisons)
            .map(|text| text + "\n")
            .map_err(|error| Failure::of(&error)),
        Output::Jsonl => Ok(String::new()),
    }
}

/// One comparison as a line.
pub(super) fn line(comparison: &Comparison) -> Result<String, Failure> {
    serde_json::to_string(comparison).map_err(|error| Failure::of(&error))
}

/// What a cost is called, and how it is printed: joules if any engine has them.
struct CostColumn {
    heading: &'static str,
    of: fn(&Side) -> Option<f64>,
}

impl CostColumn {
    fn of(comparisons: &[Comparison]) -> Self {
        let mut sides =
            comparisons.iter().flat_map(|c| c.baselines.iter().map(|b| &b.side).chain([&c.trilut]));
        if sides.any(|side| side.joules_per_token.is_some()) {
            Self { heading: "J/token", of: |side| side.joules_per_token }
        } else {
            Self {
                heading: "CPU ms/token",
                of: |side| side.cpu_seconds_per_token.map(|seconds| seconds * 1e3),
            }
        }
    }
}

fn markdown(comparisons: &[Comparison]) -> String {
    let cost = CostColumn::of(comparisons);
    let ratio = ratio_heading(comparisons);
    let headings = [
        "engine",
        "model",
        "size",
        "memory",
        "threads",
        "test",
        "t/s",
        "min..max",
        cost.heading,
        ratio,
    ];
    let mut table = Table::new(&headings, 2);
    let mut row = |comparison: &Comparison, side: &Side, ratio: String| {
        let build = if side.build.is_empty() { String::new() } else { format!(" {}", side.build) };
        table.row([
            cell(&format!("{}{build}", side.engine)),
            cell(&side.model_type),
            mebibytes(side.file_size.or(side.model_size)),
            mebibytes(side.memory),
            comparison.n_threads.to_string(),
            comparison.test.clone(),
            format!("{:.2}", side.median_ts),
            format!("{:.2}..{:.2}", side.min_ts, side.max_ts),
            (cost.of)(side).map_or("-".to_owned(), |cost| format!("{cost:.3}")),
            ratio,
        ]);
    };
    for comparison in comparisons {
        row(comparison, &comparison.trilut, "-".to_owned());
        for Against { side, ratio, .. } in &comparison.baselines {
            let text = format!("{:.3} ({:.3}..{:.3})", ratio.median, ratio.min, ratio.max);
            row(comparison, side, text);
        }
    }
    table.markdown()
}

/// What is known of the ratios: the weakest of them says.
fn ratio_heading(comparisons: &[Comparison]) -> &'static str {
    let pairs = || comparisons.iter().flat_map(|c| c.baselines.iter().map(move |b| (c, b)));
    let same_model = |(comparison, against): (&Comparison, &Against)| {
        let checked = against.agreement.as_ref();
        checked.is_some_and(|agreement| agreement.model == comparison.trilut.model_filename)
    };
    if pairs().any(|(_, against)| against.agreement.is_none()) {
        "ratio, unchecked (min..max)"
    } else if pairs().all(same_model) {
        "ratio (min..max)"
    } else {
        "ratio, checked on another model (min..max)"
    }
}

/// Text of another program in a cell of a Markdown table.
fn cell(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}

/// What the figures mean, on stderr.
pub(super) fn footer(comparisons: &[Comparison]) {
    let Some(first) = comparisons.first() else { return };
    say!("trilut runs {}", first.trilut.model_filename);
    for Against { side, agreement, .. } in &first.baselines {
        say!("{} runs {}", side.engine, side.model_filename);
        match agreement {
            Some(agreement) => say!("agreed: {agreement}"),
            None => {
                say!("unchecked: nothing says that both compute the same (--agree TEXTFILE)")
            }
        }
    }
    let rounds: Vec<String> = comparisons
        .iter()
        .map(|c| format!("{} with {}: {}", c.test, c.n_threads, c.rounds))
        .collect();
    say!("rounds: {}; medians of the rounds", rounds.join(", "));
    say!("ratio: trilut's speed over the engine's, within a round; above 1 trilut is faster");
    say!("cost: {}", first.cost);
}

/// The columns of the CSV form; a row for each engine.
const COLUMNS: &str = "engine,build,model_filename,model_type,file_size,model_size,memory,n_threads,n_prompt,\
                       n_gen,test,rounds,median_ts,min_ts,max_ts,mad_ts,joules_per_token,cpu_seconds_per_token,\
                       ratio,ratio_min,ratio_max,checked";

fn csv(comparisons: &[Comparison]) -> String {
    let mut text = format!("{COLUMNS}\n");
    let mut row = |comparison: &Comparison, side: &Side, against: Option<&Against>| {
        let whole = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
        let real = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.6}"));
        let ratio = against.map(|against| &against.ratio);
        let cells = [
            quoted(&side.engine),
            quoted(&side.build),
            quoted(&side.model_filename),
            quoted(&side.model_type),
            whole(side.file_size),
            whole(side.model_size),
            whole(side.memory),
            comparison.n_threads.to_string(),
            comparison.n_prompt.to_string(),
            comparison.n_gen.to_string(),
            comparison.test.clone(),
            comparison.rounds.to_string(),
            real(Some(side.median_ts)),
            real(Some(side.min_ts)),
            real(Some(side.max_ts)),
            real(Some(side.mad_ts)),
            real(side.joules_per_token),
            real(side.cpu_seconds_per_token),
            real(ratio.map(|ratio| ratio.median)),
            real(ratio.map(|ratio| ratio.min)),
            real(ratio.map(|ratio| ratio.max)),
            against.map_or(String::new(), |against| against.agreement.is_some().to_string()),
        ];
        text += &cells.join(",");
        text.push('\n');
    };
    for comparison in comparisons {
        row(comparison, &comparison.trilut, None);
        for against in &comparison.baselines {
            row(comparison, &against.side, Some(against));
        }
    }
    text
}

/// A text as a CSV cell.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text).replace('"', "\"\""))
}
