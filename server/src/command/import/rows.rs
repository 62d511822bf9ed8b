//! Rows of a file of events, one at a time: JSON lines, a JSON array, or CSV, with or without a byte order mark.
//!
//! It knows neither ids nor servers. A row is bounded, so that memory does not depend on the input.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;

use csv::{ReaderBuilder, StringRecord, Terminator, Trim};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::event_row::{EventRow, FIELDS, Fields, ParsedRow, integer_of, wrong};

/// Bytes of one row.
const ROW_BYTES_MAX: usize = 64 << 10;
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Names of foreign columns and values.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// Foreign column (or JSON member): field; an empty field leaves the column out.
    columns: HashMap<String, String>,
    /// Field: foreign value: value.
    values: HashMap<String, HashMap<String, String>>,
    /// Field: value where a row has none.
    defaults: HashMap<String, String>,
}

impl Mapping {
    pub fn read(path: &Path) -> Result<Mapping, String> {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        let mapping: Mapping = toml::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
        let columns = mapping.columns.values().filter(|field| !field.is_empty());
        let fields = columns.chain(mapping.values.keys()).chain(mapping.defaults.keys());
        for field in fields {
            if !FIELDS.contains(&field.as_str()) {
                return Err(format!(
                    "{name}: {field:?} is no field of an event; its fields are {}",
                    FIELDS.join(", ")
                ));
            }
        }
        Ok(mapping)
    }

    /// The field that a column is, in any case of letters; `None` for one that is left out.
    fn field(&self, column: &str) -> Result<Option<&'static str>, String> {
        let name = self.columns.get(column).map_or(column, String::as_str);
        if name.is_empty() {
            return Ok(None);
        }
        let found = FIELDS.iter().find(|field| name.eq_ignore_ascii_case(field));
        found.map(|field| Some(*field)).ok_or_else(|| {
            format!(
                "column {:?} is no field of an event; its fields are {}; name it in --map, or leave it out there",
                name.chars().take(80).collect::<String>(),
                FIELDS.join(", ")
            )
        })
    }

    fn value<'a>(&'a self, field: &str, given: Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        let Some(given) = given else {
            return self.defaults.get(field).map(|text| Cow::Borrowed(text.as_str()));
        };
        match self.values.get(field).and_then(|values| values.get(&*given)) {
            Some(value) => Some(Cow::Borrowed(value)),
            None => Some(given),
        }
    }
}

/// What the input turned out to be.
enum Format<R> {
    Lines(R),
    Array {
        input: R,
        state: Array,
    },
    Csv(Box<CsvRows<R>>),
    /// It could not be begun: why, and where.
    Broken(Option<(u64, String)>),
}

#[derive(Clone, Copy, PartialEq)]
enum Array {
    First,
    Next,
    Over,
}

pub(super) struct Rows<'a, R> {
    format: Format<R>,
    mapping: &'a Mapping,
    line: u64,
    buffer: Vec<u8>,
}

impl<'a, R: BufRead> Rows<'a, R> {
    pub(super) fn new(input: R, mapping: &'a Mapping) -> Rows<'a, R> {
        let mut rows = Rows { format: Format::Broken(None), mapping, line: 1, buffer: Vec::new() };
        rows.format = rows.begin(input).unwrap_or_else(|(line, reason)| Format::Broken(Some((line, reason))));
        rows
    }

    fn begin(&mut self, mut input: R) -> Result<Format<R>, (u64, String)> {
        let failed = |error: io::Error| (1, error.to_string());
        if input.fill_buf().map_err(failed)?.starts_with(MARK) {
            input.consume(MARK.len());
        }
        loop {
            let Some(byte) = input.fill_buf().map_err(failed)?.first().copied() else {
                let text = "the input is empty; expected JSON lines, a JSON array, or CSV with a header";
                return Err((1, text.into()));
            };
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                b'{' => return Ok(Format::Lines(input)),
                b'[' => {
                    input.consume(1);
                    return Ok(Format::Array { input, state: Array::First });
                }
                _ => {
                    return CsvRows::begin(input, self.mapping, self.line)
                        .map(|rows| Format::Csv(Box::new(rows)));
                }
            }
            input.consume(1);
        }
    }

    /// The next row and its line, or why it is none.
    pub(super) fn next_row(&mut self) -> Option<(u64, Result<ParsedRow, String>)> {
        let (line, row) = match &mut self.format {
            Format::Broken(reason) => return reason.take().map(|(line, reason)| (line, Err(reason))),
            Format::Csv(rows) => rows.next_row(self.mapping)?,
            Format::Lines(input) => {
                let (line, text) = next_line(input, &mut self.buffer, &mut self.line)?;
                (line, text.and_then(|text| json_row(text, self.mapping)))
            }
            Format::Array { input, state } => {
                let (line, text) = next_element(input, &mut self.buffer, &mut self.line, state)?;
                (line, text.and_then(|text| json_row(text, self.mapping)))
            }
        };
        Some((line, row.and_then(|row| row.parse())))
    }
}

