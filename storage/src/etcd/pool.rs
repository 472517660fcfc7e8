//! The members of an etcd cluster, and calls that outlive one of them.
//!
//! The channel of `etcd_client` would spread the calls over all members, the
//! dead ones too, and picks those first, since they have nothing to do. So each
//! member has a channel of its own, all calls go to one of them, and whoever
//! sees it fail moves on to the next.

use std::{
    error::Error as StdError,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, Error as EtcdError};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, ConnectError, Status};

use crate::{BoxError, Error};

/// How long a call may take, with every attempt.
const CALL: Duration = Duration::from_secs(10);
/// How long one attempt of a read may take before another member is asked.
const ATTEMPT: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(3);
/// etcd refuses pings that come more often than every 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    members: Vec<Client>,
    current: AtomicUsize,
}

impl Pool {
    /// A pool of these members. It connects when it is first used.
    pub(super) async fn new(
        endpoints: &[String],
        tls: Option<&etcd_client::TlsOptions>,
    ) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::Internal("no etcd endpoint is given".into()));
        }
        let mut options = ConnectOptions::new()
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(true)
            .with_tcp_keepalive(KEEP_ALIVE.0)
            .with_connect_timeout(CONNECT)
            .with_require_leader(true);
        if let Some(tls) = tls {
            options = options.with_tls(tls.clone());
        }
        let mut members = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let client = Client::connect([endpoint], Some(options.clone())).await;
            members.push(client.map_err(|error| Error::Internal(error.into()))?);
        }
        Ok(Self { members, current: AtomicUsize::new(0) })
    }

    pub(super) fn members(&self) -> &[Client] {
        &self.members
    }

    /// The member to talk to now, and its number for [`Pool::leave`].
    pub(super) fn current(&self) -> (usize, Client) {
        let index = self.current.load(Ordering::Relaxed);
        (index, self.members[index].clone())
    }

    /// Moves on from a member that failed, unless somebody else already has.
    pub(super) fn leave(&self, index: usize) {
        let next = (index + 1) % self.members.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A call that may be repeated.
    pub(super) async fn read<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let deadline = Instant::now() + CALL;
        let mut pause = PAUSE;
        loop {
            let (index, client) = self.current();
            let attempt = deadline.min(Instant::now() + ATTEMPT);
            let failure = match timeout_at(attempt, call(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::of(error),
                Err(elapsed) => Failure::Lost(elapsed.into()),
            };
            if !failure.is_transient() {
                return Err(failure.into());
            }
            self.leave(index);
            if Instant::now() + pause >= deadline {
                return Err(Error::Unavailable(failure.into_source()));
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// A call that must not be repeated once it may have reached a member.
    pub(super) async fn write<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let deadline = Instant::now() + CALL;
        let mut pause = PAUSE;
        loop {
            let (index, client) = self.current();
            let failure = match timeout(CALL, call(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::of(error),
                Err(elapsed) => Failure::Lost(elapsed.into()),
            };
            if failure.is_transient() {
                self.leave(index);
            }
            if !matches!(failure, Failure::NotSent(_)) || Instant::now() + pause >= deadline {
                return Err(failure);
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

/// Why a call failed, by what it means.
#[derive(Debug)]
pub(super) enum Failure {
    /// The revision asked for is compacted.
    Compacted(BoxError),
    /// The revision asked for is still to come.
    Future(BoxError),
    TooLarge(BoxError),
    /// The lease of a write has ended: nothing was written.
    LeaseNotFound(BoxError),
    /// No member could be reached: nothing has happened.
    NotSent(BoxError),
    /// The member declined for now: nothing has happened.
    Declined(BoxError),
    /// There is no answer: anything may have happened.
    Lost(BoxError),
    /// It will not work any better the next time.
    Refused(BoxError),
}

impl Failure {
    pub(super) fn of(error: EtcdError) -> Self {
        match error {
            EtcdError::GRpcStatus(status) => Self::of_status(status),
            EtcdError::TransportError(_) | EtcdError::IoError(_) | EtcdError::WatchError(_) => {
                Self::Lost(error.into())
            }
            _ => Self::Refused(error.into()),
        }
    }

    fn of_status(status: Status) -> Self {
        // etcd's codes are ambiguous: tonic, too, says `OutOfRange`, of a
        // message that is too long for it. The texts are part of etcd's API.
        let says = |text: &str| status.message().contains(text);
        if says("required revision has been compacted") {
            Self::Compacted(status.into())
        } else if says("required revision is a future revision") {
            Self::Future(status.into())
        } else if says("request is too large") || says("message larger than max") {
            Self::TooLarge(status.into())
        } else if says("requested lease not found") {
            Self::LeaseNotFound(status.into())
        } else if never_connected(&status) {
            Self::NotSent(status.into())
        } else {
            match status.code() {
                Code::ResourceExhausted => Self::Declined(status.into()),
                Code::Unavailable
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unknown
                | Code::Internal
                | Code::Aborted => Self::Lost(status.into()),
                _ => Self::Refused(status.into()),
            }
        }
    }

    /// Whether another member or a later attempt may do better.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::Declined(_) | Self::Lost(_))
    }

    pub(super) fn into_source(self) -> BoxError {
        match self {
            Self::Compacted(source)
            | Self::Future(source)
            | Self::TooLarge(source)
            | Self::LeaseNotFound(source)
            | Self::NotSent(source)
            | Self::Declined(source)
            | Self::Lost(source)
            | Self::Refused(source) => source,
        }
    }
}

/// The error of a write; of a read, [`Failure::Lost`] is only [`Error::Unavailable`].
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            // etcd tells the revisions only to watches; who needs one asks.
            Failure::Compacted(_) => Self::Compacted { oldest: 0 },
            Failure::Future(_) => Self::FutureRevision { current: 0 },
            Failure::TooLarge(_) => {
                Self::TooLarge { size: crate::MAX_VALUE_SIZE, limit: crate::MAX_VALUE_SIZE }
            }
            Failure::NotSent(source) | Failure::Declined(source) => Self::Unavailable(source),
            Failure::Lost(source) => Self::UnknownOutcome(source),
            Failure::LeaseNotFound(source) | Failure::Refused(source) => Self::Internal(source),
        }
    }
}

fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_by_what_the_caller_can_do() {
        let of = |code, text: &str| Failure::of_status(Status::new(code, text));
        let compacted =
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert!(matches!(compacted, Failure::Compacted(_)));
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert!(matches!(of(Code::OutOfRange, future), Failure::Future(_)));
        let long = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        assert!(matches!(of(Code::OutOfRange, long), Failure::Refused(_)));
        let large = "etcdserver: request is too large";
        assert!(matches!(of(Code::InvalidArgument, large), Failure::TooLarge(_)));
        let larger = "grpc: received message larger than max (3 vs. 2)";
        assert!(matches!(of(Code::ResourceExhausted, larger), Failure::TooLarge(_)));
        let full = "etcdserver: mvcc: database space exceeded";
        assert!(matches!(of(Code::ResourceExhausted, full), Failure::Declined(_)));
        assert!(matches!(of(Code::Unavailable, "etcdserver: leader changed"), Failure::Lost(_)));
        assert!(matches!(of(Code::PermissionDenied, "no"), Failure::Refused(_)));
    }

    #[tokio::test]
    async fn a_write_that_reached_nobody_has_not_happened() {
        // Nobody listens there: the port is bound, and not listening.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let client = Client::connect([address.to_string()], None).await.expect("a lazy client");
        let error = client.clone().put("/a", "x", None).await.expect_err("nobody is there");
        assert!(matches!(Failure::of(error), Failure::NotSent(_)));
    }
}
