//! Requests that wait for their answers.
//!
//! A request has an end in any case: the answer, the death of its responder, or its deadline. What
//! the caller needs to know about the responder's side (`R`) is kept with the request and given
//! back when it ends, so that the responder's count of open requests can be kept true.

use crate::ids::{ConnectionId, RequestId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A request, as its responder knows it. Never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How many requests may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Of all connections together.
    pub total: usize,
    /// Of one connection.
    pub per_connection: usize,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Its number is in use.
    #[error("request {} is still open", id.0)]
    Duplicate {
        /// The number.
        id: RequestId,
    },
    /// Too many of this connection.
    #[error("this connection has {limit} open requests: there may be no more")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// Too many of all.
    #[error("the broker has {limit} open requests: there may be no more")]
    Full {
        /// The limit.
        limit: usize,
    },
}

/// A request that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended<R> {
    /// Who asked.
    pub requester: ConnectionId,
    /// Under which number.
    pub id: RequestId,
    /// What was kept about the responder.
    pub route: R,
    /// Why it ended.
    pub why: Why,
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was answered: the requester gets the answer.
    Answered,
    /// The responder's connection ended: the requester is told.
    WorkerDied,
    /// The deadline has come: the requester is told.
    Timeout,
    /// The requester's connection ended, or it did not want to wait: nobody is told.
    Cancelled,
}

/// What happened to all requests so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestTotals {
    /// Requests that were passed on.
    pub opened: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests whose responder died.
    pub worker_died: u64,
    /// Requests that came to their deadline.
    pub timed_out: u64,
    /// Requests whose requester went away.
    pub cancelled: u64,
    /// Requests that nobody was there for.
    pub no_responders: u64,
    /// Requests refused because of a limit.
    pub refused: u64,
    /// Answers that came when the request had ended, or from somebody who was not asked.
    pub late: u64,
}

/// The open requests.
#[derive(Debug)]
pub struct Requests<R> {
    limits: RequestLimits,
    open: HashMap<Ticket, Open<R>>,
    by_requester: BTreeMap<(ConnectionId, RequestId), Ticket>,
    by_responder: BTreeSet<(ConnectionId, Ticket)>,
    deadlines: BTreeSet<(u64, Ticket)>,
    per_connection: HashMap<ConnectionId, usize>,
    next: u64,
    totals: RequestTotals,
}

#[derive(Debug)]
struct Open<R> {
    requester: ConnectionId,
    id: RequestId,
    responder: ConnectionId,
    deadline_ms: u64,
    route: R,
}

