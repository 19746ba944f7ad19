//! Inherited listeners: the protocol of systemd.

use crate::delivery::{fetch, has, run, slot, App};
use crate::ports::free_port;
use crate::support::command;
use ganger_supervisor::deliver::{prepare, Context, DeliverError, Rung};
use ganger_supervisor::spawn::Output;
use std::collections::BTreeSet;
use std::sync::Arc;

#[test]
fn a_program_inherits_its_listeners_under_the_numbers_of_the_protocol() {
    if !has("python3") {
        return;
    }
    run(async {
        let mut app = App::new("inherited", Rung::ListenFds, 2);
        let ports = [free_port(), free_port()];
        for port in ports {
            let told = format!("127.0.0.1:{port}").parse().unwrap();
            app.managed
                .push(app.listeners.lock().unwrap().declare(&told).unwrap());
        }
        let text = "import os, socket\n\
             assert os.environ['LISTEN_PID'] == str(os.getpid())\n\
             assert os.environ['LISTEN_FDS'] == '2'\n\
             assert len(os.environ['LISTEN_FDNAMES'].split(':')) == 2\n\
             first, second = socket.socket(fileno=3), socket.socket(fileno=4)\n\
             assert first.getblocking() and second.getsockname()[1] == PORT\n\
             while True:\n    \
                 c, a = first.accept()\n    \
                 c.recv(1000)\n    \
                 body = str(os.getpid())\n    \
                 c.sendall(f'HTTP/1.1 200 OK\\r\\n\\r\\n{body}'.encode())\n    \
                 c.close()\n"
            .replace("PORT", &ports[1].to_string());
        let command = command("python3", &["-c", &text]);
        let mut workers: Vec<_> = (0..2)
            .map(|w| app.start_with(&command, slot(w), 1, Output::Inherit))
            .collect();
        for worker in &mut workers {
            assert_eq!(worker.listening().await, app.managed[0]);
            assert_eq!(worker.listening().await, app.managed[1]);
        }
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            seen.insert(fetch(ports[0], "/").await);
        }
        assert_eq!(seen.len(), 2);
        assert!(
            !workers[0].delivery.drain(),
            "there is no way but the stop signal"
        );
    });
}

#[test]
fn without_addresses_there_is_nothing_to_inherit() {
    let app = App::new("nothing", Rung::ListenFds, 1);
    let context = Context {
        listeners: Arc::clone(&app.listeners),
        slot: slot(0),
        worker: 0,
        unique_id: 1,
        has_preload: false,
        home: app.home.0.clone(),
        managed: Vec::new(),
    };
    let error = prepare(Rung::ListenFds, context).unwrap_err();
    assert!(matches!(error, DeliverError::NothingToInherit));
    assert!(error.to_string().contains("--listen"));
}
