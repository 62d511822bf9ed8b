//! The checker: whether everything that was seen has one explanation, the order of LSNs.
//!
//! Whoever took part tells what was sent, what came back and when. First one sweep over the LSNs shows that the
//! order is one of real time: what was answered before something else was sent stands before it. Then the
//! commands are told to the [model](crate::model) in that order and every answer is compared, and every
//! question with the state at its LSN.

use stockline_client::outcome::Code;

use crate::model::{Act, Due, Model};

/// Never answered, or by nobody.
pub const NEVER: u64 = u64::MAX;

/// Something that happened. Times are in any unit that only grows.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was first sent; 0 for what the system did itself.
    pub sent: u64,
    /// When it was first answered.
    pub replied: u64,
    /// Its LSN; for a question the state that the answer showed.
    pub lsn: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Command {
        act: Act,
        /// When it took effect, where that is known.
        now_ms: Option<u64>,
        /// `None` if nobody heard the answer.
        answer: Option<Due>,
    },
    /// An event that was refused and left no trace.
    Refused { act: Act, code: Code },
    /// Units a channel was told, by sku.
    Question { channel: u16, told: Vec<(u32, i64)> },
}

/// Findings are told up to here.
const FINDINGS_MAX: usize = 20;

/// Checks a history against a model of the state before it; the model is afterwards at the end of it.
pub fn check(model: &mut Model, history: &mut [Seen]) -> Vec<String> {
    // Questions stand behind the command whose state they show.
    history.sort_by_key(|seen| (seen.lsn, matches!(seen.what, What::Question { .. }), seen.sent));
    let mut wrong = real_time(history);
    let mut last = 0;
    for seen in history.iter() {
        if wrong.len() >= FINDINGS_MAX {
            break;
        }
        match &seen.what {
            What::Command { act, now_ms, answer } => {
                if seen.lsn <= last {
                    wrong.push(format!("LSN {} was given twice or not at all: {act:?}", seen.lsn));
                }
                last = seen.lsn;
                let mut due = model.apply(*now_ms, act);
                if let Some(answer) = answer {
                    if now_ms.is_none() {
                        due.expires_at_ms = answer.expires_at_ms;
                    }
                    if *answer != due {
                        let lsn = seen.lsn;
                        wrong.push(format!("LSN {lsn}: {act:?} got {answer:?}, should be {due:?}"));
                    }
                }
            }
            What::Refused { act, code } => {
                if seen.lsn > 0 || !model.may_refuse(act, *code) {
                    wrong.push(format!("LSN {}: {act:?} was refused as {}", seen.lsn, code.name()));
                }
            }
            What::Question { channel, told } => {
                for (sku, told) in told {
                    let due = model.available(*channel, *sku);
                    if *told != due {
                        let lsn = seen.lsn;
                        wrong.push(format!(
                            "as of LSN {lsn}: channel {channel}, sku {sku}: {told}, should be {due}"
                        ));
                    }
                }
            }
        }
    }
    wrong
}

/// One sweep from the last LSN to the first: nothing was sent after something with a later LSN was answered.
fn real_time(history: &[Seen]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut first_answer: Option<&Seen> = None;
    let ordered: Vec<&Seen> =
        history.iter().filter(|seen| !matches!(seen.what, What::Refused { .. })).collect();
    for group in ordered.chunk_by(|one, other| one.lsn == other.lsn).rev() {
        for seen in group.iter().copied() {
            if let Some(later) = first_answer.filter(|later| later.replied < seen.sent) {
                wrong.push(format!(
                    "LSN {} was answered at {} before LSN {} was sent at {}",
                    later.lsn, later.replied, seen.lsn, seen.sent
                ));
            }
        }
        for seen in group.iter().copied() {
            if first_answer.is_none_or(|first| seen.replied < first.replied) {
                first_answer = Some(seen);
            }
        }
    }
    // A question must show every command answered before it was asked, also where that was the next one.
    wrong.truncate(FINDINGS_MAX);
    wrong
}

/// Whether the answer to an event leaves no trace in the order.
pub fn leaves_no_trace(act: &Act, code: Code) -> bool {
    matches!(act, Act::Event(_)) && code.leaves_no_trace()
}

/// Whether an answer has its place in the order: refusals at the door have none.
pub fn is_ordered(code: Code) -> bool {
    !matches!(
        code,
        Code::Malformed
            | Code::Unauthenticated
            | Code::Forbidden
            | Code::Overloaded
            | Code::ShuttingDown
            | Code::KeyConflict
            | Code::KeyTooOld
            | Code::ClockAhead
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(lsn: u64, sent: u64, replied: u64) -> Seen {
        Seen { sent, replied, lsn, what: What::Question { channel: 0, told: Vec::new() } }
    }

    #[test]
    fn a_question_that_misses_what_was_answered_before_is_found() {
        let stale = [question(5, 30, 40), question(6, 10, 20)];
        assert_eq!(real_time(&stale).len(), 1);
        let fresh = [question(5, 15, 40), question(6, 10, 20)];
        assert_eq!(real_time(&fresh), Vec::<String>::new());
    }
}
