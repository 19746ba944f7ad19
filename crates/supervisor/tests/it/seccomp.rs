//! Programs that know nothing of anybody, with the supervisor's listeners.

use crate::delivery::{eventually, fetch, has, run, slot, App, Worker};
use crate::ports::free_port;
use crate::support::{alone, command, shell};
use ganger_supervisor::config::Command;
use ganger_supervisor::deliver::{DeliverEvent, Rung};
use ganger_supervisor::spawn::{signal_group, Output};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

/// A server in Python that answers with its process number, one connection after the other.
fn python(bind: &str, rest: &str) -> Command {
    let text = format!(
        "import os, socket, sys\n\
         s = socket.socket(socket.AF_INET)\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(({bind}))\n\
         {rest}\n\
         s.listen(5)\n\
         while True:\n    \
             c, a = s.accept()\n    \
             c.recv(1000)\n    \
             body = str(os.getpid())\n    \
             head = f'HTTP/1.1 200 OK\\r\\nContent-Length: {{len(body)}}\\r\\n\\r\\n'\n    \
             c.sendall((head + body).encode())\n    \
             c.close()\n"
    );
    command("python3", &["-c", &text])
}

async fn all_listen(workers: &mut [Worker]) {
    for worker in workers {
        worker.listening().await;
    }
}

async fn answers(port: u16, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..count {
        seen.insert(fetch(port, "/").await);
    }
    seen
}

#[test]
fn a_blocking_program_is_shared_by_all_workers_and_its_queue_survives_it() {
    if !has("python3") {
        return;
    }
    run(async {
        let app = App::new("seccomp plain", Rung::Seccomp, 2);
        let port = free_port();
        let command = python(&format!("'127.0.0.1', {port}"), "assert s.getblocking()");
        let mut workers: Vec<_> = (0..2).map(|w| app.start(&command, slot(w), 1)).collect();
        for worker in &mut workers {
            assert_eq!(
                worker.listening().await.to_string(),
                format!("127.0.0.1:{port}")
            );
        }
        assert_eq!(answers(port, 40).await.len(), 2);
        signal_group(workers[0].child.0.pid, libc::SIGKILL).unwrap();
        workers[0].child.wait();
        let waiting: Vec<_> = (0..20).map(|_| tokio::spawn(fetch(port, "/"))).collect();
        eventually(|| app.listeners.lock().unwrap().queue_len(slot(0)) > 0).await;
        workers[0] = app.start(&command, slot(0), 2);
        for answer in waiting {
            answer.await.unwrap();
        }
    });
}

#[test]
fn what_a_program_sees_of_its_socket_is_what_it_asked_for() {
    if !has("python3") {
        return;
    }
    run(async {
        let app = App::new("seccomp socket", Rung::Seccomp, 1);
        let (port, six) = (free_port(), free_port());
        let text = format!(
            "import socket, os, fcntl\n\
             s = socket.socket(socket.AF_INET)\n\
             s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n\
             s.setblocking(False)\n\
             number = s.fileno()\n\
             s.bind(('127.0.0.1', {port}))\n\
             assert s.fileno() == number and s.getsockname() == ('127.0.0.1', {port})\n\
             assert fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK\n\
             assert fcntl.fcntl(s, fcntl.F_GETFD) & fcntl.FD_CLOEXEC\n\
             assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)\n\
             s.listen(9)\n\
             d = socket.socket(socket.AF_INET)\n\
             d.bind(('127.0.0.1', {port}))\n\
             os.set_inheritable(d.fileno(), True)\n\
             d.close()\n\
             v = socket.socket(socket.AF_INET6)\n\
             os.set_inheritable(v.fileno(), True)\n\
             v.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)\n\
             v.bind(('::', {six}))\n\
             assert v.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)\n\
             assert not fcntl.fcntl(v, fcntl.F_GETFD) & fcntl.FD_CLOEXEC\n\
             assert not fcntl.fcntl(v, fcntl.F_GETFL) & os.O_NONBLOCK\n\
             f = socket.socket(socket.AF_INET)\n\
             f.bind(('127.0.0.1', 0))\n\
             f.listen()\n\
             assert f.getsockname()[1] not in (0, {port})\n\
             u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             u.bind(('127.0.0.1', {port}))\n\
             a = socket.socket(socket.AF_UNIX)\n\
             a.bind('\\0ganger-test-%d' % os.getpid())\n\
             for bad in (-1, 0, 999):\n    \
                 try: socket.socket(fileno=bad).bind(('127.0.0.1', {port}))\n    \
                 except (OSError, ValueError): pass\n\
             print('all is well', flush=True)\n"
        );
        let command = command("python3", &["-c", &text]);
        let mut worker = app.start_with(&command, slot(0), 1, Output::Pipes);
        worker.listening().await;
        let (stdout, stderr) = (worker.child.0.stdout.take(), worker.child.0.stderr.take());
        let output = tokio::task::spawn_blocking(move || {
            [stdout, stderr].map(|fd| crate::support::all(fd.unwrap()))
        });
        let [stdout, stderr] = output.await.unwrap();
        assert_eq!(stdout, "all is well\n", "{stderr}");
        let addresses = app.listeners.lock().unwrap().addresses();
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [format!("127.0.0.1:{port}"), format!("[::]:{six},v6only")]
        );
    });
}

#[test]
fn a_program_beneath_shells_is_reached() {
    if !has("python3") {
        return;
    }
    run(async {
        let app = App::new("seccomp shell", Rung::Seccomp, 2);
        let port = free_port();
        let inner =
            format!("python3 -m http.server {port} --bind 127.0.0.1 --directory /usr/share");
        let command = shell(&format!("sh -c '{inner} 2>/dev/null; true'; true"));
        let mut workers: Vec<_> = (0..2).map(|w| app.start(&command, slot(w), 1)).collect();
        all_listen(&mut workers).await;
        for _ in 0..20 {
            assert!(fetch(port, "/").await.contains("Directory listing"));
        }
    });
}

