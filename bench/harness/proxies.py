"""The cache proxy beside apt-cacher-ng, squid and nginx's proxy_cache: a hot small file, a hot large
one, 400 packages as apt asks for them, and what 100 clients at once cost the upstream.
"""

import concurrent.futures
import json
import pathlib
import shutil
import socket
import subprocess
import time

from . import machine, origins, servers
from .table import result

TARGET = pathlib.Path(__file__).with_name("target.lua")
SMALL, LARGE, PACKAGE = 20_000, 64 << 20, 8_000
PACKAGES, CLIENTS = 400, 100
# How many requests apt has under way on its one connection (Acquire::http::Pipeline-Depth).
DEPTH = 10

NGINX = """\
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
    proxy_cache_path {data}/cache levels=1:2 keys_zone=cache:10m max_size=4g use_temp_path=off;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache cache;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 60s;
        }}
    }}
}}
"""

SQUID = """\
http_port 127.0.0.1:{port}
http_access allow all
cache_dir ufs {data}/cache 4000 16 256
cache_mem 256 MB
maximum_object_size_in_memory 128 MB
maximum_object_size 200 MB
collapsed_forwarding on
access_log none
cache_log {data}/cache.log
cache_store_log none
pid_filename none
coredump_dir {data}
pinger_enable off
shutdown_lifetime 0 seconds
"""

ACNG = """\
CacheDir: {data}/cache
LogDir: {data}/logs
Port: {port}
BindAddress: localhost
AllowUserPorts: 0
ForeGround: 1
PidFile: {data}/pid
ExThreshold: 4
"""


def boatyard(world, origin):
    data, port = servers.place(world, "boatyard")
    config = data / "boatyard.toml"
    config.write_text(f"[log]\naccess = false\n[proxy]\nlisten = ['127.0.0.1:{port}']\nquiet = true\n"
                      f"allow_private = true\nallow_ports = [{origin}]\n")
    command = [servers.BINARY, "--root", data / "root", "--config", config, "serve",
               "--listen", "127.0.0.1:0"]
    return servers.Server("boatyard", port, data, command)


def apt_cacher_ng(world, origin):
    data, port = servers.place(world, "apt-cacher-ng")
    (data / "acng.conf").write_text(ACNG.format(data=data, port=port))
    command = [machine.find("apt-cacher-ng"), "-c", data]
    return servers.Server("apt-cacher-ng", port, data, command)


def squid(world, origin):
    data, port = servers.place(world, "squid")
    config = data / "squid.conf"
    config.write_text(SQUID.format(data=data, port=port))
    # It gives up root for a user of its own.
    for directory in (world, data):
        directory.chmod(0o777)
    program = machine.find("squid")
    subprocess.run([program, "-N", "-z", "-f", config], check=True, capture_output=True)
    return servers.Server("squid", port, data, [program, "-N", "-f", config])


def nginx(world, origin):
    data, port = servers.place(world, "nginx")
    config = data / "nginx.conf"
    config.write_text(NGINX.format(data=data, port=port, origin=origin))
    for directory in (world, data):
        directory.chmod(0o755)
    return servers.Server("nginx", port, data, [machine.find("nginx"), "-c", config, "-p", data])


# Each proxy, its program, and whether it is asked as a proxy is: by whole addresses.
PROXIES = [
    (boatyard, None, True),
    (apt_cacher_ng, "apt-cacher-ng", True),
    (squid, "squid", True),
    (nginx, "nginx", False),
]


def measure(binary, world, options):
    servers.BINARY = binary
    values = {}
    files = origins.Files()
    small, large = files.add(SMALL), files.add(LARGE)
    packages = [files.add(PACKAGE) for _ in range(PACKAGES)]
    place = world / "proxies"
    place.mkdir()
    # nginx and squid give up root for users of their own, who must reach the files.
    world.chmod(0o755)
    near = origins.fast(place, files)
    far = origins.Far(files)
    try:
        for number in range(options.rounds):
            for start, program, whole in PROXIES:
                if program and not machine.find(program):
                    continue
                one_round(values, place, start, whole, (near, far), (small, large, packages), options)
            seconds = install(far.port, packages)
            add(values, f"{PACKAGES} packages, upstream 20 ms away, cold", "s", "direct", seconds)
    finally:
        near.stop()
        far.stop()
    return [
        result(what, name, unit, got, better="lower" if unit in ("s", "requests") else "higher")
        for (what, unit), by_name in values.items()
        for name, got in by_name.items()
    ]


