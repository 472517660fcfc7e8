//! A watch that survives its connection.
//!
//! A task reads etcd's stream and puts the batches into a bounded queue. It
//! never waits for the reader while a stream is open: the streams of one
//! connection share its flow control, so one that nobody reads would stop all
//! of them. When the queue is full it lets the stream go, and opens another from
//! the next revision once the reader has caught up; just so after a broken
//! connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use futures::stream;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Keys, MESSAGE,
    pool::{Failure, Pool},
    revision,
};
use crate::{Batch, Entry, Error, Event, EventKind, Revision, Watch};

/// How much a reader may lag behind before its stream is let go.
const QUEUE: usize = 256;
const QUEUE_BYTES: usize = 32 << 20;

const OPEN: Duration = Duration::from_secs(10);
/// A stream that is silent for so long is asked whether it is alive …
const SILENCE: Duration = Duration::from_secs(10);
/// … and is given up after so long. A member that still searches a long
/// history does not answer, so this is generous; a dead connection is found
/// sooner by its pings.
const DEAD: Duration = Duration::from_secs(60);
/// etcd leaves a request for progress unanswered while the watch lags behind,
/// so it is repeated. Kubernetes asks as often.
const REPEAT: Duration = Duration::from_millis(100);

const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What the watches of a store are asked to report.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Counts the requests.
    pub(super) number: u64,
    /// The revision to be reached.
    pub(super) revision: Revision,
}

struct Pump {
    pool: Arc<Pool>,
    keys: Keys,
    prefix: String,
    next: Revision,
    progress: watch::Receiver<Progress>,
    /// The last request for progress that has been answered.
    answered: u64,
    /// Whether etcd's progress may be believed; if not it is only a sign of life.
    reliable: bool,
    queue: mpsc::Sender<Result<Batch, Error>>,
    queued_bytes: Arc<AtomicUsize>,
    pause: Duration,
}

/// Why a stream ended.
enum End {
    /// The reader is gone.
    Closed,
    /// The reader is slow.
    Full,
    /// The connection broke, or the member can't go on.
    Lost(Failure),
    /// There is no way to go on.
    Failed(Error),
}

pub(super) fn open(
    pool: Arc<Pool>,
    keys: Keys,
    prefix: &str,
    from: Revision,
    progress: watch::Receiver<Progress>,
    reliable: bool,
) -> Watch {
    let (queue, batches) = mpsc::channel(QUEUE);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let answered = progress.borrow().number;
    let pump = Pump {
        pool,
        keys,
        prefix: prefix.to_owned(),
        next: from,
        answered,
        progress,
        reliable,
        queue,
        queued_bytes: queued_bytes.clone(),
        pause: PAUSE,
    };
    let task = AbortOnDropHandle::new(tokio::spawn(pump.run()));
    let state = (batches, queued_bytes, task);
    Watch::new(stream::unfold(state, |(mut batches, queued_bytes, task)| async move {
        let item = batches.recv().await?;
        if let Ok(batch) = &item {
            queued_bytes.fetch_sub(size(batch), Ordering::Relaxed);
        }
        Some((item, (batches, queued_bytes, task)))
    }))
}

fn size(batch: &Batch) -> usize {
    let of = |event: &Event| {
        event.entry.value.len() + event.previous.as_ref().map_or(0, |entry| entry.value.len())
    };
    batch.events.iter().map(of).sum()
}

impl Pump {
    async fn run(mut self) {
        loop {
            let (index, client) = self.pool.current();
            match self.follow(client).await {
                End::Closed => return,
                End::Full => {
                    if self.queue.reserve_many(self.queue.max_capacity()).await.is_err() {
                        return;
                    }
                }
                End::Failed(error) => {
                    let _ = self.queue.send(Err(error)).await;
                    return;
                }
                End::Lost(failure) => {
                    tracing::debug!(
                        prefix = self.prefix,
                        next = self.next,
                        error = %failure.into_source(),
                        "Lost a watch, will resume"
                    );
                    self.pool.leave(index);
                    tokio::select! {
                        () = sleep(self.pause) => {}
                        () = self.queue.closed() => return,
                    }
                    self.pause = LONGEST_PAUSE.min(self.pause * 2);
                }
            }
        }
    }

