//! A worker through its life, by hand and by chance.

use super::*;
use proptest::prelude::*;
use WorkerState as S;

fn worker(is_on_trial: bool) -> Worker {
    let restart = Restart {
        crashes_max: 3,
        expected_codes: vec![42],
        ..Restart::default()
    };
    Worker::new(Stop::default(), restart, is_on_trial, 0)
}

fn exited(code: i32) -> Input {
    Input::Exited {
        code: Some(code),
        signal: None,
    }
}

fn ready(is_on_trial: bool) -> Worker {
    let mut worker = worker(is_on_trial);
    assert_eq!(worker.handle(0, 0, Input::Start), Some(Action::Spawn));
    assert_eq!(worker.handle(1, 0, Input::Spawned), None);
    assert_eq!(worker.handle(2, 0, Input::Ready), None);
    assert_eq!(worker.state(), S::Ready);
    worker
}

#[test]
fn a_crash_is_followed_by_a_wait_and_a_new_process() {
    let mut worker = ready(false);
    assert_eq!(worker.handle(10, 0, exited(1)), None);
    assert_eq!(worker.state(), S::Backoff);
    assert_eq!(worker.reason(), Some("exited with code 1"));
    assert_eq!(worker.deadline_ms(), Some(10));
    assert_eq!(worker.handle(10, 0, Input::Tick), Some(Action::Spawn));
    assert_eq!(worker.restarts(), 1);
    worker.handle(11, 0, Input::Spawned);
    worker.handle(12, 0, exited(1));
    assert_eq!(worker.deadline_ms(), Some(112));
    assert_eq!(worker.handle(111, 0, Input::Tick), None);
    assert_eq!(worker.handle(112, 0, Input::Tick), Some(Action::Spawn));
}

#[test]
fn too_many_crashes_make_it_failed_and_a_start_begins_anew() {
    let mut worker = ready(false);
    for _ in 0..2 {
        worker.handle(10, 0, exited(1));
        worker.handle(10_000, 0, Input::Tick);
        worker.handle(10_000, 0, Input::Spawned);
    }
    worker.handle(10_001, 0, exited(7));
    assert_eq!(worker.state(), S::Failed);
    assert!(worker
        .reason()
        .unwrap()
        .starts_with("exited with code 7; it crashed 3 times"));
    assert_eq!(worker.handle(99_999, 0, Input::Tick), None);
    assert_eq!(worker.handle(99_999, 0, Input::Start), Some(Action::Spawn));
}

#[test]
fn an_expected_code_is_an_end() {
    let mut worker = ready(false);
    worker.handle(10, 0, exited(42));
    assert_eq!(worker.state(), S::Stopped);
    assert_eq!(worker.deadline_ms(), None);
}

#[test]
fn on_trial_the_first_crash_is_the_last_until_it_is_proven() {
    let mut worker = ready(true);
    let mut proven = worker.clone();
    worker.handle(10, 0, exited(1));
    assert_eq!(worker.state(), S::Failed);
    proven.prove();
    proven.handle(10, 0, exited(1));
    assert_eq!(proven.state(), S::Backoff);
}

#[test]
fn a_wrong_command_fails_at_once_and_a_full_system_is_waited_for() {
    let mut wrong = worker(false);
    wrong.handle(0, 0, Input::Start);
    wrong.handle(0, 0, Input::SpawnFailed("no such file".into()));
    assert_eq!(
        (wrong.state(), wrong.reason()),
        (S::Failed, Some("no such file"))
    );

    let mut refused = worker(false);
    refused.handle(0, 0, Input::Start);
    for now in 0..100 {
        refused.handle(now * 20_000, 0, Input::SpawnRefused("EAGAIN".into()));
        assert_eq!(refused.state(), S::Backoff);
        let action = refused.handle((now + 1) * 20_000, 0, Input::Tick);
        assert_eq!(action, Some(Action::Spawn));
    }
    let mut on_trial = worker(true);
    on_trial.handle(0, 0, Input::Start);
    on_trial.handle(0, 0, Input::SpawnRefused("EAGAIN".into()));
    assert_eq!(on_trial.state(), S::Failed);
    assert_eq!(on_trial.reason(), Some("EAGAIN"));
}