fn json_row(text: &str, mapping: &Mapping) -> Result<EventRow, String> {
    if mapping.columns.is_empty() && mapping.values.is_empty() && mapping.defaults.is_empty() {
        return EventRow::from_json(text);
    }
    let given: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let mut fields = Map::new();
    for (column, value) in given {
        if let Some(field) = mapping.field(&column)? {
            let value = match value {
                Value::String(text) => {
                    mapping.value(field, Some(Cow::Owned(text))).map_or(Value::Null, |text| text.into())
                }
                other => other,
            };
            fields.insert(field.to_owned(), value);
        }
    }
    for (field, value) in &mapping.defaults {
        if matches!(fields.get(field), None | Some(Value::Null)) {
            fields.insert(field.clone(), value.as_str().into());
        }
    }
    EventRow::from_map(&fields)
}

fn too_long() -> String {
    format!("the row is longer than {ROW_BYTES_MAX} bytes")
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| format!("byte {} of the row is no UTF-8", error.valid_up_to()))
}

/// The next line that is not empty. Of one that is too long only the beginning is kept.
fn next_line<'a>(
    input: &mut impl BufRead,
    buffer: &'a mut Vec<u8>,
    line: &mut u64,
) -> Option<(u64, Result<&'a str, String>)> {
    loop {
        buffer.clear();
        let (mut is_long, mut is_end) = (false, true);
        loop {
            let some = match input.fill_buf() {
                Ok([]) => break,
                Ok(some) => some,
                Err(error) => return Some((*line, Err(error.to_string()))),
            };
            is_end = false;
            let end = some.iter().position(|byte| *byte == b'\n');
            let part = &some[..end.unwrap_or(some.len())];
            is_long |= buffer.len() + part.len() > ROW_BYTES_MAX;
            if !is_long {
                buffer.extend_from_slice(part);
            }
            let taken = end.map_or(some.len(), |end| end + 1);
            input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if is_end {
            return None;
        }
        let here = *line;
        *line += 1;
        if is_long {
            return Some((here, Err(too_long())));
        }
        if !buffer.iter().all(u8::is_ascii_whitespace) {
            return Some((here, text(buffer)));
        }
    }
}

/// The next element of an array: an object, whose end is found by its braces.
fn next_element<'a>(
    input: &mut impl BufRead,
    buffer: &'a mut Vec<u8>,
    line: &mut u64,
    state: &mut Array,
) -> Option<(u64, Result<&'a str, String>)> {
    buffer.clear();
    let (mut depth, mut quoted, mut escaped, mut comma, mut begun) =
        (0usize, false, false, *state == Array::First, *line);
    let over = |state: &mut Array, line: u64, reason: &str| {
        *state = Array::Over;
        Some((line, Err(reason.to_owned())))
    };
    loop {
        let byte = match input.fill_buf() {
            Ok(some) => some.first().copied(),
            Err(error) => return over(state, *line, &error.to_string()),
        };
        let Some(byte) = byte else {
            return if *state == Array::Over { None } else { over(state, *line, "the array has no end") };
        };
        input.consume(1);
        if byte == b'\n' {
            *line += 1;
        }
        if depth == 0 {
            match byte {
                _ if byte.is_ascii_whitespace() => {}
                _ if *state == Array::Over => return over(state, *line, "something stands after the array"),
                b']' if *state == Array::First || !comma => *state = Array::Over,
                b',' if !comma => comma = true,
                b'{' if comma => {
                    (depth, begun) = (1, *line);
                    buffer.push(byte);
                }
                _ => return over(state, *line, "expected an object { of an event here"),
            }
            continue;
        }
        if buffer.len() >= ROW_BYTES_MAX {
            return over(state, begun, &too_long());
        }
        buffer.push(byte);
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    *state = Array::Next;
                    return Some((begun, text(buffer)));
                }
            }
            _ => {}
        }
    }
}

/// Fails where a row does not end.
struct Bounded<R> {
    input: R,
    since: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.since.get() > ROW_BYTES_MAX {
            return Err(io::Error::other(too_long()));
        }
        let count = self.input.read(into)?;
        self.since.set(self.since.get() + count);
        Ok(count)
    }
}

type Input<R> = Bounded<io::Chain<io::Chain<io::Cursor<Vec<u8>>, R>, &'static [u8]>>;

struct CsvRows<R> {
    reader: csv::Reader<Input<R>>,
    since: Rc<Cell<usize>>,
    /// Where a field's column is.
    columns: [Option<usize>; FIELDS.len()],
    /// Columns without a name, and those that are left out.
    known: HashSet<usize>,
    width: usize,
    first_line: u64,
    record: StringRecord,
    is_over: bool,
}

