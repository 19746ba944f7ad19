//! nginx as people put it before single processes: a proxy that keeps its connections to them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

pub(crate) fn is_installed() -> bool {
    Command::new("nginx").arg("-v").output().is_ok()
}

/// Where the processes behind it listen.
pub(crate) fn behind(address: SocketAddr, workers: u32) -> impl Iterator<Item = SocketAddr> {
    (1..=workers).map(move |worker| SocketAddr::new(address.ip(), address.port() + worker as u16))
}

/// nginx in the foreground, with as many workers as there are processes behind it.
pub(crate) fn command(folder: &Path, address: SocketAddr, workers: u32) -> Command {
    let servers: String = behind(address, workers)
        .map(|address| format!("server {address};"))
        .collect();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {kind};"))
        .concat();
    let text = format!(
        "daemon off; worker_processes {workers}; pid nginx.pid; error_log stderr crit;
         events {{ worker_connections 4096; }}
         http {{
           access_log off; {temporary}
           upstream app {{ {servers} keepalive 64; }}
           server {{
             listen {address};
             location / {{
               proxy_pass http://app;
               proxy_http_version 1.1;
               proxy_set_header Connection \"\";
             }}
           }}
         }}"
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, text).unwrap();
    let mut command = Command::new("nginx");
    command
        .arg("-e")
        .arg("stderr")
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(path);
    command
}
