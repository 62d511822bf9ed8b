//! Traces: which one a call is part of (W3C Trace Context), and, with the feature `otel`, spans that are sent to a
//! collector by OpenTelemetry's protocol. Without the feature a [`Span`] is nothing and costs nothing.

use axum::http::HeaderMap;

#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod otel;

#[cfg(not(feature = "otel"))]
pub use off::{Span, check, is_on, start};
#[cfg(feature = "otel")]
pub use otel::{Span, check, is_on, start};

/// What a variable says, if it says something.
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether spans are wanted: an address of a collector is given, and nothing speaks against it.
/// <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>
fn wanted() -> bool {
    let says = |name: &str, what: &str| given(name).is_some_and(|value| value.eq_ignore_ascii_case(what));
    let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let address = names.into_iter().find_map(given).is_some();
    address && !says("OTEL_SDK_DISABLED", "true") && !says("OTEL_TRACES_EXPORTER", "none")
}

/// The span that a caller made the call in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Parent {
    trace: u128,
    span: u64,
    is_sampled: bool,
}

impl Parent {
    /// What a sound header `traceparent` says.
    pub fn of(headers: &HeaderMap) -> Option<Parent> {
        let text = headers.get("traceparent")?.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, len: usize| {
            let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (text.len() == len && digits).then(|| u128::from_str_radix(text, 16).ok()).flatten()
        };
        let (version, trace, span) = (hex(version, 2)?, hex(trace, 32)?, hex(span, 16)?);
        let flags = hex(flags, 2)?;
        let known_end = version != 0 || parts.next().is_none();
        let sound = version != 0xff && trace != 0 && span != 0 && known_end;
        sound.then_some(Parent { trace, span: span as u64, is_sampled: flags & 1 == 1 })
    }

    /// The trace's id as text.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_as_the_standard_has_it() {
        let read = |text: &str| {
            let value = text.parse().expect("a value");
            Parent::of(&HeaderMap::from_iter([("traceparent".parse().expect("a name"), value)]))
        };
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let found = read(&format!("00-{trace}-b7ad6b7169203331-01")).expect("sound");
        assert_eq!(
            (found.trace_id(), found.span, found.is_sampled),
            (trace.into(), 0xb7ad_6b71_6920_3331, true)
        );
        assert!(!read(&format!("00-{trace}-b7ad6b7169203331-00")).expect("sound").is_sampled);
        // A later version may say more.
        assert!(read(&format!("01-{trace}-b7ad6b7169203331-01-more")).is_some());
        for wrong in [
            String::new(),
            format!("ff-{trace}-b7ad6b7169203331-01"),
            format!("00-{trace}-b7ad6b7169203331-01-more"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
            format!("00-{trace}-b7ad6b7169203331"),
            format!("00-{trace}-b7ad6b716920333-01"),
            format!("00-+{}-b7ad6b7169203331-01", &trace[1..]),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }
}