impl<R: BufRead> CsvRows<R> {
    fn begin(mut input: R, mapping: &Mapping, line: u64) -> Result<CsvRows<R>, (u64, String)> {
        let mut header = Vec::new();
        let mut next = line;
        let found = next_line(&mut input, &mut header, &mut next);
        let text = found
            .ok_or((line, "the input is empty".to_owned()))?
            .1
            .map_err(|reason| (line, reason))?
            .to_owned();
        // The separator by which most columns are fields.
        let fields = |by: u8| {
            let names = ReaderBuilder::new()
                .has_headers(false)
                .delimiter(by)
                .trim(Trim::All)
                .from_reader(text.as_bytes());
            let first = names.into_records().next();
            let first = first.and_then(Result::ok).unwrap_or_default();
            first.iter().filter(|name| matches!(mapping.field(name), Ok(Some(_)))).count()
        };
        let separator = *[b';', b'\t', b','].iter().max_by_key(|by| fields(**by)).expect("there are three");
        header.push(b'\n');
        let since = Rc::new(Cell::new(0));
        let all = io::Cursor::new(header).chain(input).chain(&b"\n"[..]);
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(separator)
            .trim(Trim::All)
            .terminator(Terminator::Any(b'\n'))
            .from_reader(Bounded { input: all, since: Rc::clone(&since) });
        let mut names = StringRecord::new();
        reader.read_record(&mut names).map_err(|error| (line, error.to_string()))?;
        let mut rows = CsvRows {
            reader,
            since,
            columns: [None; FIELDS.len()],
            known: HashSet::new(),
            width: names.len(),
            first_line: line,
            record: StringRecord::new(),
            is_over: false,
        };
        for (at, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            rows.known.insert(at);
            let Some(field) = mapping.field(name).map_err(|reason| (line, reason))? else { continue };
            let field = FIELDS.iter().position(|known| *known == field).expect("it is one of them");
            if rows.columns[field].replace(at).is_some() {
                return Err((line, format!("two columns are {:?}", FIELDS[field])));
            }
        }
        Ok(rows)
    }

    fn next_row(&mut self, mapping: &Mapping) -> Option<(u64, Result<EventRow, String>)> {
        loop {
            if self.is_over {
                return None;
            }
            self.since.set(0);
            let read = self.reader.read_record(&mut self.record);
            // Each row ends with a line; the lines within quotes are its own.
            let after = self.reader.position().line() + self.first_line - 1;
            let own = self
                .record
                .iter()
                .map(|field| field.bytes().filter(|byte| *byte == b'\n').count())
                .sum::<usize>();
            let line = after.saturating_sub(1 + own as u64).max(self.first_line);
            match read {
                Ok(false) => return None,
                Ok(true) if self.record.iter().all(str::is_empty) => continue,
                Ok(true) => return Some((line, self.row(mapping))),
                Err(error) => {
                    let reason = match error.kind() {
                        csv::ErrorKind::Utf8 { err, .. } => format!("field {} is no UTF-8", err.field() + 1),
                        csv::ErrorKind::Io(error) => {
                            self.is_over = true;
                            error.to_string()
                        }
                        _ => error.to_string(),
                    };
                    return Some((line, Err(reason)));
                }
            }
        }
    }

    fn row(&self, mapping: &Mapping) -> Result<EventRow, String> {
        let unnamed =
            self.record.iter().enumerate().find(|(at, text)| !text.is_empty() && !self.known.contains(at));
        if let Some((at, text)) = unnamed {
            let reason = if at < self.width {
                "stands in a column without a name"
            } else {
                "stands after the last column"
            };
            return Err(wrong(&format!("column {}", at + 1), text, reason));
        }
        EventRow::read(&CsvFields { rows: self, mapping })
    }
}

struct CsvFields<'a, R> {
    rows: &'a CsvRows<R>,
    mapping: &'a Mapping,
}