#[test]
fn a_command_that_vanished_after_it_ran_is_a_crash() {
    let mut worker = ready(false);
    worker.handle(10, 0, exited(1));
    worker.handle(10, 0, Input::Tick);
    worker.handle(10, 0, Input::SpawnFailed("no such file".into()));
    assert_eq!(worker.state(), S::Backoff);
}

#[test]
fn draining_ends_by_the_signal_once_the_queue_is_empty() {
    let mut worker = ready(false);
    assert_eq!(worker.handle(10, 0, Input::Drain), None);
    let action = worker.handle(20, 0, Input::Settled { is_asked: false });
    assert_eq!(action, Some(Action::Signal(15)));
    assert_eq!(worker.deadline_ms(), Some(10_020));
    assert_eq!(worker.handle(10_020, 0, Input::Tick), Some(Action::Kill));
    worker.handle(
        10_021,
        0,
        Input::Exited {
            code: None,
            signal: Some(9),
        },
    );
    assert_eq!(worker.state(), S::Stopped);
}

#[test]
fn what_drains_in_its_own_language_gets_the_signal_when_it_is_done_or_out_of_time() {
    let mut worker = ready(false);
    worker.handle(10, 0, Input::Drain);
    assert_eq!(
        worker.handle(20, 0, Input::Settled { is_asked: true }),
        None
    );
    let mut late = worker.clone();
    assert_eq!(worker.handle(500, 0, Input::Finished), None);
    assert_eq!(worker.handle(699, 0, Input::Tick), None);
    assert_eq!(worker.handle(700, 0, Input::Tick), Some(Action::Signal(15)));
    assert_eq!(
        late.handle(10_010, 0, Input::Tick),
        Some(Action::Signal(15))
    );
    assert_eq!(late.handle(11_010, 0, Input::Tick), Some(Action::Kill));
}

#[test]
fn one_that_hangs_is_aborted_then_killed_then_replaced() {
    let mut worker = ready(false);
    let hung = Input::Hung("no heartbeat for 5 s".into());
    assert_eq!(worker.handle(10, 0, hung), Some(Action::Signal(6)));
    assert_eq!(worker.handle(2_010, 0, Input::Tick), Some(Action::Kill));
    worker.handle(
        2_011,
        0,
        Input::Exited {
            code: None,
            signal: Some(9),
        },
    );
    assert_eq!(worker.state(), S::Backoff);
    assert_eq!(worker.reason(), Some("no heartbeat for 5 s"));
}

#[test]
fn a_start_that_takes_too_long_is_a_crash() {
    let mut worker = worker(true);
    worker.handle(0, 0, Input::Start);
    worker.handle(0, 0, Input::Spawned);
    let action = worker.handle(30_000, 0, Input::NotReady("not ready within 30 s".into()));
    assert_eq!(action, Some(Action::Signal(15)));
    worker.handle(30_001, 0, exited(0));
    assert_eq!(
        (worker.state(), worker.reason()),
        (S::Failed, Some("not ready within 30 s"))
    );
}

#[test]
fn a_second_stop_changes_nothing_and_haste_kills() {
    let mut worker = ready(false);
    assert_eq!(worker.handle(10, 0, Input::Stop), Some(Action::Signal(15)));
    assert_eq!(worker.handle(11, 0, Input::Stop), None);
    assert_eq!(worker.deadline_ms(), Some(10_010));
    assert_eq!(worker.handle(12, 0, Input::Hasten), Some(Action::Kill));
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Start),
        Just(Input::Spawned),
        Just(Input::SpawnFailed("wrong".into())),
        Just(Input::SpawnRefused("full".into())),
        Just(Input::Ready),
        Just(Input::NotReady("late".into())),
        (0..50_i32).prop_map(exited),
        Just(Input::Exited {
            code: None,
            signal: Some(9)
        }),
        Just(Input::Drain),
        any::<bool>().prop_map(|is_asked| Input::Settled { is_asked }),
        Just(Input::Finished),
        Just(Input::Stop),
        Just(Input::Hasten),
        Just(Input::Hung("hung".into())),
        Just(Input::Tick),
    ]
}