impl<R> Requests<R> {
    /// Without open requests.
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            by_requester: BTreeMap::new(),
            by_responder: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            per_connection: HashMap::new(),
            next: 0,
            totals: RequestTotals::default(),
        }
    }

    /// Whether this connection may open a request of this number; asked before a responder is
    /// chosen.
    pub fn check(&mut self, requester: ConnectionId, id: RequestId) -> Result<(), RequestError> {
        let RequestLimits {
            total,
            per_connection,
        } = self.limits;
        let theirs = self.per_connection.get(&requester).copied().unwrap_or(0);
        let refused = if self.by_requester.contains_key(&(requester, id)) {
            RequestError::Duplicate { id }
        } else if theirs >= per_connection {
            RequestError::TooMany {
                limit: per_connection,
            }
        } else if self.open.len() >= total {
            RequestError::Full { limit: total }
        } else {
            return Ok(());
        };
        self.totals.refused += 1;
        Err(refused)
    }

    /// Opens a request to a responder.
    pub fn open(
        &mut self,
        requester: ConnectionId,
        id: RequestId,
        responder: ConnectionId,
        deadline_ms: u64,
        route: R,
    ) -> Result<Ticket, RequestError> {
        self.check(requester, id)?;
        self.next += 1;
        let ticket = Ticket(self.next);
        let open = Open {
            requester,
            id,
            responder,
            deadline_ms,
            route,
        };
        self.open.insert(ticket, open);
        self.by_requester.insert((requester, id), ticket);
        self.by_responder.insert((responder, ticket));
        self.deadlines.insert((deadline_ms, ticket));
        *self.per_connection.entry(requester).or_default() += 1;
        self.totals.opened += 1;
        Ok(ticket)
    }

    /// Counts a request that nobody is there for.
    pub fn count_no_responders(&mut self) {
        self.totals.no_responders += 1;
    }

    /// Ends a request with its answer. `None`, and counted, if it has ended or was not this
    /// responder's.
    pub fn answer(&mut self, responder: ConnectionId, ticket: Ticket) -> Option<Ended<R>> {
        if !self.by_responder.contains(&(responder, ticket)) {
            self.totals.late += 1;
            return None;
        }
        self.end(ticket, Why::Answered)
    }

    /// Ends a request whose requester no longer waits.
    pub fn cancel(&mut self, requester: ConnectionId, id: RequestId) -> Option<Ended<R>> {
        let ticket = *self.by_requester.get(&(requester, id))?;
        self.end(ticket, Why::Cancelled)
    }

    /// Ends all requests from and to a connection. Those that it asked itself are cancelled.
    pub fn connection_ended(&mut self, connection: ConnectionId, ended: &mut Vec<Ended<R>>) {
        let asked = (connection, RequestId(0))..=(connection, RequestId(u32::MAX));
        while let Some((_, ticket)) = self.by_requester.range(asked.clone()).next() {
            ended.extend(self.end(*ticket, Why::Cancelled));
        }
        let given = (connection, Ticket(0))..=(connection, Ticket(u64::MAX));
        while let Some((_, ticket)) = self.by_responder.range(given.clone()).next() {
            ended.extend(self.end(*ticket, Why::WorkerDied));
        }
    }

    /// Ends the requests to some of a connection's responders.
    pub fn responder_ended(
        &mut self,
        connection: ConnectionId,
        is_theirs: impl Fn(&R) -> bool,
        ended: &mut Vec<Ended<R>>,
    ) {
        let given = (connection, Ticket(0))..=(connection, Ticket(u64::MAX));
        let tickets = self.by_responder.range(given).map(|(_, ticket)| *ticket);
        let is_theirs =
            |ticket: &Ticket| self.open.get(ticket).is_some_and(|o| is_theirs(&o.route));
        let tickets: Vec<Ticket> = tickets.filter(is_theirs).collect();
        for ticket in tickets {
            ended.extend(self.end(ticket, Why::WorkerDied));
        }
    }

    /// Whether a connection waits for an answer, or somebody for one of it.
    pub fn is_waiting(&self, connection: ConnectionId) -> bool {
        let given = (connection, Ticket(0))..=(connection, Ticket(u64::MAX));
        self.per_connection.contains_key(&connection)
            || self.by_responder.range(given).next().is_some()
    }

    /// Ends the requests whose deadline is now or before.
    pub fn expire(&mut self, now_ms: u64, ended: &mut Vec<Ended<R>>) {
        while let Some((_, ticket)) = self.deadlines.first().filter(|first| first.0 <= now_ms) {
            ended.extend(self.end(*ticket, Why::Timeout));
        }
    }

    /// When [`Requests::expire`] has something to do next.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|first| first.0)
    }

    /// Open requests.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no request is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What happened so far.
    pub fn totals(&self) -> RequestTotals {
        self.totals
    }

    /// Each ticket of an index is open, so this ends one of every index.
    fn end(&mut self, ticket: Ticket, why: Why) -> Option<Ended<R>> {
        let open = self.open.remove(&ticket)?;
        self.by_requester.remove(&(open.requester, open.id));
        self.by_responder.remove(&(open.responder, ticket));
        self.deadlines.remove(&(open.deadline_ms, ticket));
        if let Some(count) = self.per_connection.get_mut(&open.requester) {
            *count -= 1;
            if *count == 0 {
                self.per_connection.remove(&open.requester);
            }
        }
        *match why {
            Why::Answered => &mut self.totals.answered,
            Why::WorkerDied => &mut self.totals.worker_died,
            Why::Timeout => &mut self.totals.timed_out,
            Why::Cancelled => &mut self.totals.cancelled,
        } += 1;
        Some(Ended {
            requester: open.requester,
            id: open.id,
            route: open.route,
            why,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const LIMITS: RequestLimits = RequestLimits {
        total: 5,
        per_connection: 3,
    };

    fn c(number: u64) -> ConnectionId {
        ConnectionId(number)
    }

    #[test]
    fn a_request_ends_once_and_a_late_answer_is_counted() {
        let mut requests = Requests::new(LIMITS);
        let mut ended = Vec::new();
        let ticket = requests.open(c(1), RequestId(7), c(2), 100, "a").unwrap();
        assert_eq!(requests.next_deadline(), Some(100));
        assert_eq!(requests.answer(c(3), ticket), None, "it was not asked");
        requests.expire(99, &mut ended);
        assert_eq!(ended, []);
        requests.expire(100, &mut ended);
        assert_eq!((ended[0].why, ended[0].route), (Why::Timeout, "a"));
        assert_eq!(requests.answer(c(2), ticket), None);
        assert_eq!(requests.totals().late, 2);
        assert_eq!((requests.len(), requests.next_deadline()), (0, None));

        let ticket = requests.open(c(1), RequestId(7), c(2), 100, "b").unwrap();
        let answered = requests.answer(c(2), ticket).unwrap();
        assert_eq!((answered.requester, answered.id), (c(1), RequestId(7)));
    }

    #[test]
    fn one_more_than_allowed_is_refused_and_counted() {
        let mut requests = Requests::new(LIMITS);
        for id in 0..3 {
            requests.open(c(1), RequestId(id), c(9), 1, ()).unwrap();
        }
        let duplicate = requests.open(c(1), RequestId(1), c(9), 1, ());
        assert_eq!(duplicate, Err(RequestError::Duplicate { id: RequestId(1) }));
        let fourth = requests.open(c(1), RequestId(3), c(9), 1, ());
        assert_eq!(fourth, Err(RequestError::TooMany { limit: 3 }));
        for id in 0..2 {
            requests.open(c(2), RequestId(id), c(9), 1, ()).unwrap();
        }
        let sixth = requests.open(c(3), RequestId(0), c(9), 1, ());
        assert_eq!(sixth, Err(RequestError::Full { limit: 5 }));
        assert_eq!(requests.totals().refused, 3);
        // One that asked itself hears nothing of its own death.
        requests.cancel(c(1), RequestId(0)).unwrap();
        requests.open(c(9), RequestId(0), c(9), 1, ()).unwrap();
        let mut ended = Vec::new();
        requests.connection_ended(c(9), &mut ended);
        assert_eq!((ended.len(), ended[0].why), (5, Why::Cancelled));
        assert!(ended[1..].iter().all(|end| end.why == Why::WorkerDied));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Open(u64, u32, u64, u64),
        Answer(u64, usize),
        Cancel(u64, u32),
        Gone(u64),
        Expire(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..4_u64, 0..4_u32, 0..4_u64, 0..50_u64).prop_map(|(a, b, c, d)| Op::Open(a, b, c, d)),
            4 => (0..4_u64, any::<usize>()).prop_map(|(a, b)| Op::Answer(a, b)),
            1 => (0..4_u64, 0..4_u32).prop_map(|(a, b)| Op::Cancel(a, b)),
            1 => (0..4_u64).prop_map(Op::Gone),
            2 => (0..20_u64).prop_map(Op::Expire),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn every_request_ends_exactly_once_and_in_time(ops in vec(op(), 0..150)) {
            let mut requests = Requests::new(LIMITS);
            let mut open: Vec<(Ticket, u64, u32, u64, u64)> = Vec::new();
            let mut now = 0;
            for op in ops {
                let mut ended = Vec::new();
                match op {
                    Op::Open(asks, id, answers, wait) => {
                        let deadline = now + wait;
                        let route = (asks, id, answers);
                        let opened =
                            requests.open(c(asks), RequestId(id), c(answers), deadline, route);
                        let theirs = open.iter().filter(|o| o.1 == asks).count();
                        let same = open.iter().any(|o| (o.1, o.2) == (asks, id));
                        prop_assert_eq!(opened.is_ok(), !same && theirs < 3 && open.len() < 5);
                        open.extend(opened.ok().map(|ticket| (ticket, asks, id, answers, deadline)));
                    }
                    Op::Answer(from, which) if !open.is_empty() => {
                        let one = open[which % open.len()];
                        let end = requests.answer(c(from), one.0);
                        prop_assert_eq!(end.is_some(), from == one.3);
                        ended.extend(end);
                    }
                    Op::Answer(..) => {}
                    Op::Cancel(asks, id) => ended.extend(requests.cancel(c(asks), RequestId(id))),
                    Op::Gone(connection) => {
                        requests.connection_ended(c(connection), &mut ended);
                        prop_assert!(ended.iter().all(|end| end.route.0 == connection
                            || end.route.2 == connection && end.why == Why::WorkerDied));
                    }
                    Op::Expire(by) => {
                        now += by;
                        requests.expire(now, &mut ended);
                    }
                }
                for end in ended {
                    prop_assert_eq!((end.requester.0, end.id.0), (end.route.0, end.route.1));
                    let at = open.iter().position(|o| (o.1, o.2) == (end.route.0, end.route.1));
                    let one = open.swap_remove(at.unwrap());
                    prop_assert!(end.why != Why::Timeout || one.4 <= now);
                }
                prop_assert_eq!(requests.len(), open.len());
                prop_assert_eq!(requests.next_deadline(), open.iter().map(|o| o.4).min());
            }
            let totals = requests.totals();
            let ended = totals.answered + totals.worker_died + totals.timed_out + totals.cancelled;
            prop_assert_eq!(totals.opened, ended + open.len() as u64);
        }
    }
}
