//! Columns, wrapped paragraphs and colours for a terminal of a given width.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A blank at which no line is broken; printed as an ordinary one.
pub(super) const NO_BREAK: &str = "\u{a0}";
/// Blanks between two columns.
const GAP: usize = 2;
/// Blanks before a table or a paragraph.
pub(super) const INDENT: usize = 2;
/// A column is not made narrower than this: below it nothing can be read.
const NARROWEST: usize = 5;

/// How a piece of text is coloured: the parameter of the terminal's SGR sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style(&'static str);

impl Style {
    pub(super) const PLAIN: Self = Self("");
    pub(super) const BOLD: Self = Self("1");
    pub(super) const DIM: Self = Self("2");
    pub(super) const RED: Self = Self("31");
    pub(super) const ALARM: Self = Self("1;31");
    pub(super) const GREEN: Self = Self("32");
    pub(super) const YELLOW: Self = Self("33");
    pub(super) const CYAN: Self = Self("36");

    /// The text in this style, if colours are wanted.
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        if colour && !self.0.is_empty() && !text.is_empty() {
            format!("\u{1b}[{}m{text}\u{1b}[0m", self.0)
        } else {
            text.to_owned()
        }
    }
}

/// A cell of a table; line feeds in it begin a new line of the same cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Style::PLAIN)
    }
}

/// Rows under headings. A column in which nothing stands is left out.
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub(super) fn push<const N: usize>(&mut self, row: [Cell; N]) {
        debug_assert_eq!(N, self.headings.len(), "a cell for each heading");
        self.rows.push(row.into());
    }

    pub(super) fn write(&self, out: &mut impl Write, width: usize, colour: bool) -> io::Result<()> {
        let widths = self.widths(width.saturating_sub(INDENT));
        let headings: Vec<Cell> = self.headings.iter().map(|&heading| Cell::new(heading, Style::DIM)).collect();
        write_row(out, &headings, &widths, colour)?;
        self.rows.iter().try_for_each(|row| write_row(out, row, &widths, colour))
    }

    /// Each column as wide as its widest line; while they do not fit together, the widest gives way. 0: left out.
    fn widths(&self, available: usize) -> Vec<usize> {
        let mut widths = vec![0; self.headings.len()];
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = cell.text.lines().map(UnicodeWidthStr::width).fold(*column, usize::max);
            }
        }
        for (column, heading) in widths.iter_mut().zip(&self.headings) {
            if *column > 0 {
                *column = (*column).max(heading.width());
            }
        }
        let gaps = widths.iter().filter(|&&column| column > 0).count().saturating_sub(1) * GAP;
        let available = available.saturating_sub(gaps);
        loop {
            let excess = widths.iter().sum::<usize>().saturating_sub(available);
            let Some(widest) = widths.iter_mut().max() else { return widths };
            if excess == 0 || *widest <= NARROWEST {
                return widths;
            }
            *widest -= 1;
        }
    }
}

fn write_row(out: &mut impl Write, row: &[Cell], widths: &[usize], colour: bool) -> io::Result<()> {
    let columns: Vec<(Vec<String>, Style, usize)> = row
        .iter()
        .zip(widths)
        .filter(|&(_, &width)| width > 0)
        .map(|(cell, &width)| (cell.text.lines().flat_map(|line| wrap(line, width)).collect(), cell.style, width))
        .collect();
    let height = columns.iter().map(|(lines, ..)| lines.len()).max().unwrap_or(0);
    for number in 0..height {
        let mut line = " ".repeat(INDENT);
        let mut owed = 0;
        for (lines, style, width) in &columns {
            let text = lines.get(number).map_or("", String::as_str);
            if !text.is_empty() {
                line.extend(std::iter::repeat_n(' ', owed));
                line.push_str(&style.paint(text, colour));
                owed = 0;
            }
            owed += (width + GAP).saturating_sub(text.width());
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// A paragraph with a label before its first line, all further lines under the text.
pub(super) fn paragraph(
    out: &mut impl Write,
    (indent, label): (usize, &str),
    text: &str,
    width: usize,
) -> io::Result<()> {
    let start = indent + label.width();
    for (number, line) in wrap(text, width.saturating_sub(start).max(NARROWEST)).iter().enumerate() {
        if number == 0 {
            writeln!(out, "{:indent$}{label}{line}", "")?;
        } else {
            writeln!(out, "{:start$}{line}", "")?;
        }
    }
    Ok(())
}

/// The text in lines of at most `width` columns, broken at blanks where there are any; a longer word is broken after a
/// mark that parts it, as `@` does a name. At least one line.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let needed = word.width();
        if used > 0 && used + 1 + needed > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        } else if used > 0 {
            line.push(' ');
            used += 1;
        }
        for character in word.chars() {
            let columns = character.width().unwrap_or(0);
            if used + columns > width {
                let rest = line.split_off(last_part(&line));
                used = rest.width();
                lines.push(std::mem::replace(&mut line, rest));
            }
            line.push(character);
            used += columns;
        }
    }
    lines.push(line);
    lines.into_iter().map(|line| line.replace(NO_BREAK, " ")).collect()
}

/// Where the last part of a word begins that does not fit: after a mark in its second half, else at its end.
fn last_part(line: &str) -> usize {
    let mark = line.rfind(['@', '.', ':', '/', '-', '_']).map_or(line.len(), |place| place + 1);
    if mark * 2 > line.len() { mark } else { line.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(table: &Table, width: usize) -> String {
        let mut out = Vec::new();
        table.write(&mut out, width, false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn paragraphs_break_at_blanks_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("ノード", 4), ["ノー", "ド"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("orders@host-a.lab.example", 22), ["orders@host-a.lab.", "example"]);
        assert_eq!(wrap("a 10\u{a0}s", 4), ["a", "10 s"]);
    }

    #[test]
    fn a_table_keeps_inside_the_width_and_loses_no_text() {
        let mut table = Table::new(&["from", "empty", "to"]);
        table.push(["web@host-a with a rather long name".into(), "".into(), "db@host-b\n10.77.0.2".into()]);
        let wide = printed(&table, 100);
        let expected = "  from                                to\n  \
                        web@host-a with a rather long name  db@host-b\n                                      10.77.0.2\n";
        assert_eq!(wide, expected);
        let narrow = printed(&table, 30);
        assert!(narrow.lines().all(|line| line.width() <= 30), "{narrow}");
        let letters = |text: &str| text.chars().filter(|character| !character.is_whitespace()).count();
        assert_eq!(letters(&wide), letters(&narrow));
    }

    #[test]
    fn a_width_too_small_for_anything_still_ends() {
        let mut table = Table::new(&["one", "two", "three"]);
        table.push(["aaaaaaaaaaaaaaaaaaaaaaaa".into(), "b".into(), "c".into()]);
        assert_eq!(printed(&table, 0).matches('a').count(), 24);
    }
}
