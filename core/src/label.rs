//! What its owner calls a reservation: texts that are kept with it, and by which it is found.

use std::ops::Deref;
use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};

use crate::catalogue::Catalogue;
use crate::id::{ChannelId, NodeId};
use crate::limit;
use crate::record::{TextReader, TextRec};

/// Which of its texts one is. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum LabelKind {
    /// The idempotency key under which it was made.
    Key = 1,
    /// The order it is for.
    Order = 2,
    /// Whom it is for.
    Customer = 3,
    /// Anything else.
    Reference = 4,
}

impl LabelKind {
    pub fn from_number(number: u8) -> Option<LabelKind> {
        use LabelKind::{Customer, Key, Order, Reference};
        [Key, Order, Customer, Reference].get(number.wrapping_sub(1) as usize).copied()
    }

    pub fn name(self) -> &'static str {
        ["key", "order", "customer", "reference"][self as usize - 1]
    }

    /// Whether the text says which reservation is meant: a customer may have many.
    pub fn names_one(self) -> bool {
        self != LabelKind::Customer
    }
}

/// A text that a reservation has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    pub kind: LabelKind,
    pub text: Box<str>,
}

/// The texts of a reservation, in the order of their kinds, one a kind. Without any it is a null pointer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Labels(Option<Arc<[Label]>>);

impl Labels {
    pub const NONE: Labels = Labels(None);

    /// Those of the texts that are given; or which cannot be taken, and why.
    pub fn of<'a>(
        texts: impl IntoIterator<Item = (LabelKind, &'a str)>,
    ) -> Result<Labels, (LabelKind, &'static str)> {
        let mut all: Vec<Label> = Vec::new();
        for (kind, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            let wrong = |reason| (kind, reason);
            check(text).map_err(wrong)?;
            if all.iter().any(|label| label.kind == kind) {
                return Err(wrong("is given twice"));
            }
            all.push(Label { kind, text: text.into() });
        }
        all.sort_unstable_by_key(|label| label.kind);
        Ok(Labels((!all.is_empty()).then(|| all.into())))
    }

    pub fn get(&self, kind: LabelKind) -> Option<&str> {
        self.iter().find(|label| label.kind == kind).map(|label| &*label.text)
    }
}

impl Deref for Labels {
    type Target = [Label];

    fn deref(&self) -> &[Label] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Why a text cannot be kept.
pub fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > limit::LABEL_BYTES_MAX {
        Err("is longer than 128 bytes")
    } else {
        Catalogue::check_text(text)
    }
}

/// Whose reservations are looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whose {
    All,
    Channel(ChannelId),
    /// Those that claim something at one of these nodes.
    Nodes(Arc<[NodeId]>),
}

/// A text of a reservation in a frame, a record or a row.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct LabelRec {
    /// 1 key, 2 order, 3 customer, 4 reference.
    pub kind: u8,
    pub text: TextRec,
}

/// Appends labels to a list and a text array; answers how many there are.
pub fn put(labels: &Labels, list: &mut Vec<LabelRec>, texts: &mut Vec<u8>) -> u8 {
    for Label { kind, text } in labels.iter() {
        let text = TextRec::put(texts, text);
        list.push(LabelRec { kind: *kind as u8, text });
    }
    labels.len() as u8
}

/// Takes so many labels of a list.
pub fn take<'a>(
    list: &mut impl Iterator<Item = &'a ArchivedLabelRec>,
    count: u8,
    texts: &TextReader<'_>,
) -> Result<Labels, &'static str> {
    if count == 0 {
        return Ok(Labels::default());
    }
    let mut found = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let rec = list.next().ok_or("label_count reaches beyond the labels")?;
        let kind = LabelKind::from_number(rec.kind).ok_or("a label's kind must be 1 to 4")?;
        let text = texts.get(&rec.text)?;
        if text.is_empty() {
            return Err("a label has no text");
        }
        found.push((kind, text));
    }
    Labels::of(found)
        .map_err(|_| "a label is longer than 128 bytes, given twice, or has characters that nobody sees")
}