#[test]
fn with_told_addresses_all_others_are_the_programs_own() {
    if !has("python3") {
        return;
    }
    run(async {
        // The program's bind closes one listener and opens another on the same port.
        let _alone = alone();
        let mut app = App::new("seccomp managed", Rung::Seccomp, 2);
        let (port, other) = (free_port(), free_port());
        // Told as "all addresses"; the program makes that all of v4.
        let told = format!(":{port}").parse().unwrap();
        app.managed = vec![app.listeners.lock().unwrap().declare(&told).unwrap()];
        let rest = format!(
            "o = socket.socket()\n\
             try: o.bind(('127.0.0.1', {other}))\n\
             except OSError as e: assert e.errno == 98\n\
             else: o.listen()"
        );
        let command = python(&format!("'', {port}"), &rest);
        let mut workers: Vec<_> = (0..2).map(|w| app.start(&command, slot(w), 1)).collect();
        all_listen(&mut workers).await;
        assert_eq!(answers(port, 40).await.len(), 2);
        let addresses = app.listeners.lock().unwrap().addresses();
        assert_eq!(addresses.len(), 1);
        assert_eq!(addresses[0].to_string(), format!("0.0.0.0:{port}"));
    });
}

#[test]
fn a_unix_socket_is_shared_though_each_worker_removes_its_file() {
    if !has("python3") {
        return;
    }
    run(async {
        let app = App::new("seccomp unix", Rung::Seccomp, 2);
        let path = app.home.0.join("app.sock");
        let text = "import socket, os, sys\n\
             if os.path.exists(sys.argv[1]): os.unlink(sys.argv[1])\n\
             s = socket.socket(socket.AF_UNIX)\n\
             os.chdir(os.path.dirname(sys.argv[1]))\n\
             s.bind(os.path.basename(sys.argv[1]))\n\
             s.listen(5)\n\
             while True:\n    \
                 c, a = s.accept()\n    \
                 c.sendall(str(os.getpid()).encode())\n    \
                 c.close()\n";
        let command = command("python3", &["-c", text, path.to_str().unwrap()]);
        let mut workers = Vec::new();
        for index in 0..2 {
            let mut worker = app.start(&command, slot(index), 1);
            assert_eq!(worker.listening().await.path(), Some(path.as_path()));
            workers.push(worker);
        }
        for _ in 0..10 {
            let mut text = String::new();
            UnixStream::connect(&path)
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert!(!text.is_empty());
        }
    });
}

#[test]
fn a_port_that_is_taken_is_an_error_in_the_program_and_tells_who_has_it() {
    if !has("python3") {
        return;
    }
    run(async {
        let app = App::new("seccomp busy", Rung::Seccomp, 1);
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let command = python(&format!("'127.0.0.1', {port}"), "");
        let mut worker = app.start_with(&command, slot(0), 1, Output::Pipes);
        let event = worker.event().await;
        let own = std::process::id().to_string();
        assert!(
            matches!(&event, DeliverEvent::BindFailed { error, .. } if error.contains(&own)),
            "{event:?}"
        );
        let stderr = worker.child.0.stderr.take().unwrap();
        let stderr = tokio::task::spawn_blocking(move || crate::support::all(stderr));
        assert!(stderr.await.unwrap().contains("Address already in use"));
    });
}

#[test]
fn a_program_may_bind_again_and_in_its_children() {
    if !has("python3") {
        return;
    }
    run(async {
        let app = App::new("seccomp again", Rung::Seccomp, 1);
        let port = free_port();
        let rest = format!(
            "s.listen(5)\n\
             for again in range(3):\n    \
                 s.close()\n    \
                 s = socket.socket()\n    \
                 s.bind(('127.0.0.1', {port}))\n    \
                 s.listen(5)\n\
             if not os.fork():\n    \
                 s.close()\n    \
                 s = socket.socket()\n    \
                 s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n    \
                 s.bind(('127.0.0.1', {port}))"
        );
        let command = python(&format!("'127.0.0.1', {port}"), &rest);
        let mut worker = app.start(&command, slot(0), 1);
        // Four times by the first and once by each of the two.
        for _ in 0..6 {
            worker.listening().await;
        }
        for _ in 0..20 {
            let address = ("127.0.0.1", port);
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            stream.read_to_string(&mut String::new()).unwrap();
        }
    });
}

#[test]
fn a_caller_killed_while_it_asks_harms_nobody() {
    if !has("python3") {
        return;
    }
    run(async {
        let app = App::new("seccomp kills", Rung::Seccomp, 1);
        let port = free_port();
        let text = format!(
            "import os, signal, socket, time\n\
             for n in range(200):\n    \
                 pid = os.fork()\n    \
                 if not pid:\n        \
                     while True:\n            \
                         s = socket.socket()\n            \
                         s.bind(('127.0.0.1', {port}))\n            \
                         s.listen(5)\n            \
                         s.close()\n    \
                 time.sleep(0.0005 * (n % 7))\n    \
                 os.kill(pid, signal.SIGKILL)\n    \
                 os.wait()\n\
             s = socket.socket()\n\
             s.bind(('127.0.0.1', {port}))\n\
             print('alive', flush=True)\n"
        );
        let command = command("python3", &["-c", &text]);
        let mut worker = app.start_with(&command, slot(0), 1, Output::Pipes);
        let stdout = worker.child.0.stdout.take().unwrap();
        let stdout = tokio::task::spawn_blocking(move || crate::support::all(stdout));
        assert_eq!(stdout.await.unwrap(), "alive\n");
    });
}
