//! What waits for one stream's consumer.

use super::error::Error;
use std::collections::VecDeque;
use std::task::{ready, Context, Poll, Waker};

/// A queue and its one consumer. The limits are its owner's business, who knows what it means to
/// lose something.
pub(crate) struct Inbox<T> {
    items: VecDeque<T>,
    bytes: usize,
    waker: Option<Waker>,
    /// Nothing more comes; and why, if that is an error.
    end: Option<Option<Error>>,
}

/// What an item counts for.
pub(crate) trait Size {
    fn bytes(&self) -> usize;
}

impl<T: Size> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            waker: None,
            end: None,
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        self.bytes += item.bytes();
        self.items.push_back(item);
        self.wake();
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    /// Keeps what `keep` says.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
        self.bytes = self.items.iter().map(Size::bytes).sum();
    }

    #[inline]
    pub(crate) fn is_beyond(&self, items: usize, bytes: usize) -> bool {
        self.items.len() > items || self.bytes > bytes && self.items.len() > 1
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
        if let Some(item) = self.pop() {
            budget.made_progress();
            return Poll::Ready(Some(item));
        }
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        self.wait(context);
        Poll::Pending
    }

    pub(crate) fn wait(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}
