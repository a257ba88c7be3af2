"""Upstreams of caching proxies: one that is fast, and one that is 20 ms away."""

import asyncio
import hashlib
import os
import threading

from . import machine, servers

DELAY = 0.02

CONFIG = """\
daemon off;
worker_processes 1;
pid {data}/nginx.pid;
error_log {data}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    add_header Cache-Control "max-age=86400";
    default_type application/octet-stream;
    server {{ listen 127.0.0.1:{port}; root {data}/www; }}
}}
"""


class Files:
    """Files of random bytes. Their names are their digests, so that every proxy may keep them."""

    def __init__(self):
        self.by_path = {}

    def add(self, size):
        body = os.urandom(size)
        path = f"/bench/dists/b/main/by-hash/SHA256/{hashlib.sha256(body).hexdigest()}"
        self.by_path[path] = body
        return path


def fast(world, files):
    """nginx, with the files on the disk."""
    data, port = servers.place(world, "origin")
    config = data / "nginx.conf"
    config.write_text(CONFIG.format(data=data, port=port))
    for directory in (world, data):
        directory.chmod(0o755)
    for path, body in files.by_path.items():
        file = data / "www" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    return servers.Server("origin", port, data, [machine.find("nginx"), "-c", config, "-p", data])


class Far:
    """An upstream at the end of a line of 20 ms: each answer leaves so long after its request came,
    however many are under way on the connection. It counts what it is asked."""

    def __init__(self, files):
        self.files, self.requests = files, 0
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self.run, args=(started,), daemon=True).start()
        started.wait()

    def run(self, started):
        async def begin():
            self.port = servers.free_port()
            await asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=512)
            started.set()

        self.loop.create_task(begin())
        self.loop.run_forever()

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def serve(self, reader, writer):
        # The handshake takes a round trip, too.
        await asyncio.sleep(DELAY)
        answers = asyncio.Queue()
        writing = asyncio.create_task(self.write(answers, writer))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                path = "/" + path.split("://", 1)[1].split("/", 1)[1] if "://" in path else path
                self.requests += 1
                answers.put_nowait((self.loop.time() + DELAY, self.files.by_path.get(path)))
        except (asyncio.IncompleteReadError, ConnectionError):
            answers.put_nowait(None)
        await writing

    async def write(self, answers, writer):
        try:
            while (answer := await answers.get()) is not None:
                due, body = answer
                await asyncio.sleep(max(0, due - self.loop.time()))
                status = "200 OK" if body is not None else "404 Not Found"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body or b'')}\r\n"
                             "Content-Type: application/octet-stream\r\n"
                             "Cache-Control: max-age=86400\r\n\r\n".encode())
                writer.write(body or b"")
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()
