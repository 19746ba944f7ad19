//! Subscriptions.

use super::error::Error;
use super::link::Link;
use super::message::{Content, Event, Message};
use super::route::{is_reference, Item, Messages, Wanted};
use super::run::Run;
use super::{Client, Owner};
use futures_core::Stream;
use ganger_protocol::pubsub::{Gap, GapCause, Policy, Position, Start, Subscribe};
use ganger_protocol::{Frame, Group, Head, Op, Pattern};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

/// Messages that a member of a queue group takes before it acknowledges, unless said otherwise.
const UNACKNOWLEDGED: u32 = 1024;

/// What a subscription is like, beyond its pattern.
///
/// ```
/// use ganger_client::{Policy, Start, SubscribeOptions};
///
/// // The last ten, then whatever comes; publishers wait for us up to 50 ms.
/// let options = SubscribeOptions::new()
///     .start(Start::LastN(10))
///     .policy(Policy::Block { ms: 50 });
/// ```
#[derive(Debug, Clone, Default)]
pub struct SubscribeOptions {
    wanted: Subscribe,
    manual_ack: bool,
}

impl SubscribeOptions {
    /// From now on; the oldest messages are lost when it is too slow.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where it begins.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.wanted.start = start;
        self
    }

    /// What happens when it is too slow.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.wanted.policy = policy;
        self
    }

    /// How many messages it may be behind in the broker.
    #[must_use]
    pub fn max_lag(mut self, messages: u64) -> Self {
        self.wanted.max_lag = Some(messages);
        self
    }

    /// Nothing that this client published.
    #[must_use]
    pub fn no_echo(mut self) -> Self {
        self.wanted.no_echo = true;
        self
    }

    /// As a member of a queue group: each message goes to one member.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.wanted.group = Some(name.into());
        self
    }

    /// In a group: what this member has not acknowledged when it dies goes to another.
    #[must_use]
    pub fn redeliver(mut self) -> Self {
        self.wanted.redeliver = true;
        self
    }

    /// In a group: how many messages it takes before it acknowledges one; 1024 unless said otherwise.
    #[must_use]
    pub fn max_unacknowledged(mut self, messages: u32) -> Self {
        self.wanted.max_unacknowledged = Some(messages);
        self
    }

    /// In a group: messages are acknowledged by [`Subscription::ack`] only. Otherwise one is when
    /// the next is asked for.
    #[must_use]
    pub fn manual_ack(mut self) -> Self {
        self.manual_ack = true;
        self
    }
}

/// Messages of a pattern: a [`Stream`] of [`Event`]s.
///
/// It outlives lost connections: it goes on where it was, and what could not be had any more is told
/// as [`Event::Gap`]. It ends when the broker ends it or the client is closed; [`error`](Self::error)
/// says why. Dropping it unsubscribes.
pub struct Subscription {
    owner: Arc<Owner>,
    route: Arc<Messages>,
    id: u32,
    acks: bool,
    /// Messages that were taken out of the route together, and the connection they came by.
    run: Run,
    generation: u64,
    /// Handed out, and done with when the next is asked for.
    current: Option<(u64, u64)>,
}

/// # Subscribing
impl Client {
    /// Subscribes to all subjects that match a pattern, from now on.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use ganger_client::Event;
    ///
    /// let mut orders = client.subscribe("orders.*").await?;
    /// while let Some(event) = orders.next().await {
    ///     match event {
    ///         Event::Message(order) => println!("{}: {:?}", order.subject(), order.payload()),
    ///         Event::Gap(gap) => println!("missed {:?}", gap.count),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(&self, pattern: &str) -> Result<Subscription, Error> {
        self.subscribe_with(pattern, SubscribeOptions::new()).await
    }

    /// Subscribes with other than the default options.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use ganger_client::{Policy, Start, SubscribeOptions};
    ///
    /// // What every sensor said last, then only the newest of each.
    /// let options = SubscribeOptions::new().start(Start::Last).policy(Policy::Conflate);
    /// let mut sensors = client.subscribe_with("sensors.>", options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe_with(
        &self,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        let mut wanted = options.wanted;
        pattern.clone_into(&mut wanted.pattern);
        pattern.parse::<Pattern>()?;
        if let Some(group) = &wanted.group {
            group.parse::<Group>()?;
            wanted.max_unacknowledged.get_or_insert(UNACKNOWLEDGED);
        }
        let acks = wanted.group.is_some() && !options.manual_ack;
        self.listen(Wanted::Messages(wanted), acks).await
    }

    /// Subscribes as a member of a queue group: each message goes to the member that has the fewest
    /// in hand. A message counts as done when the next one is asked for.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let mut jobs = client.queue_subscribe("jobs.resize", "resizers").await?;
    /// while let Some(job) = jobs.next_message().await {
    ///     println!("resizing {:?}", job.payload());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn queue_subscribe(&self, pattern: &str, group: &str) -> Result<Subscription, Error> {
        let options = SubscribeOptions::new().group(group);
        self.subscribe_with(pattern, options).await
    }

    pub(crate) async fn listen(&self, wanted: Wanted, acks: bool) -> Result<Subscription, Error> {
        let (route, begins) = Messages::new(wanted, &self.link().settings);
        let route = Arc::new(route);
        let id = self.link().open(Arc::clone(&route) as _).await?;
        // From here on, dropping the future unsubscribes.
        let subscription = Subscription {
            owner: Arc::clone(&self.owner),
            route,
            id,
            acks,
            run: Run::default(),
            generation: 0,
            current: None,
        };
        self.begun(begins).await?;
        Ok(subscription)
    }
}

