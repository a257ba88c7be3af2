"""How long the push of one large blob takes, from the session's beginning to the last answer.

The client sends the file by sendfile, so that it costs little beside the server; the file is in
the page cache. Each push is of bytes that no server has seen: the first block differs.
"""

import hashlib
import os
import time
import urllib.parse

from .servers import registries
from .table import result

NAME = "bench/push"


class Bytes:
    """A file of incompressible bytes, which can become another."""

    def __init__(self, path, size):
        self.path, self.size = path, size
        with open(path, "wb") as file:
            left = size
            while left > 0:
                left -= file.write(os.urandom(min(left, 1 << 24)))
        self.digest = None
        self.change()

    def change(self):
        """Makes other bytes of them. The machine is then as it was before every other push:
        nothing is dirty, and there is free memory that is really there."""
        with open(self.path, "r+b") as file:
            file.write(os.urandom(64))
        with open(self.path, "rb") as file:
            self.digest = "sha256:" + digest_of(file)
        os.sync()
        # Last: what is free goes back to the host after seconds.
        touch_memory(self.path.with_suffix(".scratch"), self.size)


def touch_memory(path, size):
    """Fills as much of the page cache as a push will, and frees it.

    A virtual machine's memory that nobody touched is not there yet: the host finds each page at
    the first touch, in microseconds. That took longer than all else together, and hit at random.
    """
    block = bytes(1 << 20)
    with open(path, "wb") as file:
        for _ in range(2 * size // len(block)):
            file.write(block)
    path.unlink()


def digest_of(file):
    state = hashlib.sha256()
    while block := file.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def measure(running, world, options):
    """Measures each way of pushing on each registry, in alternation."""
    source = Bytes(world / "source", options.blob_mb * 1_000_000)
    ways = {"POST+PATCH+PUT": chunked, "POST+PUT": monolithic}
    seconds = {(way, server.name): [] for way in ways for server in registries(running)}
    cpu = {key: [] for key in seconds}
    for _ in range(options.rounds):
        for way, push in ways.items():
            for server in registries(running):
                source.change()
                used, start = server.cpu_seconds(), time.monotonic()
                push(server, source)
                seconds[way, server.name].append(time.monotonic() - start)
                cpu[way, server.name].append(server.cpu_seconds() - used)
    os.unlink(source.path)
    title = f"push of {options.blob_mb} MB, "
    return [
        result(title + way, name, "s", values, better="lower", note=f"{min(cpu[way, name]):.2f} CPU s")
        for (way, name), values in seconds.items()
    ]


def chunked(server, source):
    """As docker and podman do."""
    connection = server.connect()
    location = begin(connection, NAME)
    response = send(connection, "PATCH", location, source)
    expect(response, 202)
    put(connection, response.getheader("Location"), source.digest, None)


def monolithic(server, source):
    """As crane and containerd do."""
    connection = server.connect()
    put(connection, begin(connection, NAME), source.digest, source)


def begin(connection, name):
    """Begins an upload session and returns where it is."""
    connection.request("POST", f"/v2/{name}/blobs/uploads/")
    response = connection.getresponse()
    response.read()
    expect(response, 202)
    return response.getheader("Location")


def put(connection, location, digest, source):
    url = urllib.parse.urlsplit(location)
    query = "&".join(filter(None, [url.query, "digest=" + urllib.parse.quote(digest)]))
    expect(send(connection, "PUT", f"{url.path}?{query}", source), 201)


def send(connection, method, location, source):
    """Sends a request whose body is the file, or empty."""
    url = urllib.parse.urlsplit(location)
    connection.putrequest(method, f"{url.path}?{url.query}")
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", str(source.size if source else 0))
    connection.endheaders()
    if source:
        with open(source.path, "rb") as file:
            connection.sock.sendfile(file)
    response = connection.getresponse()
    response.read()
    return response


def expect(response, status):
    if response.status != status:
        raise SystemExit(f"error: the answer is {response.status}, not {status}")
