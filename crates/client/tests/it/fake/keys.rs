//! Keys, and those who watch them.

use super::State;
use bytes::BytesMut;
use ganger_protocol::kv_fast::{Answer, Command};
use ganger_protocol::pubsub::{GapCause, Position};
use ganger_protocol::watch::{
    ChangeKind, Select, SnapshotBegin, SnapshotEnd, Watch, WatchValue, Watching,
};
use ganger_protocol::{ErrorBody, ErrorCode, Frame, Head, Op};
use std::io::Write;

impl State {
    pub(super) fn command(
        &mut self,
        to: u64,
        id: u32,
        command: Command<'_>,
    ) -> Result<(), ErrorBody> {
        let mut out = BytesMut::new();
        let found;
        let answer = match command {
            Command::Get { key } => {
                found = self.keys.get(key).cloned();
                match &found {
                    Some((value, revision)) => Answer::Value {
                        value,
                        revision: *revision,
                        counter: false,
                    },
                    None => Answer::Nothing,
                }
            }
            Command::Set {
                key,
                value,
                options,
            } => match options.if_absent && self.keys.contains_key(key) {
                true => Answer::Nothing,
                false => Answer::Ok(self.store(key, Some(value))),
            },
            Command::Delete { key, .. } => match self.keys.contains_key(key) {
                true => Answer::Ok(self.store(key, None)),
                false => Answer::Nothing,
            },
            Command::Incr { key, by } => {
                let old = self
                    .keys
                    .get(key)
                    .map(|(value, _)| i64::from_le_bytes(value[..].try_into().unwrap()));
                let sum = old
                    .unwrap_or(0)
                    .checked_add(by)
                    .ok_or(ErrorCode::Overflow)?;
                self.store(key, Some(&sum.to_le_bytes()));
                Answer::Ok(sum.cast_unsigned())
            }
        };
        answer.write(id, &mut out).unwrap();
        if let Some(mut stream) = self.connections.get(&to) {
            let _ = stream.write_all(&out);
        }
        Ok(())
    }

    /// Stores or removes, and tells watchers.
    pub(super) fn store(&mut self, key: &[u8], value: Option<&[u8]>) -> u64 {
        let kind = match value {
            Some(_) => ChangeKind::Set,
            None => ChangeKind::Delete,
        };
        self.log.push((kind, key.to_vec()));
        let seq = self.log_from + self.log.len() as u64 - 1;
        let revision = seq * 2;
        match value {
            Some(value) => drop(self.keys.insert(key.to_vec(), (value.to_vec(), revision))),
            None => drop(self.keys.remove(key)),
        }
        let tail = WatchValue {
            key,
            revision,
            value: value.unwrap_or_default(),
        }
        .to_tail()
        .unwrap();
        let told: Vec<_> = self
            .watches
            .iter()
            .filter(|watch| selects(&watch.2.select, key))
            .map(|watch| (watch.0, watch.1))
            .collect();
        for (connection, id) in told {
            let head = Head::new(Op::Change, id).flags(kind.to_flags()).seq(seq);
            self.frame(connection, &Frame::new(head, tail.clone()));
        }
        revision
    }

    pub(super) fn watch(&mut self, to: u64, id: u32, asked: Watch) {
        let next = self.log_from + self.log.len() as u64;
        let position = Position {
            epoch: self.epoch,
            seq: next,
        };
        match asked.resume {
            Some(from) if from.epoch == self.epoch && from.seq >= self.log_from => {
                self.send(to, id, &Watching { position: from });
                for seq in from.seq..next {
                    let (kind, key) =
                        self.log[usize::try_from(seq - self.log_from).unwrap()].clone();
                    if selects(&asked.select, &key) {
                        let value = self.keys.get(&key).cloned().unwrap_or_default();
                        let tail = WatchValue {
                            key: &key,
                            revision: seq * 2,
                            value: &value.0,
                        }
                        .to_tail()
                        .unwrap();
                        let head = Head::new(Op::Change, id).flags(kind.to_flags()).seq(seq);
                        self.frame(to, &Frame::new(head, tail));
                    }
                }
            }
            resume => {
                let gap = resume.map(|_| GapCause::Expired);
                self.send(to, id, &SnapshotBegin { gap });
                let entries: Vec<_> = self
                    .keys
                    .clone()
                    .into_iter()
                    .filter(|(key, _)| selects(&asked.select, key))
                    .collect();
                for (key, (value, revision)) in &entries {
                    let tail = WatchValue {
                        key,
                        revision: *revision,
                        value,
                    }
                    .to_tail()
                    .unwrap();
                    self.frame(to, &Frame::new(Head::new(Op::SnapshotEntry, id), tail));
                }
                self.send(
                    to,
                    id,
                    &SnapshotEnd {
                        entries: entries.len() as u64,
                        position,
                    },
                );
            }
        }
        self.watches.push((to, id, asked));
    }
}

fn selects(select: &Select, key: &[u8]) -> bool {
    match select {
        Select::Key(wanted) => wanted == key,
        Select::Prefix(prefix) => key.starts_with(prefix),
        _ => false,
    }
}
