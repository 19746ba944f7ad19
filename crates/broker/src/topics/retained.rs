//! The last message of each subject whose publishers want it kept.

use crate::message::Message;
use ganger_protocol::Pattern;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Why a message can't be retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetainError {
    /// Too many subjects have one.
    #[error("{limit} messages are retained: there may be no more")]
    Messages {
        /// The limit.
        limit: usize,
    },
    /// They are too large together.
    #[error("retained messages may have {limit} bytes together")]
    Bytes {
        /// The limit.
        limit: usize,
    },
}

/// Retained messages, by subject.
#[derive(Debug)]
pub struct Retained {
    messages_max: usize,
    bytes_max: usize,
    by_subject: BTreeMap<Box<[u8]>, Arc<Message>>,
    bytes: usize,
}

impl Retained {
    /// Nothing, of so many messages and bytes (as [`Message::cost`] counts them) at most.
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            messages_max,
            bytes_max,
            by_subject: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Keeps a message in place of its subject's last one; without a payload, keeps none. What does
    /// not fit changes nothing.
    pub fn set(&mut self, message: &Arc<Message>) -> Result<(), RetainError> {
        let subject = message.subject();
        let before = self.by_subject.get(subject).map(|old| old.cost());
        let bytes = self.bytes - before.unwrap_or(0);
        if message.tail().payload().is_empty() {
            self.by_subject.remove(subject);
            self.bytes = bytes;
            return Ok(());
        }
        let limit = self.messages_max;
        if before.is_none() && self.by_subject.len() >= limit {
            return Err(RetainError::Messages { limit });
        }
        let limit = self.bytes_max;
        if bytes + message.cost() > limit {
            return Err(RetainError::Bytes { limit });
        }
        self.bytes = bytes + message.cost();
        self.by_subject.insert(subject.into(), Arc::clone(message));
        Ok(())
    }

    /// The retained messages of the subjects a pattern asks for. With wildcards, those that begin
    /// as the pattern does are looked at.
    pub fn matching<'r>(&'r self, pattern: &'r Pattern) -> impl Iterator<Item = &'r Arc<Message>> {
        let text = pattern.as_str();
        let fixed_len = text.find(['*', '>']).unwrap_or(text.len());
        let fixed = &text.as_bytes()[..fixed_len];
        self.by_subject
            .range::<[u8], _>((Bound::Included(fixed), Bound::Unbounded))
            .take_while(move |(subject, _)| subject.starts_with(fixed))
            .filter(|(subject, _)| {
                std::str::from_utf8(subject).is_ok_and(|subject| pattern.matches(subject))
            })
            .map(|(_, message)| message)
    }

    /// Messages kept.
    pub fn len(&self) -> usize {
        self.by_subject.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message::plain(subject.as_bytes(), payload.as_bytes()).unwrap())
    }

    fn found(retained: &Retained, pattern: &str) -> Vec<String> {
        let pattern = pattern.parse().unwrap();
        let subject = |message: &Arc<Message>| String::from_utf8_lossy(message.subject()).into();
        let found = retained.matching(&pattern).map(subject).collect();
        found
    }

    #[test]
    fn the_last_message_of_each_subject_is_found_by_pattern() {
        let mut retained = Retained::new(10, 10_000);
        for subject in ["a.x", "a.y", "a.x.z", "b.x", "ab", "a.y"] {
            retained.set(&message(subject, subject)).unwrap();
        }
        assert_eq!(found(&retained, "a.*"), ["a.x", "a.y"]);
        assert_eq!(found(&retained, "a.>"), ["a.x", "a.x.z", "a.y"]);
        assert_eq!(found(&retained, "*.x"), ["a.x", "b.x"]);
        assert_eq!(found(&retained, "a.x"), ["a.x"]);
        retained.set(&message("a.x", "")).unwrap();
        assert_eq!(found(&retained, "a.>"), ["a.x.z", "a.y"]);
        for subject in ["a.y", "a.x.z", "b.x", "ab", "never"] {
            retained.set(&message(subject, "")).unwrap();
        }
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
    }

    #[test]
    fn one_more_than_allowed_is_refused_and_changes_nothing() {
        let cost = message("a", "1").cost();
        let mut retained = Retained::new(2, 3 * cost);
        retained.set(&message("a", "1")).unwrap();
        retained.set(&message("b", "1")).unwrap();
        let third = retained.set(&message("c", "1"));
        assert_eq!(third, Err(RetainError::Messages { limit: 2 }));
        let large = message("b", &"1".repeat(3 * cost));
        let limit = 3 * cost;
        assert_eq!(retained.set(&large), Err(RetainError::Bytes { limit }));
        assert_eq!((retained.len(), retained.bytes()), (2, 2 * cost));
    }
}
