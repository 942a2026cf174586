//! A line of CSV as cells: RFC 4180, with any separator.
//!
//! A row is a line. A quote that is not closed in its line is a mistake of that line and swallows
//! none after it.

/// The cells of one line, quotes removed. Used again from line to line.
#[derive(Debug, Default)]
pub(super) struct Cells {
    text: String,
    /// Where each cell ends in `text`.
    ends: Vec<usize>,
}

impl Cells {
    /// Reads a line without its line break.
    ///
    /// # Errors
    /// What is wrong with a quote.
    pub(super) fn read(&mut self, line: &str, delimiter: char) -> Result<(), &'static str> {
        self.text.clear();
        self.ends.clear();
        let mut rest = line;
        loop {
            rest = match rest.strip_prefix('"') {
                Some(quoted) => self.quoted(quoted)?,
                None => {
                    let end = rest.find(delimiter).unwrap_or(rest.len());
                    self.text.push_str(&rest[..end]);
                    &rest[end..]
                }
            };
            self.ends.push(self.text.len());
            rest = match rest.strip_prefix(delimiter) {
                Some(next) => next,
                None if rest.is_empty() => return Ok(()),
                None => return Err("there is text between a closing quote and the end of its cell"),
            };
        }
    }

    /// Takes a cell after its opening quote, and gives what follows the closing one.
    fn quoted<'l>(&mut self, mut rest: &'l str) -> Result<&'l str, &'static str> {
        loop {
            let Some(end) = rest.find('"') else {
                return Err("a quote is not closed in its line");
            };
            self.text.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(further) => {
                    self.text.push('"');
                    rest = further;
                }
                None => return Ok(rest),
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A cell without the spaces around it; empty beyond the last one.
    pub(super) fn get(&self, index: usize) -> &str {
        let Some(end) = self.ends.get(index) else { return "" };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text[start..*end].trim()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use csv::{ReaderBuilder, StringRecord};
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str, delimiter: char) -> Result<Vec<String>, &'static str> {
        let mut cells = Cells::default();
        cells.read(line, delimiter)?;
        Ok(cells.iter().map(str::to_owned).collect())
    }

    #[test]
    fn lines() {
        /// Line, delimiter, cells.
        type Case<'c> = (&'c str, char, Result<&'c [&'c str], &'c str>);
        let cases: &[Case<'_>] = &[
            ("", ',', Ok(&[""])),
            ("a", ',', Ok(&["a"])),
            ("a,b", ',', Ok(&["a", "b"])),
            (" a , b ", ',', Ok(&["a", "b"])),
            ("a,,", ',', Ok(&["a", "", ""])),
            ("\"a,b\",c", ',', Ok(&["a,b", "c"])),
            ("\"say \"\"hi\"\"\",c", ',', Ok(&["say \"hi\"", "c"])),
            ("\"\",\"\"", ',', Ok(&["", ""])),
            ("5\" disk,c", ',', Ok(&["5\" disk", "c"])),
            ("a;1,5;\"x;y\"", ';', Ok(&["a", "1,5", "x;y"])),
            ("a\tb", '\t', Ok(&["a", "b"])),
            ("a,\"b", ',', Err("a quote is not closed in its line")),
            ("\"", ',', Err("a quote is not closed in its line")),
            ("\"a\"\"", ',', Err("a quote is not closed in its line")),
            ("\"a\"b,c", ',', Err("there is text between a closing quote and the end of its cell")),
        ];
        for (line, delimiter, expected) in cases {
            let expected = expected.map(|cells| cells.iter().map(|cell| (*cell).to_owned()).collect());
            assert_eq!(read(line, *delimiter), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_cells_come_back(cells in proptest::collection::vec("[a-z,;\" é]{0,5}", 1..6), delimiter in "[,;]") {
            let delimiter = delimiter.chars().next().expect("one character");
            let quoted: Vec<String> =
                cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
            let expected: Vec<String> = cells.iter().map(|cell| cell.trim().to_owned()).collect();
            prop_assert_eq!(read(&quoted.join(&delimiter.to_string()), delimiter), Ok(expected));
        }

        /// The reader that others use takes the same line for the same cells, unless it is
        /// mistaken.
        #[test]
        fn a_line_without_a_mistake_is_read_as_others_read_it(line in "[a-z,\" ]{1,20}") {
            let Ok(cells) = read(&line, ',') else { return Ok(()) };
            let mut rows = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line.as_bytes());
            let mut row = StringRecord::new();
            prop_assert!(rows.read_record(&mut row).expect("a row"));
            prop_assert_eq!(cells, row.iter().map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
        }
    }
}
