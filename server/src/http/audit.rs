//! The audit trail, for administrators: what was done that binds others, and what was refused to whom.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockline_core::audit_trail::{AuditKind, AuditRecord};
use stockline_core::limit;
use stockline_core::outcome::Code;

use super::answer::{Moment, Told};
use super::call::{Asked, Caller, at_most};
use super::catalogue::administers;
use super::problem::Problem;
use crate::engine::AuditEntry;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AuditOptions")]
pub(super) struct Options {
    /// Both where nothing is said.
    #[schemars(extend("enum" = ["administration", "refusal"]))]
    kind: Option<String>,
    /// Only records with a smaller number: `next` of an answer before.
    before: Option<u64>,
    /// 1 to 1000; 100 where nothing is said.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// Something that was done, or refused.
#[derive(Serialize, JsonSchema)]
struct Item {
    number: u64,
    at: Option<Moment>,
    #[schemars(extend("enum" = ["administration", "refusal"]))]
    kind: &'static str,
    /// How it came.
    #[schemars(extend("enum" = ["http", "quic", "control", "command", ""]))]
    face: String,
    /// Whose token it came with; null for nobody that is known.
    principal: Option<String>,
    /// The address it came from, which may be a proxy's.
    from: Option<String>,
    /// Method and path; frame and entries.
    asked: String,
    /// What was answered over HTTP; null where nobody waited for it.
    status: Option<u16>,
    /// Why it was refused.
    code: Option<String>,
    /// How many like it there were within a second.
    count: u64,
    /// The first one's `x-request-id`, and the id of its trace.
    request: Option<String>,
    trace: Option<String>,
}

/// Records of the audit trail, the newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct Audit {
    items: Vec<Item>,
    /// Where to go on; null where there is nothing more.
    next: Option<u64>,
    /// Where the chains of records end. Written down elsewhere, `stockline verify --audit-anchor` notices whatever is edited,
    /// removed or cut off since.
    anchors: Vec<String>,
}

fn item(record: AuditRecord) -> Item {
    // What cannot be read is told all the same: somebody may have edited it.
    let unreadable = |_| AuditEntry::of("this record cannot be read");
    let entry: AuditEntry = serde_json::from_slice(&record.says).unwrap_or_else(unreadable);
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Item {
        number: record.number,
        at: Moment::of(record.at),
        kind: record.kind.name(),
        face: entry.face,
        principal: some(entry.principal),
        from: entry.from.map(|from| from.to_string()),
        asked: entry.asked,
        status: Some(entry.status).filter(|status| *status != 0),
        code: some(entry.code),
        count: entry.count,
        request: some(entry.request),
        trace: some(entry.trace),
    }
}

pub(super) async fn list(caller: Caller, Asked(options): Asked<Options>) -> Result<Told<Audit>, Problem> {
    administers(&caller)?;
    let most = at_most(options.limit.unwrap_or(100), limit::HISTORY_ITEMS_MAX)?;
    let before = options.before.unwrap_or(u64::MAX);
    let kinds = match options.kind.as_deref() {
        None => AuditKind::ALL.to_vec(),
        Some(name) => {
            let wrong = || Problem::invalid("kind is administration or refusal");
            vec![AuditKind::from_name(name).ok_or_else(wrong)?]
        }
    };
    let engine = caller.engine.clone();
    let read = tokio::task::spawn_blocking(move || {
        let records = engine.trail().records();
        Ok((records.newest(&kinds, before, most)?, records.ends()?))
    });
    let unreadable = |why: String| {
        tracing::error!("{why}");
        Problem::of(Code::Overloaded, "the audit trail cannot be read; ask again")
    };
    let read: Result<_, stockline_core::audit_trail::AuditTrailError> =
        read.await.map_err(|error| unreadable(error.to_string()))?;
    let (records, ends) = read.map_err(|error| unreadable(error.to_string()))?;
    let next = records.last().filter(|_| records.len() == most).map(|record| record.number);
    let items = records.into_iter().map(item).collect();
    Ok(Told(Audit { items, next, anchors: ends.map(|end| end.to_string()).to_vec() }))
}
