//! Stop texts in an answer that arrives in pieces.

/// Looks for stop texts and holds back what may be the beginning of one.
#[derive(Debug, Default)]
pub(crate) struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    /// A filter; empty texts are left out.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new() }
    }

    /// Takes the next piece. Returns what can be said now, and whether a stop text came right after it.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (piece.to_owned(), false);
        }
        self.held.push_str(piece);
        if let Some(place) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(place);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let keep = self.held.char_indices().map(|(at, _)| at).find(|at| begins(&self.held[*at..]));
        let rest = self.held.split_off(keep.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, when nothing more comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::StopFilter;

    fn filter(stops: &[&str]) -> StopFilter {
        StopFilter::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
    }

    /// All that is said of a text in pieces, and whether it was stopped.
    fn said(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = filter(stops);
        let mut said = String::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            said += &text;
            if stopped {
                return (said, true);
            }
        }
        (said + &filter.finish(), false)
    }

    #[test]
    fn a_stop_text_may_lie_across_pieces() {
        assert_eq!(said(&["END"], &["one E", "N", "D two"]), ("one ".into(), true));
        assert_eq!(said(&["END"], &["one E", "N", "d two"]), ("one ENd two".into(), false));
        assert_eq!(said(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
        assert_eq!(said(&["é!"], &["caf", "é", "!"]), ("caf".into(), true));
        assert_eq!(said(&["\n\n"], &["x\n", "y\n", "\n"]), ("x\ny".into(), true));
    }

    #[test]
    fn the_earliest_of_several_counts() {
        assert_eq!(said(&["two", "one"], &["zero one two"]), ("zero ".into(), true));
        assert_eq!(said(&["b", "abc"], &["xabc"]), ("x".into(), true));
    }

    #[test]
    fn nothing_else_is_held_back() {
        let mut filter = filter(&["stop"]);
        assert_eq!(filter.push("no reason"), ("no reason".into(), false));
        assert_eq!(filter.push(" to s"), (" to ".into(), false));
        assert_eq!(filter.push("ay"), ("say".into(), false));
        assert_eq!(said(&["", "x"], &["a"]), ("a".into(), false));
        assert_eq!(said(&["abc"], &["ab"]), ("ab".into(), false));
    }
}
