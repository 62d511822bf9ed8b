//! Streaming events: frames fill up and go out while earlier ones wait for their answers, and pushing waits
//! when too many do. Results come back in the order of the events.

use std::collections::VecDeque;

use stockline_core::record::{EventRec, TextRec};
use stockline_core::wire::{Events, FrameType};
use tokio::sync::oneshot;

use crate::client::read_results;
use crate::{Client, ClientError, Outcome};

type Answered = oneshot::Receiver<Result<(FrameType, Vec<u8>), ClientError>>;

/// A stream of events over a client.
pub struct EventStream {
    client: Client,
    batch: usize,
    in_flight: usize,
    filling: Events,
    waiting: VecDeque<Answered>,
    done: Vec<Outcome>,
}

impl EventStream {
    /// Sends `batch` events a frame and lets `in_flight` frames wait for their answers.
    pub fn new(client: Client, batch: usize, in_flight: usize) -> EventStream {
        let batch = batch.clamp(1, stockline_core::limit::FRAME_COMMANDS_MAX);
        EventStream {
            client,
            batch,
            in_flight: in_flight.max(1),
            filling: Events { events: Vec::with_capacity(batch), text: Vec::new() },
            waiting: VecDeque::new(),
            done: Vec::new(),
        }
    }

    /// Adds an event; waits while too many are unanswered.
    pub async fn push(&mut self, event: EventRec) -> Result<(), ClientError> {
        self.push_with(event, "").await
    }

    /// The same of one with a reason.
    pub async fn push_with(&mut self, mut event: EventRec, reason: &str) -> Result<(), ClientError> {
        event.reason = TextRec::put(&mut self.filling.text, reason);
        self.filling.events.push(event);
        if self.filling.events.len() >= self.batch {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), ClientError> {
        while self.waiting.len() >= self.in_flight {
            self.await_one().await?;
        }
        let empty = Events { events: Vec::with_capacity(self.batch), text: Vec::new() };
        let mut filled = std::mem::replace(&mut self.filling, empty);
        self.client.fill_issued(&mut filled.events);
        self.waiting.push_back(self.client.begin(FrameType::Events, &filled).await?);
        Ok(())
    }

    async fn await_one(&mut self) -> Result<(), ClientError> {
        if let Some(answered) = self.waiting.pop_front() {
            let gone = |_| ClientError::Unreachable("the client was stopped".into());
            let (_, archive) = answered.await.map_err(gone)??;
            self.done.extend(read_results(&archive)?);
        }
        Ok(())
    }

    /// Results so far, in the order of the events; each is handed out once.
    pub fn take_results(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.done)
    }

    /// Sends what is left and waits for all answers.
    pub async fn finish(mut self) -> Result<Vec<Outcome>, ClientError> {
        if !self.filling.events.is_empty() {
            self.send().await?;
        }
        while !self.waiting.is_empty() {
            self.await_one().await?;
        }
        Ok(self.done)
    }
}
