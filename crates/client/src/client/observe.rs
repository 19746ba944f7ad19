//! Who holds a lease.

use super::error::Error;
use super::link::{control, Session};
use super::table::{refusal, Next, Route};
use super::{Client, Owner};
use bytes::BytesMut;
use futures_core::Stream;
use ganger_protocol::hello::Ended;
use ganger_protocol::lease::{Holder, LeaseEvent, LeaseRequest};
use ganger_protocol::{Frame, Group, Op};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::oneshot;

/// Who holds a lease, now and after each change: a [`Stream`]. Only the newest state waits to be
/// taken. It outlives lost connections; dropping it ends it.
pub struct Holders {
    owner: Arc<Owner>,
    route: Arc<Observing>,
    id: u32,
}

/// # Observing leases
impl Client {
    /// Tells who leads, now and after each change; the leader is whoever [`elect`](Self::elect) gave
    /// the lead.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let mut leaders = client.observe_leader("scheduler").await?;
    /// while let Some(leaders) = leaders.next().await {
    ///     match leaders.first() {
    ///         Some(leader) => println!("ask {}", String::from_utf8_lossy(&leader.value)),
    ///         None => println!("nobody leads"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn observe_leader(&self, name: &str) -> Result<Holders, Error> {
        name.parse::<Group>()?;
        let (begun, begins) = oneshot::channel();
        let route = Arc::new(Observing {
            name: name.to_owned(),
            inner: Mutex::new(Inner {
                newest: None,
                end: None,
                waker: None,
                begun: Some(begun),
            }),
        });
        let id = self.link().open(Arc::clone(&route) as _).await?;
        let holders = Holders {
            owner: Arc::clone(&self.owner),
            route,
            id,
        };
        self.begun(begins).await?;
        Ok(holders)
    }
}

impl Holders {
    /// Who holds it, once that is another state than the last that was returned here; `None` when
    /// it is over. The future can be dropped at any time.
    pub async fn next(&mut self) -> Option<Vec<Holder>> {
        poll_fn(|context| self.poll_newest(context)).await
    }

    /// Why it is over, if that is an error.
    pub fn error(&self) -> Option<Error> {
        self.route.lock().end.clone().flatten()
    }

    fn poll_newest(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<Holder>>> {
        let mut inner = self.route.lock();
        if let Some(newest) = inner.newest.take() {
            return Poll::Ready(Some(newest));
        }
        if inner.end.is_some() {
            return Poll::Ready(None);
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Stream for Holders {
    type Item = Vec<Holder>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<Holder>>> {
        self.get_mut().poll_newest(context)
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.owner.link.cancel(self.id);
    }
}

struct Observing {
    name: String,
    inner: Mutex<Inner>,
}

struct Inner {
    newest: Option<Vec<Holder>>,
    end: Option<Option<Error>>,
    waker: Option<Waker>,
    begun: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Observing {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self, error: Option<Error>) -> Next {
        let inner = &mut *self.lock();
        if let Some(begun) = inner.begun.take() {
            let _ = begun.send(Err(error.clone().unwrap_or(Error::Closed)));
        }
        inner.end.get_or_insert(error);
        inner.wake();
        Next::Over
    }
}

impl Inner {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Route for Observing {
    fn take(&self, _id: u32, frame: Frame, _out: &mut BytesMut) -> Next {
        match frame.head.op {
            Op::LeaseEvent => {
                if let Ok(LeaseEvent::Holders { holders, .. }) = frame.body() {
                    let inner = &mut *self.lock();
                    inner.newest = Some(holders);
                    if let Some(begun) = inner.begun.take() {
                        let _ = begun.send(Ok(()));
                    }
                    inner.wake();
                }
                Next::Goes
            }
            Op::Ended => {
                let error = frame.body::<Ended>().ok().and_then(|ended| ended.error);
                self.over(error.map(Error::from))
            }
            Op::Error => self.over(Some(refusal(&frame))),
            _ => Next::Goes,
        }
    }

    fn resume(&self, id: u32, _session: &Session, out: &mut BytesMut) -> Result<(), Error> {
        let name = self.name.clone();
        control(id, &LeaseRequest::Observe { name }, out)
    }

    fn fail(&self, error: &Error) {
        self.over(Some(error.clone()));
    }
}
