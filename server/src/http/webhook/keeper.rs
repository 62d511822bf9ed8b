//! Keeps one worker for each webhook of the catalogue, and none for others.

use std::collections::HashMap;
use std::sync::Arc;

use stockline_core::catalogue::{Definition, EntryKind};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::send::{self, Sender};
use super::worker::{Worker, blocking};
use crate::engine::Engine;

/// A worker, and what it was made from.
struct Kept {
    definition: Arc<Definition>,
    stop: watch::Sender<bool>,
    work: JoinHandle<()>,
}

impl Kept {
    fn start(engine: &Engine, sender: &Sender, definition: Arc<Definition>) -> Kept {
        let (stop, stopping) = watch::channel(false);
        let worker = Worker::new(engine.clone(), sender.clone(), Arc::clone(&definition));
        Kept { definition, stop, work: tokio::spawn(worker.run(stopping)) }
    }

    /// Waits until it has written how far it is.
    async fn end(self) {
        let _ = self.stop.send(true);
        let _ = self.work.await;
    }
}

/// Sends what happens to whom the catalogue says, until it is told to stop.
pub(in super::super) async fn run(engine: Engine, mut stop: watch::Receiver<bool>) {
    let sender = send::sender();
    let mut changed = engine.names().webhooks();
    let mut workers: HashMap<String, Kept> = HashMap::new();
    loop {
        changed.borrow_and_update();
        let entries = engine.names().entries(EntryKind::Webhook);
        let mut wanted: HashMap<String, Arc<Definition>> =
            entries.into_iter().map(|entry| (entry.name().to_owned(), entry)).collect();
        let ends = |(name, kept): &(&String, &Kept)| wanted.get(*name) != Some(&kept.definition);
        let over: Vec<String> = workers.iter().filter(ends).map(|(name, _)| name.clone()).collect();
        for name in over {
            if let Some(kept) = workers.remove(&name) {
                kept.end().await;
            }
        }
        let outbox = engine.letters().outbox();
        let known: Vec<String> = wanted.keys().cloned().collect();
        let forgotten = blocking(move || {
            let mut gone = outbox.webhooks()?;
            gone.retain(|name| !known.contains(name));
            gone.iter().try_for_each(|name| outbox.forget(name))?;
            Ok(gone)
        });
        for name in forgotten.await.unwrap_or_default() {
            engine.metrics().deliveries.remove(&name);
        }
        wanted.retain(|name, _| !workers.contains_key(name));
        for (name, definition) in wanted {
            workers.insert(name, Kept::start(&engine, &sender, definition));
        }
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { break },
            () = async { let _ = stop.wait_for(|stop| *stop).await; } => break,
        }
    }
    for (_, kept) in workers {
        kept.end().await;
    }
}
