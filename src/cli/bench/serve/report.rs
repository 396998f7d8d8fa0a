//! What was measured, for people and for programs, and what a good server would reach.

use super::super::super::output::count;
use super::super::super::table::Table;
use serde::Serialize;
use std::fmt::Write;
use trilut_tuning::median;

/// The total speed of four clients over that of one, at least.
const FOUR_CLIENTS: f64 = 2.0;
/// The first token beside a long prompt over the first token alone, at most.
const FIRST_TOKEN: f64 = 3.0;
/// The part of a second turn's prompt that is in the cache, at least.
const REUSED: f64 = 0.95;
/// What HTTP adds to the time of a token, at most.
const HTTP: f64 = 0.03;

/// Everything that was measured of a server.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: String,
    pub(super) address: String,
    pub(super) model: String,
    pub(super) cpu: String,
    pub(super) threads: u64,
    pub(super) slots: u64,
    pub(super) context: u64,
    pub(super) prompt_tokens: usize,
    pub(super) answer_tokens: usize,
    pub(super) rounds: usize,
    pub(super) clients: Vec<Clients>,
    pub(super) beside: Option<Beside>,
    pub(super) second_turn: Option<SecondTurn>,
}

/// Several clients at once; figures are medians over the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Clients {
    pub(super) clients: usize,
    /// Of all clients together, prompts included.
    pub(super) tokens_per_second: f64,
    pub(super) samples: Vec<f64>,
    pub(super) first_token_ms: f64,
    pub(super) first_token_worst_ms: f64,
    /// What HTTP adds to the engine's time, as a part of it; pairs of rounds.
    pub(super) http_share: Option<f64>,
    pub(super) http_share_samples: Vec<f64>,
}

/// The first token of a short prompt beside a long one.
#[derive(Debug, Serialize)]
pub(super) struct Beside {
    pub(super) prompt_tokens: usize,
    pub(super) long_tokens: usize,
    pub(super) idle_ms: f64,
    pub(super) beside_ms: f64,
    pub(super) beside_worst_ms: f64,
    pub(super) ratio: f64,
    /// How fast the long prompt is read meanwhile.
    pub(super) long_tokens_per_second: f64,
}

/// What a chat's second turn finds in the cache.
#[derive(Debug, Serialize)]
pub(super) struct SecondTurn {
    /// `chat`, or `tokens` for a model without a chat template.
    pub(super) asked_by: &'static str,
    /// Prompt and answer of the first turn.
    pub(super) first_turn_tokens: usize,
    pub(super) prompt_tokens: usize,
    pub(super) reused_tokens: usize,
    pub(super) share: f64,
}

impl Report {
    /// The speed of a number of clients over that of one.
    fn gain(&self, clients: usize) -> Option<f64> {
        let rate = |n| self.clients.iter().find(|c| c.clients == n).map(|c| c.tokens_per_second);
        Some(rate(clients)? / rate(1)?)
    }

    /// What a good server would reach and this one does not.
    pub(super) fn shortcomings(&self) -> Vec<String> {
        let mut short = Vec::new();
        if let Some(gain) = self.gain(4).filter(|gain| *gain < FOUR_CLIENTS) {
            short.push(format!("4 clients have {gain:.2} x the speed of one, not {FOUR_CLIENTS}"));
        }
        if let Some(ratio) = self.beside.as_ref().map(|b| b.ratio).filter(|r| *r > FIRST_TOKEN) {
            short.push(format!(
                "beside a long prompt the first token takes {ratio:.2} x as long, not {FIRST_TOKEN}"
            ));
        }
        if let Some(share) = self.second_turn.as_ref().map(|s| s.share).filter(|s| *s < REUSED) {
            let (share, wanted) = (100.0 * share, 100.0 * REUSED);
            short.push(format!("a second turn re-uses {share:.1} % of its prompt, not {wanted} %"));
        }
        let wanted = 100.0 * HTTP;
        if let Some(share) = self.http_share().filter(|share| *share > HTTP) {
            short.push(format!("HTTP adds {:.1} % to a token, not {wanted} %", 100.0 * share));
        }
        for clients in &self.clients {
            // A few rounds differ by more than that from each other, so that the median says little by itself.
            let least = clients.http_share_samples.iter().copied().reduce(f64::min);
            if let Some(share) = least.filter(|share| *share > HTTP) {
                let (share, who) = (100.0 * share, count(clients.clients, "client"));
                short.push(format!(
                    "with {who} HTTP adds {share:.1} % to a token or more, not {wanted} %"
                ));
            }
        }
        short
    }

    /// What HTTP adds to the time of a token: the median of all pairs of rounds, whatever the clients.
    fn http_share(&self) -> Option<f64> {
        let pairs = self.clients.iter().flat_map(|clients| &clients.http_share_samples);
        let pairs: Vec<f64> = pairs.copied().collect();
        (!pairs.is_empty()).then(|| median(&pairs))
    }

    /// Tables and sentences.
    pub(super) fn markdown(&self) -> String {
        let headings =
            ["clients", "t/s together", "x one", "first token, ms", "worst", "HTTP adds"];
        let mut table = Table::new(&headings, 0);
        for clients in &self.clients {
            let least = clients.samples.iter().copied().fold(f64::INFINITY, f64::min);
            let most = clients.samples.iter().copied().fold(0.0, f64::max);
            table.row([
                clients.clients.to_string(),
                format!("{:.1} ({least:.1}..{most:.1})", clients.tokens_per_second),
                self.gain(clients.clients).map_or("-".to_owned(), |gain| format!("{gain:.2}")),
                format!("{:.0}", clients.first_token_ms),
                format!("{:.0}", clients.first_token_worst_ms),
                clients.http_share.map_or("-".to_owned(), |s| format!("{:+.1} %", 100.0 * s)),
            ]);
        }
        let mut text = table.markdown();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\n{}, {}; {} read and {} written by each client; medians of {}.",
            self.model,
            count(self.threads as usize, "thread"),
            count(self.prompt_tokens, "token"),
            count(self.answer_tokens, "token"),
            count(self.rounds, "round"),
        );
        if let Some(share) = self.http_share() {
            let _ = writeln!(
                text,
                "HTTP adds {:+.1} % to the time of a token: the median of all pairs of rounds with and without it.",
                100.0 * share
            );
        }
        if let Some(beside) = &self.beside {
            let _ = writeln!(
                text,
                "First token of a prompt of {}: {:.0} ms alone, {:.0} ms (worst {:.0}) while a prompt of {} \
                 is read: {:.2} x. That one is read at {:.0} t/s.",
                beside.prompt_tokens,
                beside.idle_ms,
                beside.beside_ms,
                beside.beside_worst_ms,
                beside.long_tokens,
                beside.ratio,
                beside.long_tokens_per_second,
            );
        }
        if let Some(turn) = &self.second_turn {
            let _ = writeln!(
                text,
                "A second turn ({}) finds {} of its {} tokens in the cache: {:.1} %; the first turn had {}.",
                turn.asked_by,
                turn.reused_tokens,
                turn.prompt_tokens,
                100.0 * turn.share,
                turn.first_turn_tokens,
            );
        }
        text
    }
}
