//! What waits for one stream's consumer.

use super::error::Error;
use std::collections::VecDeque;
use std::task::{ready, Context, Poll, Waker};

/// A queue and its one consumer. The limits are its owner's business, who knows what it means to
/// lose something.
pub(crate) struct Inbox<T> {
    items: VecDeque<T>,
    count: usize,
    bytes: usize,
    waker: Option<Waker>,
    /// Nothing more comes; and why, if that is an error.
    end: Option<Option<Error>>,
}

/// What an item counts for.
pub(crate) trait Size {
    fn bytes(&self) -> usize;

    /// How many it is.
    fn count(&self) -> usize {
        1
    }

    /// Takes the first out of one that is several.
    fn split_first(&mut self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

impl<T: Size> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self {
            items: VecDeque::new(),
            count: 0,
            bytes: 0,
            waker: None,
            end: None,
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        self.bytes += item.bytes();
        self.count += item.count();
        self.items.push_back(item);
        self.wake();
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes();
        self.count -= item.count();
        Some(item)
    }

    /// The first item, or the first of one that is several.
    pub(crate) fn pop_first(&mut self) -> Option<T> {
        let Some(first) = self.items.front_mut().and_then(T::split_first) else {
            return self.pop();
        };
        self.bytes -= first.bytes();
        self.count -= first.count();
        Some(first)
    }

    /// How many wait, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.count = 0;
        self.bytes = 0;
    }

    /// Keeps what `keep` says.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
        self.count = self.items.iter().map(Size::count).sum();
        self.bytes = self.items.iter().map(Size::bytes).sum();
    }

    #[inline]
    pub(crate) fn is_beyond(&self, items: usize, bytes: usize) -> bool {
        self.count > items || self.bytes > bytes && self.count > 1
    }

    #[inline]
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The first end is the one that is told.
    pub(crate) fn finish(&mut self, error: Option<Error>) {
        self.end.get_or_insert(error);
        self.wake();
    }

    pub(crate) fn error(&self) -> Option<Error> {
        self.end.clone().flatten()
    }

    /// The next item; `None` when all was taken and nothing more comes. A consumer that always finds
    /// something lets others run now and then all the same.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let budget = ready!(tokio::task::coop::poll_proceed(context));
        let item = ready!(self.poll_whole(context));
        budget.made_progress();
        Poll::Ready(item)
    }

    /// As [`poll`](Self::poll), for a consumer that sees to it itself that others run.
    pub(crate) fn poll_whole(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        let item = self.pop();
        self.or_wait(item, context)
    }

    /// As [`poll_whole`](Self::poll_whole), and of an item that is several, the first.
    pub(crate) fn poll_first(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        let item = self.pop_first();
        self.or_wait(item, context)
    }

    fn or_wait(&mut self, item: Option<T>, context: &Context<'_>) -> Poll<Option<T>> {
        if item.is_none() && self.end.is_none() {
            self.wait(context);
            return Poll::Pending;
        }
        Poll::Ready(item)
    }

    pub(crate) fn wait(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}
