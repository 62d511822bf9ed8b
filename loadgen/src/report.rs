//! What a run found: on the terminal, as JSON (docs/protocol.md lists its fields) and as a page.

use std::time::Duration;

use serde::Serialize;

use crate::drive::Tally;

/// Figures of one kind of operation. Times in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct OpReport {
    pub op: String,
    pub count: u64,
    pub requests_per_s: f64,
    pub lines_per_s: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    pub refused: u64,
    pub errors: u64,
}

impl OpReport {
    pub fn of(op: &str, tally: &Tally, time: Duration) -> OpReport {
        let seconds = time.as_secs_f64().max(1e-9);
        let at = |quantile| tally.times_us.value_at_quantile(quantile);
        OpReport {
            op: op.into(),
            count: tally.frames,
            requests_per_s: (tally.frames as f64 / seconds).round(),
            lines_per_s: (tally.lines as f64 / seconds).round(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: tally.times_us.max(),
            refused: tally.refused,
            errors: tally.errors,
        }
    }
}

/// What the machine allows.
#[derive(Clone, Debug, Serialize)]
pub struct FloorReport {
    pub echo_p50_us: u64,
    pub echo_per_s: f64,
    pub fdatasync_p50_us: u64,
    pub dense_lookup_ns: f64,
    pub map_lookup_ns: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct AuditReport {
    pub ok: bool,
    pub checked: u64,
    pub wrong: u64,
    /// The first wrong answers in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub scenario: String,
    pub seconds: f64,
    pub connections: usize,
    pub in_flight: usize,
    pub batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_per_s: Option<f64>,
    pub results: Vec<OpReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<FloorReport>,
    /// Scenario replay: rows of the file that are no stock, by reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, u64)>,
    pub audit: AuditReport,
}

impl Report {
    pub fn print(&self) {
        println!(
            "{} for {:.1} s, {} connections, {} in flight, batch {}",
            self.scenario, self.seconds, self.connections, self.in_flight, self.batch
        );
        println!(
            "{:<14} {:>10} {:>12} {:>12} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>6}",
            "op",
            "count",
            "requests/s",
            "lines/s",
            "p50 us",
            "p90",
            "p99",
            "p99.9",
            "max",
            "refused",
            "errors"
        );
        for op in &self.results {
            println!(
                "{:<14} {:>10} {:>12.0} {:>12.0} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>6}",
                op.op,
                op.count,
                op.requests_per_s,
                op.lines_per_s,
                op.p50_us,
                op.p90_us,
                op.p99_us,
                op.p999_us,
                op.max_us,
                op.refused,
                op.errors
            );
        }
        if let Some(floor) = &self.floor {
            print_floor(floor);
            for op in &self.results {
                println!(
                    "{:<14} {:.2} x the echo floor's rate, {:.2} x its p50",
                    op.op,
                    op.requests_per_s / floor.echo_per_s.max(1.0),
                    op.p50_us as f64 / floor.echo_p50_us.max(1) as f64
                );
            }
        }
        for (reason, rows) in &self.skipped {
            println!("skipped {rows} rows: {reason}");
        }
        for finding in &self.audit.findings {
            println!("wrong: {finding}");
        }
        let verdict = if self.audit.ok { "ok" } else { "WRONG ANSWERS" };
        println!("audit {verdict}: {} checked, {} wrong", self.audit.checked, self.audit.wrong);
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }

    /// One page without anything from elsewhere.
    pub fn html(&self) -> String {
        let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
        let mut rows = String::new();
        for op in &self.results {
            rows += &format!(
                "<tr><th>{}<td>{}<td>{:.0}<td>{:.0}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>\n",
                escape(&op.op),
                op.count,
                op.requests_per_s,
                op.lines_per_s,
                op.p50_us,
                op.p90_us,
                op.p99_us,
                op.p999_us,
                op.max_us,
                op.refused,
                op.errors
            );
        }
        let floor = self.floor.as_ref().map_or(String::new(), |floor| {
            format!(
                "<p>Floor: echo {:.0}/s, p50 {} us; fdatasync p50 {} us.</p>",
                floor.echo_per_s, floor.echo_p50_us, floor.fdatasync_p50_us
            )
        });
        let findings: String =
            self.audit.findings.iter().map(|finding| format!("<li>{}</li>", escape(finding))).collect();
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>Stockline load: {0}</title>\
             <style>body{{font:16px sans-serif;margin:2em}}td,th{{padding:.2em .8em;text-align:right}}\
             th:first-child{{text-align:left}}</style><h1>{0}</h1>\
             <p>{1:.1} s, {2} connections, {3} in flight, batch {4}</p>\
             <table><tr><th>op<th>count<th>requests/s<th>lines/s<th>p50 us<th>p90<th>p99<th>p99.9<th>max\
             <th>refused<th>errors</tr>\n{rows}</table>{floor}\
             <p>Audit: {5} checked, {6} wrong.</p><ul>{findings}</ul></html>\n",
            escape(&self.scenario),
            self.seconds,
            self.connections,
            self.in_flight,
            self.batch,
            self.audit.checked,
            self.audit.wrong
        )
    }
}

pub fn print_floor(floor: &FloorReport) {
    println!(
        "floor: echo {:.0}/s p50 {} us, fdatasync p50 {} us, look-up of 1 M random: dense {:.1} ns, map {:.1} ns",
        floor.echo_per_s,
        floor.echo_p50_us,
        floor.fdatasync_p50_us,
        floor.dense_lookup_ns,
        floor.map_lookup_ns
    );
}