def add(values, what, unit, name, value):
    values.setdefault((what, unit), {}).setdefault(name, []).append(value)


def one_round(values, place, start, whole, upstreams, paths, options):
    near, far = upstreams
    small, large, packages = paths

    def targets(port, wanted):
        return [f"http://127.0.0.1:{port}{path}" if whole else path for path in wanted]

    server = start(place, near.port)
    note = lambda what, unit, value: add(values, what, unit, server.name, value)
    try:
        wanted = targets(near.port, packages)
        note(f"{PACKAGES} packages, cold", "s", install(server.port, wanted))
        note(f"{PACKAGES} packages, warm", "s", install(server.port, wanted))
        for path, what, unit, clients in ((small, "20 KB hot, 8 clients", "/s", 8),
                                          (large, "64 MiB hot, one client", "GB/s", 1)):
            target, = targets(near.port, [path])
            install(server.port, [target])
            load = wrk(server, target, clients, options)
            rate = load["requests"] if unit == "/s" else load["bytes"] / 1e9
            note(what, unit, rate / load["seconds"])
        note("peak RSS of a proxy", "MB", server.peak_rss_mb())
    finally:
        stop(server)
    server = start(place, far.port)
    try:
        target, = targets(far.port, [small])
        far.requests = 0
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda _: install(server.port, [target]), range(CLIENTS)))
        note(f"a cold file, {CLIENTS} clients", "requests", far.requests)
        seconds = install(server.port, targets(far.port, packages))
        note(f"{PACKAGES} packages, upstream 20 ms away, cold", "s", seconds)
    finally:
        stop(server)


def stop(server):
    """Ends a proxy, and with it all that it keeps."""
    server.stop()
    shutil.rmtree(server.data, ignore_errors=True)


def install(port, targets):
    """Fetches as apt does, ten requests ahead on one connection, and on another one from where it
    was closed between two answers; returns how long that took."""
    start = time.monotonic()
    done = 0
    while done < len(targets):
        before = done
        done += answered(port, targets[done:])
        if done == before:
            raise SystemExit(f"error: {targets[done]}: closed without an answer")
    return time.monotonic() - start


def answered(port, targets):
    """Returns how many of them were answered before the connection was closed, or all were."""
    asked = 0
    with socket.create_connection(("127.0.0.1", port), 120) as connection:
        answers = connection.makefile("rb", 1 << 20)
        for done in range(len(targets)):
            try:
                while asked < min(done + DEPTH, len(targets)):
                    connection.sendall(request(targets[asked]).encode())
                    asked += 1
                if not body(answers, targets[done]):
                    return done
            except ConnectionError:
                return done
    return len(targets)


def request(target):
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\n\r\n"


def body(answers, target):
    """Reads an answer; False where the connection ended before it."""
    status = answers.readline()
    if not status:
        return False
    if b" 200 " not in status:
        why = answers.read(300)
        raise SystemExit(f"error: {target}: {status!r} {why!r}")
    length = None
    while (line := answers.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is not None:
        missing = length
        while missing:
            piece = answers.read(min(missing, 1 << 20))
            if not piece:
                raise SystemExit(f"error: {target}: {missing} bytes are missing")
            missing -= len(piece)
        return True
    while size := int(answers.readline(), 16):
        answers.read(size + 2)
    answers.readline()
    return True


def wrk(server, target, clients, options):
    """Loads a proxy and returns what wrk saw. An answer that is not a success is an error."""
    command = [machine.find("wrk"), f"-t{min(options.wrk_threads, clients)}", f"-c{clients}",
               f"-d{options.seconds}s", "-s", TARGET, server.url("/"), "--", target]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    load = json.loads(said.splitlines()[-1])
    if load["errors"] or not load["requests"]:
        raise SystemExit(f"error: {server.name}: {load['errors']} errors, {load['requests']} answers")
    return load
