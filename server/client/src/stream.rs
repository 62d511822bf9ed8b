//! Streaming events: frames fill up and go out while earlier ones wait for their answers, and pushing waits
//! when too many do. Results come back in the order of the events.

use std::collections::VecDeque;

use stockline_core::record::EventRec;
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
    filling: Vec<EventRec>,
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
            filling: Vec::with_capacity(batch),
            waiting: VecDeque::new(),
            done: Vec::new(),
        }
    }

    /// Adds an event; waits while too many are unanswered.
    pub async fn push(&mut self, event: EventRec) -> Result<(), ClientError> {
        self.filling.push(event);
        if self.filling.len() >= self.batch {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), ClientError> {
        while self.waiting.len() >= self.in_flight {
            self.await_one().await?;
        }
        let mut events = std::mem::replace(&mut self.filling, Vec::with_capacity(self.batch));
        self.client.fill_issued(&mut events);
        self.waiting.push_back(self.client.begin(FrameType::Events, &Events { events }).await?);
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
        if !self.filling.is_empty() {
            self.send().await?;
        }
        while !self.waiting.is_empty() {
            self.await_one().await?;
        }
        Ok(self.done)
    }
}
