//! Which reservation a text means. A UUID is an id. Any other text is a key under which the caller made one, or the key,
//! the order or the reference of one that the caller may see.

use std::collections::{HashMap, HashSet};

use stockline_core::catalogue::Principal;
use stockline_core::command::{Body, Read};
use stockline_core::id::{Key, PrincipalId, ReservationId};
use stockline_core::label::{LabelKind, Whose};
use stockline_core::limit;
use stockline_core::outcome::Code;

use super::call::{Caller, uuid_number};
use super::problem::Problem;
use super::stock::EventSent;
use crate::access;
use crate::event_row::{Called, wrong};

/// Why no reservation is meant.
pub(super) const SEVERAL: &str = "is what several reservations are called: name the one by its id";

impl Caller {
    /// The reservation that a path names: by any text, or by one of a kind.
    pub(super) async fn reservation(
        &self,
        text: &str,
        kind: Option<LabelKind>,
    ) -> Result<ReservationId, Problem> {
        if let Some(id) = uuid_number(text) {
            return Ok(ReservationId(id));
        }
        let unknown = || Problem::of(Code::UnknownReservation, format!("{text:?} is no reservation's id"));
        if text.is_empty() || text.len() > limit::EVENT_TEXT_BYTES_MAX {
            return Err(unknown());
        }
        let whose = access::whose(&self.principal);
        let found = self.called(&[text], (whose, kind), self.principal.id).await?;
        match found[text] {
            (id, false) => Ok(id),
            (_, true) => Err(Problem::invalid(wrong("reservation", text, SEVERAL))),
        }
    }

    /// What texts that are no UUIDs mean to somebody, and whether that is said of several. What none or several are called
    /// is an id that nobody else can take.
    async fn called(
        &self,
        texts: &[&str],
        (whose, kind): (Whose, Option<LabelKind>),
        to: PrincipalId,
    ) -> Result<HashMap<String, (ReservationId, bool)>, Problem> {
        let mut all = HashMap::with_capacity(texts.len());
        for texts in texts.chunks(limit::FIND_MAX) {
            let find = |text: &&str| {
                let read = Read::Find { kind, text: (*text).into(), whose: whose.clone() };
                self.command(Key(0), Body::Read(read), &[])
            };
            let reply = self.submit_as(to, texts.iter().map(find).collect(), Vec::new()).await?;
            for (text, found) in texts.iter().zip(reply.found) {
                let own = ReservationId(self.id_of(to, text));
                let meant = match found[..] {
                    [] => (own, false),
                    [only] => (only, false),
                    _ => (own, !found.contains(&own)),
                };
                all.insert((*text).to_owned(), meant);
            }
        }
        Ok(all)
    }

    /// Puts ids in place of the texts by which events name reservations, as `sender` means them.
    pub(super) async fn name_reservations(
        &self,
        sender: &Principal,
        sent: &mut [EventSent],
    ) -> Result<(), Problem> {
        let text = |sent: &EventSent| match &sent.row {
            Ok((_, row)) => row.called().map(str::to_owned),
            Err(_) => None,
        };
        let texts: HashSet<String> = sent.iter().filter_map(text).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let meant = self.called(&texts, (access::whose(sender), None), sender.id).await?;
        for sent in sent {
            let Some(text) = text(sent) else { continue };
            let Ok((_, row)) = &mut sent.row else { continue };
            let (id, is_ambiguous) = meant[&text];
            (row.reservation, row.is_ambiguous) = (Some(Called::Id(id)), is_ambiguous);
            row.called_so = Some(text.into());
        }
        Ok(())
    }
}