impl<R> Fields for CsvFields<'_, R> {
    fn text(&self, field: &'static str) -> Result<Option<Cow<'_, str>>, String> {
        let at = FIELDS.iter().position(|known| *known == field).and_then(|field| self.rows.columns[field]);
        let given = at.and_then(|at| self.rows.record.get(at)).filter(|text| !text.is_empty());
        Ok(self.mapping.value(field, given.map(Cow::Borrowed)))
    }

    fn integer(&self, field: &'static str) -> Result<Option<i128>, String> {
        self.text(field)?.map(|text| integer_of(field, &text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of rows that are sound, and complaints.
    fn read(input: &str) -> (Vec<u64>, Vec<String>) {
        let mapping = Mapping::default();
        let mut rows = Rows::new(input.as_bytes(), &mapping);
        let (mut lines, mut wrong) = (Vec::new(), Vec::new());
        while let Some((line, row)) = rows.next_row() {
            match row {
                Ok(_) => lines.push(line),
                Err(reason) => wrong.push(format!("{line}: {reason}")),
            }
        }
        (lines, wrong)
    }

    const JSON: &str = r#"{"id":"1","source":"s","type":"receipt","occurred_at":"2026-01-01T00:00:00Z","sku":"a","node":"n","quantity":5.0}"#;
    const ROW: &str = "1,s,receipt,2026-01-01T00:00:00Z,a,n,5";
    const HEADER: &str = "id,source,type,occurred_at,sku,node,quantity";

    #[test]
    fn json_is_read_as_lines_or_as_an_array_with_or_without_a_mark() {
        for (input, lines) in [
            (JSON.to_owned(), vec![1]),
            (format!("\u{feff}{JSON}"), vec![1]),
            (format!("\n\r\n{JSON}\r\n\n{JSON}"), vec![3, 5]),
            (format!("[{JSON}]"), vec![1]),
            (format!("\u{feff}[\n  {JSON},\n{JSON}\n]\n"), vec![2, 3]),
            ("[]".to_owned(), vec![]),
        ] {
            assert_eq!(read(&input), (lines, vec![]), "{input:?}");
        }
        for (input, reason) in [
            ("", "1: the input is empty"),
            ("\u{feff}", "1: the input is empty"),
            ("  \n ", "1: the input is empty"),
            ("[{}", "1: id: is missing or empty"),
            ("[1]", "1: expected an object"),
            ("[{} {}]", "1: id: is missing"),
            (&*format!("[{JSON}"), "1: the array has no end"),
            (&*format!("[{JSON},]"), "1: expected an object"),
            (
                &*format!("{JSON}\n{{\"id\":\"{}\"}}", "x".repeat(100_000)),
                "2: the row is longer than 65536 bytes",
            ),
            (&*format!("[{{\"id\":\"{}\"}}]", "x".repeat(100_000)), "1: the row is longer than 65536 bytes"),
        ] {
            let (_, wrong) = read(input);
            assert!(wrong[0].starts_with(reason), "{:.80}: {wrong:?}", input);
        }
    }

    #[test]
    fn csv_is_read_with_any_separator_and_lines_are_counted() {
        let table = |header: &str, rows: &[&str], end: &str| {
            let mut all = vec![header];
            all.extend(rows);
            all.join(end)
        };
        for (input, lines) in [
            (table(HEADER, &[ROW, ROW], "\n"), vec![2, 3]),
            (table(HEADER, &[ROW, "", ROW, ""], "\r\n"), vec![2, 4]),
            (table(&HEADER.replace(',', ";"), &[&ROW.replace(',', ";")], "\n"), vec![2]),
            (table(&HEADER.replace(',', "\t"), &[&ROW.replace(',', "\t")], "\n"), vec![2]),
            (table(&HEADER.to_uppercase(), &[ROW], "\n"), vec![2]),
            (table(&format!("{HEADER},,"), &[&format!("{ROW},,"), ",,,,,,,,", ROW], "\n"), vec![2, 4]),
            (
                table(&format!("\u{feff}{HEADER}"), &["1,s,receipt,2026-01-01T00:00:00Z,a,n,10.0"], "\r\n"),
                vec![2],
            ),
            (
                table(&format!("{HEADER},reason"), &[ROW, &format!("{ROW},\"x;y\""), ROW], "\r\n"),
                vec![2, 3, 4],
            ),
        ] {
            assert_eq!(read(&input), (lines, vec![]), "{input:?}");
        }
        let bad = "1,s,receipt,2026-01-01T00:00:00Z,a,n,ten";
        let (lines, wrong) = read(&table(HEADER, &[ROW, bad, ROW], "\r\n"));
        assert_eq!(
            (lines, wrong),
            (vec![2, 4], vec!["3: quantity: \"ten\" is not a whole number".to_owned()])
        );
        let (lines, wrong) = read(&table(HEADER, &[&format!("{ROW},9")], "\n"));
        assert_eq!(
            (lines, wrong),
            (vec![], vec!["2: column 8: \"9\" stands after the last column".to_owned()])
        );
        let (_, wrong) = read(&table(&format!("{HEADER},colour"), &[ROW, ROW], "\n"));
        assert_eq!(wrong.len(), 1, "an unknown column is named once: {wrong:?}");
        let long = format!("1,s,receipt,2026-01-01T00:00:00Z,\"{}\",n,5", "x".repeat(1 << 20));
        let (_, wrong) = read(&table(HEADER, &[ROW, &long], "\n"));
        assert!(wrong.last().is_some_and(|last| last.contains("longer than 65536 bytes")), "{wrong:?}");
    }
}
