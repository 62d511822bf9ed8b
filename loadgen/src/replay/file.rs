//! The order file: `InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country`, plain
//! or xz-compressed. A row that cannot be read ends the run before anything is sent; a row that is no stock
//! is skipped and counted by its reason.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use liblzma::read::XzDecoder;

use crate::error::LoadError;

/// When opening receipts happened: 2000-01-01, before any order.
pub const EPOCH_MS: u64 = 946_684_800_000;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OrderKind {
    Sale,
    Return,
    WriteOff,
}

/// One invoice, cancellation or write-off.
#[derive(Clone, Debug)]
pub struct Order {
    pub number: String,
    pub kind: OrderKind,
    pub channel: String,
    pub at_ms: u64,
    /// Index of the sku, and units (positive).
    pub lines: Vec<(usize, i64)>,
}

/// The file, understood.
pub struct OrderFile {
    pub rows: u64,
    pub orders: Vec<Order>,
    pub skus: Vec<String>,
    pub channels: Vec<String>,
    pub skipped: Vec<(String, u64)>,
}

impl OrderFile {
    pub fn count(&self, kind: OrderKind) -> usize {
        self.orders.iter().filter(|order| order.kind == kind).count()
    }
}

const COLUMNS: [&str; 8] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
];

/// Why a code is no stock; `None` if it is.
fn not_stock(code: &str) -> Option<String> {
    let digits = code.chars().take_while(char::is_ascii_digit).count();
    let item = digits == 5 && code[digits..].chars().all(|letter| letter.is_ascii_alphabetic());
    let party_item = code.starts_with("DCGS") || code == "PADS";
    if item || party_item {
        return None;
    }
    Some(match code {
        "POST" | "DOT" | "C2" => format!("{code}: carriage"),
        "D" | "M" | "S" | "B" => format!("{code}: discount, manual entry, sample or bad debt"),
        "AMAZONFEE" | "BANK CHARGES" | "CRUK" => format!("{code}: fee"),
        other if other.starts_with("GIFT_") => "GIFT_*: voucher".into(),
        other => format!("{other}: no stock code"),
    })
}

/// `2010-12-01 08:26:00` as milliseconds since 1970, taken as UTC.
fn moment(text: &str) -> Option<u64> {
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19).unwrap_or(0));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from civil, after Howard Hinnant's algorithm of the same name.
    let shifted = year - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000).ok()
}

/// Reads the whole file. Codes are compared in upper case: the same item occurs in both.
pub fn read(path: &Path) -> Result<OrderFile, LoadError> {
    let name = path.display().to_string();
    let wrong = |line: u64, reason: String| LoadError::Input(format!("{name}:{line}: {reason}"));
    let file = File::open(path).map_err(|error| wrong(0, error.to_string()))?;
    let input: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => Box::new(XzDecoder::new(file)),
        Some("csv") => Box::new(file),
        _ => return Err(LoadError::Input(format!("{name}: must end in .csv or .csv.xz"))),
    };
    let mut reader = csv::Reader::from_reader(input);
    let headers = reader.headers().map_err(|error| wrong(1, error.to_string()))?.clone();
    let mut columns = [0; COLUMNS.len()];
    for (column, wanted) in columns.iter_mut().zip(COLUMNS) {
        *column = headers
            .iter()
            .position(|header| header.trim_start_matches('\u{feff}') == wanted)
            .ok_or_else(|| wrong(1, format!("no column {wanted}; expected {}", COLUMNS.join(","))))?;
    }
    let mut orders: Vec<Order> = Vec::new();
    let mut by_number: HashMap<(String, OrderKind), usize> = HashMap::new();
    let mut skus: HashMap<String, usize> = HashMap::new();
    let mut sku_names = Vec::new();
    let mut skipped: BTreeMap<String, u64> = BTreeMap::new();
    let mut channels: BTreeMap<String, ()> = BTreeMap::new();
    let mut rows = 0;
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            wrong(line, error.to_string())
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        rows += 1;
        let field = |column: usize| record.get(columns[column]).unwrap_or_default().trim();
        let number = field(0);
        if number.is_empty() {
            return Err(wrong(line, "InvoiceNo: is empty".into()));
        }
        let code = field(1).to_uppercase();
        if code.is_empty() {
            return Err(wrong(line, "StockCode: is empty".into()));
        }
        let quantity: i64 = field(3)
            .parse()
            .map_err(|_| wrong(line, format!("Quantity: {:?} is no whole number", field(3))))?;
        if quantity.abs() > i64::from(stockline_client::limit::QUANTITY_MAX) {
            return Err(wrong(line, format!("Quantity: {quantity} is more than a line may have")));
        }
        let at_ms = moment(field(4)).ok_or_else(|| {
            wrong(line, format!("InvoiceDate: {:?} is no time such as 2010-12-01 08:26:00", field(4)))
        })?;
        let channel = field(7);
        if channel.is_empty() {
            return Err(wrong(line, "Country: is empty".into()));
        }
        let reason = not_stock(&code).or_else(|| (quantity == 0).then(|| "quantity 0".into()));
        let reason = reason.or_else(|| {
            let cancelled = number.starts_with(['C', 'c']);
            (cancelled && quantity > 0).then(|| "cancellation with a positive quantity".into())
        });
        if let Some(reason) = reason {
            *skipped.entry(reason).or_default() += 1;
            continue;
        }
        let kind = match (number.starts_with(['C', 'c']), quantity > 0) {
            (true, _) => OrderKind::Return,
            (false, true) => OrderKind::Sale,
            (false, false) => OrderKind::WriteOff,
        };
        let sku = *skus.entry(code.clone()).or_insert_with(|| {
            sku_names.push(code);
            sku_names.len() - 1
        });
        channels.insert(channel.into(), ());
        let at = *by_number.entry((number.to_owned(), kind)).or_insert_with(|| {
            let (number, channel) = (number.to_owned(), channel.to_owned());
            orders.push(Order { number, kind, channel, at_ms, lines: Vec::new() });
            orders.len() - 1
        });
        if orders[at].lines.len() >= stockline_client::limit::RESERVATION_LINES_MAX {
            return Err(wrong(
                line,
                format!("InvoiceNo: {number} has more lines than a reservation may have"),
            ));
        }
        orders[at].lines.push((sku, quantity.abs()));
    }
    if orders.is_empty() {
        return Err(wrong(1, "no orders in this file".into()));
    }
    Ok(OrderFile {
        rows,
        orders,
        skus: sku_names,
        channels: channels.into_keys().collect(),
        skipped: skipped.into_iter().collect(),
    })
}
