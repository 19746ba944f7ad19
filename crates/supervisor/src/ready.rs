//! When a worker is ready: what it said and showed so far, held against what is asked of it. No
//! clock of its own.
//!
//! A worker that is to replace one that serves must listen where that one does, on every address:
//! connections are moved to it at the switch, and nobody would take those of an address it lacks.

use crate::config::Ready;
use std::collections::BTreeSet;

/// A program that listens nowhere (a queue worker, say) counts as ready when it lived so long,
/// once it is known that its app listens nowhere.
const SILENT_MS: u64 = 1_000;
/// How long a worker on trial that was refused an address has to find another one, or to end.
const REFUSED_MS: u64 = 1_000;

/// What a worker said or showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// It listens on this address.
    Listening(String),
    /// It was refused an address.
    Refused,
    /// It said that it is ready.
    Told,
    /// The readiness probe was answered.
    Probed,
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Something is missing.
    Waiting,
    /// The probe is the next thing to be seen.
    WantsProbe,
    /// It is ready.
    Ready,
    /// Its time is over: what was missing.
    Late(String),
}

/// What is asked of a worker.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// By the app.
    pub ready: Ready,
    /// Addresses it must listen on.
    pub required: BTreeSet<String>,
    /// Why it must listen somewhere, if it was asked to: what was given.
    pub must_listen: Option<String>,
    /// Whether it is known that the app listens nowhere.
    pub is_silent: bool,
    /// Whether somebody waits for the outcome: it fails as soon as it is known that it will.
    pub is_on_trial: bool,
}

/// The gate between starting and ready.
#[derive(Debug, Clone)]
pub struct Gate {
    asked: Asked,
    listening: BTreeSet<String>,
    is_told: bool,
    is_probed: bool,
    /// When it was first refused an address.
    refused_ms: Option<u64>,
    started_ms: u64,
    /// Since when nothing but time is missing.
    fit_since_ms: Option<u64>,
}

impl Gate {
    /// For a process that starts now.
    pub fn new(asked: Asked, now_ms: u64) -> Self {
        Self {
            asked,
            listening: BTreeSet::new(),
            is_told: false,
            is_probed: false,
            refused_ms: None,
            started_ms: now_ms,
            fit_since_ms: None,
        }
    }

    /// Takes a sign in.
    pub fn sign(&mut self, now_ms: u64, sign: Sign) {
        match sign {
            Sign::Listening(address) => {
                self.listening.insert(address);
            }
            Sign::Refused => self.refused_ms = self.refused_ms.or(Some(now_ms)),
            Sign::Told => self.is_told = true,
            Sign::Probed => self.is_probed = true,
        }
        if self.fit_since_ms.is_none() && self.is_fit() {
            self.fit_since_ms = Some(now_ms);
        }
    }

    /// Where it stands now.
    pub fn verdict(&self, now_ms: u64) -> Verdict {
        let lived = now_ms.saturating_sub(self.started_ms);
        if let Some(since) = self.fit_since_ms {
            return match now_ms.saturating_sub(since) >= self.asked.ready.healthy_ms {
                true => Verdict::Ready,
                false => Verdict::Waiting,
            };
        }
        if self.hopeless_ms().is_some_and(|at| now_ms >= at) {
            return Verdict::Late("it can't listen".to_owned());
        }
        if self.may_be_silent() && lived >= self.silent_ms() {
            return Verdict::Ready;
        }
        if lived >= self.asked.ready.timeout_ms {
            return Verdict::Late(self.missing());
        }
        match self.shows_itself() && self.asked.ready.http_path.is_some() {
            true => Verdict::WantsProbe,
            false => Verdict::Waiting,
        }
    }

    /// When the verdict may change without a sign.
    pub fn deadline_ms(&self) -> u64 {
        if let Some(since) = self.fit_since_ms {
            return since.saturating_add(self.asked.ready.healthy_ms);
        }
        let late = self.started_ms.saturating_add(self.silent_ms());
        self.hopeless_ms().map_or(late, |at| at.min(late))
    }

    /// Where it listens.
    pub fn listening(&self) -> &BTreeSet<String> {
        &self.listening
    }

