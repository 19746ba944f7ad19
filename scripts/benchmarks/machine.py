"""The machine that something was measured on, and the versions of what was compared. No names."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What takes part: a command that tells its version, and how to get it.
PEERS = {
    "redis": (["redis-server", "--version"], r"v=(\S+)", "apt-get install redis-server"),
    "memcached": (["memcached", "--version"], r"(\d\S+)", "apt-get install memcached"),
    "nats-server": (["nats-server", "--version"], r"v?(\d\S+)", "apt-get install nats-server"),
    "libzmq": (["pkg-config", "--modversion", "libzmq"], r"(\S+)", "apt-get install gcc pkg-config libzmq3-dev"),
    "wrk": (["wrk", "-v"], r"wrk \D*(\d\S*)", "apt-get install wrk"),
    "nginx": (["nginx", "-v"], r"nginx/(\S+)", "apt-get install nginx"),
    "node": (["node", "--version"], r"v(\S+)", "apt-get install nodejs npm"),
    "pm2": (["node", "-p", "require('./tests/fixtures/node/node_modules/pm2/package.json').version"],
            r"^(\d\S+)", "scripts/fixtures, which installs it below tests/fixtures from npm"),
    "heed (LMDB)": (["cargo", "tree", "--quiet", "--invert", "heed", "--depth", "0"], r"v(\S+)", "cargo build"),
    "dashmap": (["cargo", "tree", "--quiet", "--invert", "dashmap", "--depth", "0"], r"v(\S+)", "cargo build"),
    "redis-rs": (["cargo", "tree", "--quiet", "--invert", "redis", "--depth", "0"], r"v(\S+)", "cargo build"),
    "raw_sync": (["cargo", "tree", "--quiet", "--invert", "raw_sync", "--depth", "0"], r"v(\S+)", "cargo build"),
    "rustc": (["rustc", "--version"], r"rustc (\S+)", "rustup"),
}


def run(command):
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def versions():
    """Peer -> version, or None where it is missing."""
    found = {}
    for name, (command, pattern, _) in PEERS.items():
        match = re.search(pattern, run(command)) if shutil.which(command[0]) else None
        found[name] = match and match.group(1)
    return found


def field(path, name):
    try:
        text = Path(path).read_text()
    except OSError:
        return "unknown"
    match = re.search(rf"^{name}\s*:\s*(.+)$", text, re.M)
    return match.group(1).strip() if match else "unknown"


def virtual():
    kind = run(["systemd-detect-virt", "--vm"]).strip() if shutil.which("systemd-detect-virt") else ""
    if kind:
        return "no" if kind == "none" else kind
    return "yes" if re.search(r"\bhypervisor\b", field("/proc/cpuinfo", "flags")) else "no"


def describe():
    kib = field("/proc/meminfo", "MemTotal").split()[0]
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "processor": field("/proc/cpuinfo", "model name"),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(kib) / (1 << 20)) if kib.isdigit() else None,
        "kernel": platform.release().split("-")[0],
        "virtual": virtual(),
        "governor": governor.read_text().strip() if governor.exists() else "not told",
        "versions": versions(),
        "commit": run(["git", "rev-parse", "--short", "HEAD"]).strip(),
    }