    /// Reads one stream to its end.
    async fn follow(&mut self, client: etcd_client::Client) -> End {
        let mut stream = match self.start(client).await {
            Ok(stream) => stream,
            Err(failure) if failure.is_transient() => return End::Lost(failure),
            Err(failure) => return End::Failed(failure.into()),
        };
        let mut heard = Instant::now();
        loop {
            let wanted = *self.progress.borrow_and_update();
            let tick = if wanted.number == self.answered { SILENCE } else { REPEAT };
            // All branches may be dropped half way: `message` keeps what it
            // has read of a message in the stream.
            let ask = tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(response)) => {
                        heard = Instant::now();
                        self.pause = PAUSE;
                        if let Err(end) = self.take(&response, wanted) {
                            return end;
                        }
                        false
                    }
                    Ok(None) => return End::Lost(Failure::Lost("the stream has ended".into())),
                    Err(error) => return match Failure::of(error) {
                        failure if failure.is_transient() => End::Lost(failure),
                        failure => End::Failed(failure.into()),
                    },
                },
                changed = self.progress.changed() => match changed {
                    Ok(()) => true,
                    // The store is gone.
                    Err(_) => return End::Closed,
                },
                () = sleep(tick) => true,
                () = self.queue.closed() => return End::Closed,
            };
            if heard.elapsed() > DEAD {
                return End::Lost(Failure::Lost("the stream is silent".into()));
            }
            if ask {
                match timeout(OPEN, stream.request_progress()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return End::Lost(Failure::Lost(error.into())),
                    Err(elapsed) => return End::Lost(Failure::Lost(elapsed.into())),
                }
            }
        }
    }

    async fn start(&self, client: etcd_client::Client) -> Result<WatchStream, Failure> {
        let (start, end) = self.keys.bounds(&self.prefix, None);
        // No fragments: the client can't see which of them is the last of a
        // revision, and a watch may resume only between two revisions.
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(self.next as i64)
            .with_prev_key()
            .with_progress_notify();
        let mut client = client.watch_client().max_decoding_message_size(MESSAGE);
        match timeout(OPEN, client.watch(start, Some(options))).await {
            Ok(stream) => stream.map_err(Failure::of),
            Err(elapsed) => Err(Failure::Lost(elapsed.into())),
        }
    }

    fn take(&mut self, response: &WatchResponse, wanted: Progress) -> Result<(), End> {
        if response.compact_revision() > 0 {
            let oldest = response.compact_revision() as Revision;
            return Err(End::Failed(Error::Compacted { oldest }));
        }
        if response.canceled() {
            let reason = response.cancel_reason().to_owned();
            return Err(if reason.contains("permission denied") {
                End::Failed(Error::Internal(reason.into()))
            } else {
                End::Lost(Failure::Lost(reason.into()))
            });
        }
        if response.created() {
            return Ok(());
        }
        let mut events = Vec::with_capacity(response.events().len());
        for event in response.events() {
            let event = self.event(event).map_err(End::Failed)?;
            if event.entry.mod_revision >= self.next {
                events.push(event);
            }
        }
        // Of a batch with events, etcd's header may be ahead of what it delivers.
        let revision = match events.last() {
            Some(event) => event.entry.mod_revision,
            None if !response.events().is_empty() || !self.reliable => return Ok(()),
            None => revision(response.header()),
        };
        let news = revision >= self.next;
        let answers = wanted.number != self.answered && revision >= wanted.revision;
        if !news && !answers {
            return Ok(());
        }
        self.deliver(Batch { revision, events })?;
        self.next = self.next.max(revision + 1);
        if answers {
            self.answered = wanted.number;
        }
        Ok(())
    }

    fn deliver(&mut self, batch: Batch) -> Result<(), End> {
        let size = size(&batch);
        let queued = self.queued_bytes.load(Ordering::Relaxed);
        if queued > 0 && queued + size > QUEUE_BYTES {
            return Err(End::Full);
        }
        self.queued_bytes.fetch_add(size, Ordering::Relaxed);
        self.queue.try_send(Ok(batch)).map_err(|error| {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => End::Full,
                mpsc::error::TrySendError::Closed(_) => End::Closed,
            }
        })
    }

    fn event(&self, event: &etcd_client::Event) -> Result<Event, Error> {
        let entry = |entry: &etcd_client::KeyValue| {
            Ok::<_, Error>(Entry {
                key: self.keys.strip(entry.key())?,
                value: Bytes::copy_from_slice(entry.value()),
                create_revision: entry.create_revision() as Revision,
                mod_revision: entry.mod_revision() as Revision,
            })
        };
        let now = event.kv().ok_or_else(|| Error::Internal("an event has no key".into()))?;
        Ok(Event {
            kind: match event.event_type() {
                EventType::Put => EventKind::Put,
                EventType::Delete => EventKind::Delete,
            },
            entry: entry(now)?,
            previous: event.prev_kv().map(entry).transpose()?,
        })
    }
}
