"""The servers: each on a loopback port, with its files below one directory on one disk."""

import contextlib
import http.client
import pathlib
import random
import socket
import subprocess
import time

from . import machine
from .table import result

BINARY = None  # The boatyard to measure; bench/run sets it.
TICKS_PER_SECOND = 100  # USER_HZ, which is the same on all of Linux's architectures that matter.

REGISTRY_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {data}}}
http: {{addr: "127.0.0.1:{port}"}}
"""

# As a careful administrator would set it up; keepalive_requests, because nginx would otherwise
# close a connection after 1,000 requests, which the others do not.
NGINX_CONFIG = """\
daemon off;
worker_processes auto;
pid {data}/nginx.pid;
error_log {data}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    open_file_cache max=1000;
    default_type application/octet-stream;
    server {{ listen 127.0.0.1:{port}; root {data}/www; }}
}}
"""


class Server:
    """A running server."""

    def __init__(self, name, port, data, command):
        self.name, self.port, self.data = name, port, data
        with open(data / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait()

    def wait(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"error: {self.name} did not start:\n{(self.data / 'log').read_text()}")

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def pids(self):
        """Returns the process and its children: nginx's workers."""
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu_seconds(self):
        """Returns what the server has used of all CPUs, in user and kernel mode."""
        ticks = 0
        for pid in self.pids():
            # The name, in parentheses, may have spaces; utime and stime are fields 14 and 15.
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def peak_rss_mb(self):
        """Returns the peak of the server's resident anonymous memory, and with mapped files."""
        peak = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak += int(line.split()[1]) / 1000
        return peak

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def all_of(world):
    """Runs all servers; ours is the first."""
    running = []
    try:
        for start in (boatyard, docker_registry, nginx):
            running.append(start(world))
        yield running
    finally:
        for server in running:
            server.stop()


def registries(running):
    return [server for server in running if server.name != "nginx"]


def memory(running):
    """Returns each server's peak RSS since it started."""
    return [
        result("peak RSS", server.name, "MB", [server.peak_rss_mb()], better="lower")
        for server in running
    ]


def boatyard(world):
    data, port = place(world, "boatyard")
    command = [BINARY, "--root", data / "root", "serve", "--listen", f"127.0.0.1:{port}"]
    return Server("boatyard", port, data, command)


def docker_registry(world):
    data, port = place(world, "docker-registry")
    config = data / "config.yml"
    config.write_text(REGISTRY_CONFIG.format(data=data / "data", port=port))
    command = [machine.find("docker-registry"), "serve", config]
    return Server("docker-registry", port, data, command)


def nginx(world):
    data, port = place(world, "nginx")
    config = data / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(data=data, port=port))
    # Workers run as another user, who must reach the files.
    for directory in (world, data):
        directory.chmod(0o755)
    return Server("nginx", port, data, [machine.find("nginx"), "-c", config, "-p", data])


def place(world, name):
    """Returns a directory for a server, and a port."""
    data = world / name
    data.mkdir()
    return data, free_port()


def free_port():
    """Returns a port that is free now: below those that the kernel gives to connections, and below
    32768, beyond which apt-cacher-ng can neither listen nor connect."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
