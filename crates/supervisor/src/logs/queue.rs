//! A queue between who tells and who reads slowly: bounded by weight, and the oldest goes first, so
//! that what was lost can be said at the item that follows.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// A bounded queue for one reader.
pub(crate) struct Queue<T> {
    items: Mutex<Items<T>>,
    arrived: Notify,
    weight_max: usize,
    weigh: fn(&T) -> usize,
    /// Told with each item that is lost, and the one that is now the oldest.
    lost: fn(&T, &mut T),
}

struct Items<T> {
    queue: VecDeque<T>,
    weight: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new(weight_max: usize, weigh: fn(&T) -> usize, lost: fn(&T, &mut T)) -> Self {
        Self {
            items: Mutex::new(Items {
                queue: VecDeque::new(),
                weight: 0,
            }),
            arrived: Notify::new(),
            weight_max,
            weigh,
            lost,
        }
    }

    /// Takes it in; the oldest go if there is no room. The newest always stays.
    pub(crate) fn push(&self, item: T) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.weight += (self.weigh)(&item);
        items.queue.push_back(item);
        while items.weight > self.weight_max && items.queue.len() > 1 {
            let Some(oldest) = items.queue.pop_front() else {
                break;
            };
            items.weight -= (self.weigh)(&oldest);
            if let Some(next) = items.queue.front_mut() {
                (self.lost)(&oldest, next);
            }
        }
        drop(items);
        self.arrived.notify_one();
    }

    /// The oldest, if there is one.
    pub(crate) fn try_pop(&self) -> Option<T> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = items.queue.pop_front()?;
        items.weight -= (self.weigh)(&oldest);
        Some(oldest)
    }

    /// The oldest, as soon as there is one.
    pub(crate) async fn pop(&self) -> T {
        loop {
            if let Some(item) = self.try_pop() {
                return item;
            }
            self.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_lost_is_said_at_the_item_that_follows() {
        let queue: Queue<(usize, u64)> = Queue::new(10, |item| item.0, |_, next| next.1 += 1);
        for _ in 0..5 {
            queue.push((5, 0));
        }
        // Two fit; three were lost, one after the other, before the first of them.
        let first = queue.pop().await;
        assert!(first.1 >= 1);
        assert_eq!(queue.pop().await, (5, 0));
        assert!(queue.try_pop().is_none());
        queue.push((1000, 0));
        assert_eq!(queue.pop().await.0, 1000, "the newest stays, however heavy");
    }
}