    /// When a worker on trial has had its time to find another address than the one it was refused.
    fn hopeless_ms(&self) -> Option<u64> {
        let is_refused = self.asked.is_on_trial && self.listening.is_empty();
        let since = self.refused_ms.filter(|_| is_refused)?;
        Some(since.saturating_add(REFUSED_MS))
    }

    /// Whether it may count as ready though it listens nowhere: nobody asked for a listener, and it
    /// did not try.
    fn may_be_silent(&self) -> bool {
        !self.asked.ready.is_explicit
            && self.asked.ready.http_path.is_none()
            && self.asked.must_listen.is_none()
            && self.asked.required.is_empty()
            && self.listening.is_empty()
            && self.refused_ms.is_none()
    }

    fn silent_ms(&self) -> u64 {
        let ready = &self.asked.ready;
        let silent = match self.asked.is_silent && self.may_be_silent() {
            true => SILENT_MS.max(ready.healthy_ms),
            false => ready.timeout_ms,
        };
        silent.min(ready.timeout_ms)
    }

    fn is_fit(&self) -> bool {
        self.shows_itself() && (self.is_probed || self.asked.ready.http_path.is_none())
    }

    /// Everything but the probe.
    fn shows_itself(&self) -> bool {
        let is_listening = match self.asked.required.is_empty() {
            true => !self.listening.is_empty(),
            false => self.asked.required.is_subset(&self.listening),
        };
        let is_there = match self.asked.ready.is_explicit {
            true => self.is_told,
            // A word of its own is as good as a listener, but for those it must have.
            false => is_listening || self.is_told,
        };
        is_there && (is_listening || self.asked.required.is_empty())
    }

