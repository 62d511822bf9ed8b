//! Keeps one worker for each webhook of the catalogue, and none for others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use stockline_core::catalogue::{Definition, EntryKind};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::worker::{Worker, blocking, stopped};
use crate::engine::Engine;

/// A worker, and what it was made from.
struct Kept {
    definition: Arc<Definition>,
    stop: watch::Sender<bool>,
    work: JoinHandle<()>,
}

impl Kept {
    fn start(engine: &Engine, definition: Arc<Definition>) -> Kept {
        let (stop, stopping) = watch::channel(false);
        let worker = Worker::new(engine.clone(), Arc::clone(&definition));
        Kept { definition, stop, work: tokio::spawn(worker.run(stopping)) }
    }
}

/// Ends workers, and waits until they have written how far they are.
async fn end(workers: Vec<Kept>) {
    workers.iter().for_each(|kept| _ = kept.stop.send(true));
    for kept in workers {
        let _ = kept.work.await;
    }
}

/// Sends what happens to whom the catalogue says, until it is told to stop.
pub(in super::super) async fn run(engine: Engine, mut stop: watch::Receiver<bool>) {
    let mut changed = engine.names().webhooks();
    let mut workers: HashMap<String, Kept> = HashMap::new();
    loop {
        changed.borrow_and_update();
        let entries = engine.names().entries(EntryKind::Webhook);
        let mut wanted: HashMap<String, Arc<Definition>> =
            entries.into_iter().map(|entry| (entry.name().to_owned(), entry)).collect();
        let ends = |(name, kept): &(&String, &Kept)| wanted.get(*name) != Some(&kept.definition);
        let over: Vec<String> = workers.iter().filter(ends).map(|(name, _)| name.clone()).collect();
        end(over.iter().filter_map(|name| workers.remove(name)).collect()).await;
        let outbox = engine.letters().outbox();
        let known: HashSet<String> = wanted.keys().cloned().collect();
        let forgotten = blocking(move || {
            let mut gone = outbox.webhooks()?;
            gone.retain(|name| !known.contains(name));
            gone.iter().try_for_each(|name| outbox.forget(name))
        });
        // What could not be forgotten is, when the next webhook changes.
        forgotten.await;
        engine.metrics().deliveries.retain(|name, _| wanted.contains_key(name));
        wanted.retain(|name, _| !workers.contains_key(name));
        for (name, definition) in wanted {
            workers.insert(name, Kept::start(&engine, definition));
        }
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { break },
            () = stopped(&mut stop) => break,
        }
    }
    end(workers.into_values().collect()).await;
}
