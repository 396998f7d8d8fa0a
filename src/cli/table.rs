//! Tables for people: aligned columns, or Markdown with the same columns.

use super::failure::one_line;

/// Rows of text under headings.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns from this one on hold numbers and are aligned to the right.
    numbers_from: usize,
}

impl Table {
    /// An empty table whose columns from `numbers_from` on are aligned to the right.
    pub(crate) fn new(headings: &[&str], numbers_from: usize) -> Self {
        let headings = headings.iter().map(|h| (*h).to_owned()).collect();
        Self { headings, rows: Vec::new(), numbers_from }
    }

    /// Adds a row. What a cell says may come from a file: control characters are shown, not obeyed.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| one_line(&cell.into())).collect();
        assert_eq!(cells.len(), self.headings.len(), "one cell per heading");
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(self.headings[column].chars().count())
        };
        (0..self.headings.len()).map(width).collect()
    }

    fn line(&self, cells: &[String], separator: &str) -> String {
        let cells = cells.iter().zip(self.widths()).enumerate().map(|(column, (cell, width))| {
            if column >= self.numbers_from {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        cells.collect::<Vec<_>>().join(separator)
    }

    /// Aligned columns, two spaces between them.
    pub(crate) fn plain(&self) -> String {
        let mut text = String::new();
        for cells in std::iter::once(&self.headings).chain(&self.rows) {
            text += self.line(cells, "  ").trim_end();
            text.push('\n');
        }
        text
    }

    /// A Markdown table.
    pub(crate) fn markdown(&self) -> String {
        let bars: Vec<String> = self
            .widths()
            .into_iter()
            .enumerate()
            .map(|(column, width)| {
                let right = column >= self.numbers_from;
                format!(
                    "{}{}",
                    "-".repeat(width - usize::from(right)),
                    if right { ":" } else { "" }
                )
            })
            .collect();
        let mut text = String::new();
        for cells in [&self.headings, &bars].into_iter().chain(&self.rows) {
            text += &format!("| {} |\n", self.line(cells, " | "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["name", "t/s"], 1);
        table.row(["a", "10.5"]);
        table.row(["longer", "9"]);
        assert_eq!(table.plain(), "name     t/s\na       10.5\nlonger     9\n");
        assert_eq!(
            table.markdown(),
            "| name   |  t/s |\n| ------ | ---: |\n| a      | 10.5 |\n| longer |    9 |\n"
        );
    }
    #[test]
    fn control_characters_move_nothing() {
        let mut table = Table::new(&["name", "t/s"], 1);
        table.row(["a\u{1b}[2J\nb\u{9b}", "1"]);
        let text = table.plain();
        assert!(text.contains("a\\u{1b}[2J b\\u{9b}  "), "{text}");
        assert_eq!(text.lines().count(), 2);
    }
}