proptest! {
    /// Whatever happens in whatever order: a process is only asked for when there is none and
    /// none is under way, only by a start or when a wait is over, and everything but a start
    /// leaves a worker that is over as it is.
    #[test]
    fn never_two_processes_and_no_start_after_the_end(
        steps in prop::collection::vec((inputs(), 0..5_000_u64, any::<u64>()), 1..200),
        is_on_trial in any::<bool>(),
    ) {
        let mut worker = worker(is_on_trial);
        let (mut now, mut is_under_way, mut has_process, mut was_stopped) = (0, false, false, false);
        for (input, passed, random) in steps {
            now += passed;
            // A driver tells these only of what it did.
            let possible = match &input {
                Input::Spawned | Input::SpawnFailed(_) | Input::SpawnRefused(_) => is_under_way,
                Input::Exited { .. } => has_process,
                _ => !is_under_way,
            };
            if !possible {
                continue;
            }
            let (before, was_over) = (worker.state(), worker.is_over());
            let action = worker.handle(now, random, input.clone());
            match &input {
                Input::Spawned => (is_under_way, has_process) = (false, true),
                Input::SpawnFailed(_) | Input::SpawnRefused(_) => is_under_way = false,
                Input::Exited { .. } => has_process = false,
                Input::Start => was_stopped = false,
                Input::Stop | Input::Drain | Input::Hasten => was_stopped = true,
                _ => {}
            }
            match action {
                Some(Action::Spawn) => {
                    prop_assert!(!has_process && !is_under_way);
                    prop_assert!(!was_stopped || input == Input::Start);
                    prop_assert!(input == Input::Start || before == S::Backoff);
                    is_under_way = true;
                }
                Some(Action::Signal(_) | Action::Kill) => prop_assert!(has_process),
                None => {}
            }
            if was_over && input != Input::Start {
                prop_assert!(worker.is_over() && action.is_none());
            }
            if has_process {
                let alive = [S::Starting, S::Ready, S::Draining, S::Stopping];
                prop_assert!(alive.contains(&worker.state()));
            } else if !is_under_way {
                prop_assert!(worker.is_over() || worker.state() == S::Backoff);
            }
            // Nothing that has to end waits without a bound.
            if matches!(worker.state(), S::Backoff | S::Draining) {
                prop_assert!(worker.deadline_ms().is_some());
            }
        }
    }

    /// A stopped worker whose process dies when it is killed is over at the latest when its
    /// grace time is.
    #[test]
    fn a_stop_always_ends(inputs in prop::collection::vec(inputs(), 0..20)) {
        let mut worker = ready(false);
        let mut has_process = true;
        for input in inputs {
            if matches!(input, Input::Spawned | Input::SpawnFailed(_) | Input::SpawnRefused(_)) {
                continue;
            }
            has_process &= !matches!(input, Input::Exited { .. });
            if worker.handle(100, 0, input) == Some(Action::Spawn) {
                worker.handle(100, 0, Input::Spawned);
                has_process = true;
            }
        }
        let first = worker.handle(200, 0, Input::Stop);
        let second = worker.handle(20_000, 0, Input::Tick);
        if has_process && first != Some(Action::Kill) && second != Some(Action::Kill) {
            // Killed before already.
            prop_assert_eq!(worker.state(), S::Stopping);
        }
        if has_process {
            worker.handle(20_001, 0, Input::Exited { code: None, signal: Some(9) });
        }
        prop_assert!(worker.is_over());
    }
}