    fn missing(&self) -> String {
        let seconds = self.asked.ready.timeout_ms as f64 / 1000.0;
        let unheard: Vec<&str> = self
            .asked
            .required
            .difference(&self.listening)
            .map(String::as_str)
            .collect();
        let what = if !unheard.is_empty() && !self.listening.is_empty() {
            let heard: Vec<&str> = self.listening.iter().map(String::as_str).collect();
            let (unheard, heard) = (unheard.join(", "), heard.join(", "));
            format!(
                "it listens on {heard}, not on {unheard}, where the workers it is to replace do \
                 (restart instead of reload changes addresses)"
            )
        } else if !unheard.is_empty() {
            format!("it does not listen on {}", unheard.join(", "))
        } else if self.asked.ready.is_explicit && !self.is_told {
            "it did not say that it is ready (READY=1 by sd_notify, or process.send('ready'))"
                .into()
        } else if let (Some(path), true) = (&self.asked.ready.http_path, self.shows_itself()) {
            format!("GET {path} is not answered well")
        } else {
            match &self.asked.must_listen {
                Some(given) => format!("it listens nowhere, though {given} was given"),
                None => "it listens nowhere".to_owned(),
            }
        };
        format!("not ready after {seconds} s: {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(ready: Ready, required: &[&str]) -> Gate {
        let asked = Asked {
            ready,
            required: required.iter().map(|text| (*text).to_owned()).collect(),
            ..Asked::default()
        };
        Gate::new(asked, 1_000)
    }

    fn listening(address: &str) -> Sign {
        Sign::Listening(address.to_owned())
    }

    #[test]
    fn a_listener_or_a_word_is_enough_at_first() {
        for sign in [listening(":3000"), Sign::Told] {
            let mut gate = gate(Ready::default(), &[]);
            assert_eq!(gate.verdict(1_000), Verdict::Waiting);
            gate.sign(1_500, sign);
            assert_eq!(gate.verdict(1_500), Verdict::Ready);
        }
    }

    #[test]
    fn a_replacement_must_listen_where_the_replaced_one_does() {
        let mut gate = gate(Ready::default(), &[":3000", ":3001"]);
        gate.sign(1_100, listening(":3000"));
        gate.sign(1_100, Sign::Told);
        assert_eq!(gate.verdict(1_100), Verdict::Waiting);
        let Verdict::Late(why) = gate.verdict(31_000) else {
            panic!("it was in time")
        };
        assert!(why.contains("not on :3001"), "{why}");
        gate.sign(1_200, listening(":3001"));
        assert_eq!(gate.verdict(1_200), Verdict::Ready);
    }

    #[test]
    fn where_only_a_word_counts_a_listener_does_not() {
        let ready = Ready {
            is_explicit: true,
            ..Ready::default()
        };
        let mut gate = gate(ready, &[]);
        gate.sign(1_100, listening(":3000"));
        assert_eq!(gate.verdict(1_100), Verdict::Waiting);
        assert!(matches!(gate.verdict(31_000), Verdict::Late(why) if why.contains("READY=1")));
        gate.sign(1_200, Sign::Told);
        assert_eq!(gate.verdict(1_200), Verdict::Ready);
    }

    #[test]
    fn a_probe_comes_after_the_listener_and_before_ready() {
        let ready = Ready {
            http_path: Some("/health".into()),
            ..Ready::default()
        };
        let mut gate = gate(ready, &[]);
        assert_eq!(gate.verdict(1_000), Verdict::Waiting);
        gate.sign(1_100, listening(":3000"));
        assert_eq!(gate.verdict(1_100), Verdict::WantsProbe);
        assert!(matches!(gate.verdict(31_000), Verdict::Late(why) if why.contains("/health")));
        gate.sign(1_200, Sign::Probed);
        assert_eq!(gate.verdict(1_200), Verdict::Ready);
    }

    #[test]
    fn it_must_stay_healthy_for_a_while() {
        let ready = Ready {
            healthy_ms: 500,
            ..Ready::default()
        };
        let mut gate = gate(ready, &[]);
        gate.sign(1_100, Sign::Told);
        assert_eq!(gate.verdict(1_599), Verdict::Waiting);
        assert_eq!(gate.deadline_ms(), 1_600);
        assert_eq!(gate.verdict(1_600), Verdict::Ready);
    }

    #[test]
    fn a_program_that_listens_nowhere_is_ready_because_it_lives() {
        let unknown = gate(Ready::default(), &[]);
        assert_eq!(unknown.verdict(30_999), Verdict::Waiting);
        assert_eq!(unknown.verdict(31_000), Verdict::Ready);
        let asked = Asked {
            is_silent: true,
            ..Asked::default()
        };
        let known = Gate::new(asked, 1_000);
        assert_eq!(known.verdict(1_999), Verdict::Waiting);
        assert_eq!(known.deadline_ms(), 2_000);
        assert_eq!(known.verdict(2_000), Verdict::Ready);
    }

    #[test]
    fn where_a_listener_is_asked_for_or_was_refused_to_live_is_not_enough() {
        let asked = |must_listen: Option<&str>| Asked {
            must_listen: must_listen.map(str::to_owned),
            is_silent: true,
            ..Asked::default()
        };
        let silent = Gate::new(asked(Some("--listen :80")), 1_000);
        assert_eq!(silent.deadline_ms(), 31_000);
        assert_eq!(silent.verdict(30_999), Verdict::Waiting);
        assert!(matches!(silent.verdict(31_000), Verdict::Late(why) if why.contains(":80")));
        let mut refused = Gate::new(asked(None), 1_000);
        refused.sign(1_100, Sign::Refused);
        assert_eq!(refused.verdict(30_999), Verdict::Waiting);
        assert!(matches!(refused.verdict(31_000), Verdict::Late(_)));
        refused.sign(1_200, listening(":80"));
        assert_eq!(refused.verdict(1_200), Verdict::Ready);
    }

    #[test]
    fn on_trial_a_refused_address_is_an_end_unless_another_one_is_found() {
        let asked = |is_on_trial| Asked {
            is_on_trial,
            ..Asked::default()
        };
        let mut gate = Gate::new(asked(true), 1_000);
        gate.sign(1_500, Sign::Refused);
        gate.sign(2_400, Sign::Refused);
        assert_eq!(gate.verdict(2_499), Verdict::Waiting);
        assert_eq!(gate.deadline_ms(), 2_500);
        assert!(matches!(gate.verdict(2_500), Verdict::Late(_)));
        gate.sign(2_400, listening(":3001"));
        assert_eq!(gate.verdict(2_500), Verdict::Ready);
        let mut patient = Gate::new(asked(false), 1_000);
        patient.sign(1_500, Sign::Refused);
        assert_eq!(patient.verdict(2_500), Verdict::Waiting);
    }
}