impl Subscription {
    /// The next event; `None` when it is over. The future can be dropped at any time: nothing is
    /// lost.
    ///
    /// ```no_run
    /// # async fn run(mut orders: ganger_client::Subscription) {
    /// while let Some(event) = orders.next().await {
    ///     println!("{event:?}");
    /// }
    /// println!("over: {:?}", orders.error());
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// The next message; gaps are passed over.
    pub async fn next_message(&mut self) -> Option<Message> {
        loop {
            if let Event::Message(message) = self.next().await? {
                return Some(message);
            }
        }
    }

    /// Why it is over, if that is an error.
    pub fn error(&self) -> Option<Error> {
        self.route.lock().inbox.error()
    }

    /// Behind all that was received so far: where another subscription could go on with
    /// [`Start::From`].
    pub fn position(&self) -> Option<Position> {
        self.route.position()
    }

    /// Acknowledges a message of a queue group; for those with
    /// [`manual_ack`](SubscribeOptions::manual_ack). It is without effect on a message that came
    /// before the connection was lost: that one has gone to another member.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use ganger_client::SubscribeOptions;
    ///
    /// let options = SubscribeOptions::new().group("billing").redeliver().manual_ack();
    /// let mut invoices = client.subscribe_with("invoices", options).await?;
    /// while let Some(invoice) = invoices.next_message().await {
    ///     // ... store it; if we die before this, another member gets it.
    ///     invoices.ack(&invoice);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn ack(&self, message: &Message) {
        self.acker().ack(message);
    }

    /// Acknowledges messages elsewhere, in another task for example.
    pub fn acker(&self) -> Acker {
        Acker {
            owner: Arc::clone(&self.owner),
            id: self.id,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// The next frame or gap, as it came.
    #[inline]
    pub(crate) fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        // One that always finds something lets others run now and then all the same.
        let budget = ready!(tokio::task::coop::poll_proceed(context));
        if let Some(frame) = self.run.pop() {
            budget.made_progress();
            return Poll::Ready(Some(Item::Frame(frame, self.generation)));
        }
        let item = ready!(self.poll_route(context));
        budget.made_progress();
        let Some(Item::Run(run, generation)) = item else {
            return Poll::Ready(item);
        };
        (self.run, self.generation) = (run, generation);
        let first = self.run.pop();
        Poll::Ready(first.map(|frame| Item::Frame(frame, generation)))
    }

    fn poll_route(&mut self, context: &Context<'_>) -> Poll<Option<Item>> {
        let mut inner = self.route.lock();
        if let Some(gap) = inner.lost.take() {
            return Poll::Ready(Some(Item::Gap(gap)));
        }
        match self.route.may_take_back() {
            true => inner.inbox.poll_first(context),
            false => inner.inbox.poll_whole(context),
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some((seq, generation)) = self.current.take() {
            let head = Head::new(Op::Ack, self.id).seq(seq);
            self.owner.link.send_bare(generation, head);
        }
        let event = match ready!(self.poll_item(context)) {
            None => return Poll::Ready(None),
            Some(Item::Gap(gap)) => Event::Gap(gap),
            // A run was taken apart.
            Some(Item::Run(..)) => return Poll::Ready(None),
            Some(Item::Frame(frame, generation)) => {
                if self.acks {
                    self.current = Some((frame.head.seq, generation));
                }
                event(&self.owner.link, frame, generation)
            }
        };
        Poll::Ready(Some(event))
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.get_mut().poll_event(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.owner.link.cancel(self.id);
    }
}

/// Acknowledges messages of one [`Subscription`]: see [`Subscription::ack`].
#[derive(Clone)]
pub struct Acker {
    owner: Arc<Owner>,
    id: u32,
}

impl Acker {
    /// As [`Subscription::ack`].
    pub fn ack(&self, message: &Message) {
        let head = Head::new(Op::Ack, self.id).seq(message.seq);
        self.owner.link.send_bare(message.generation, head);
    }
}

/// The message of a frame; or a gap, if its payload is not there any more.
fn event(link: &Link, frame: Frame, generation: u64) -> Event {
    let (flags, seq) = (frame.head.flags, frame.head.seq);
    match content(link, frame) {
        Some(content) => Event::Message(Message {
            content,
            flags,
            seq,
            generation,
        }),
        None => Event::Gap(Gap {
            from: seq,
            to: seq,
            count: Some(1),
            cause: GapCause::Expired,
        }),
    }
}

/// Subject, headers and payload of a frame; `None` if its payload is not there any more.
pub(crate) fn content(link: &Link, frame: Frame) -> Option<Content> {
    if !is_reference(&frame) {
        return Some(Content::inline(frame.tail));
    }
    let payload = link.mapped()?.load(frame.payload())?;
    Some(Content::loaded(frame.tail, payload))
}
