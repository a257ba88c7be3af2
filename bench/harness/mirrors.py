"""A cold pull by many clients at once through a mirror: what it costs the upstream, how soon the
first byte is there, and how fast a warm one is. The peer is docker-registry as a pull-through cache.
"""

import concurrent.futures
import hashlib
import http.client
import http.server
import json
import os
import threading
import time

from . import machine, servers
from .table import result

LAYERS, LAYER_BYTES = 8, 4_000_000
# What an upstream behind a line of 100 MB/s with 20 ms sends.
DELAY, CHUNK, PAUSE = 0.02, 1_000_000, 0.01


class Upstream(http.server.ThreadingHTTPServer):
    """A registry with one image, which counts what it is asked for and takes its time."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs = {}
        layers = [os.urandom(LAYER_BYTES) for _ in range(LAYERS)]
        config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
        describe = lambda kind, data: {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": self.add(data), "size": len(data),
        }
        self.manifest = json.dumps({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", config),
            "layers": [describe("layer.v1.tar", layer) for layer in layers],
        }).encode()
        self.digest = "sha256:" + hashlib.sha256(self.manifest).hexdigest()
        self.lock, self.requests, self.bytes = threading.Lock(), 0, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def add(self, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def count(self, requests, size):
        with self.lock:
            self.requests += requests
            self.bytes += size

    def reset(self):
        self.requests = self.bytes = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send):
        upstream = self.server
        path = self.path.split("?")[0]
        if path != "/v2/":
            upstream.count(1, 0)
            time.sleep(DELAY)
        name = path.rsplit("/", 1)[-1]
        kind, body, digest = "application/json", b"{}", None
        if "/manifests/" in path:
            kind = "application/vnd.oci.image.manifest.v1+json"
            body, digest = upstream.manifest, upstream.digest
        elif "/blobs/" in path:
            kind, body, digest = "application/octet-stream", upstream.blobs[name], name
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-API-Version", "registry/2.0")
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        for start in range(0, len(body) if send else 0, CHUNK):
            piece = body[start:start + CHUNK]
            self.wfile.write(piece)
            upstream.count(0, len(piece))
            if len(body) > CHUNK:
                time.sleep(PAUSE)


def measure(binary, world, options):
    servers.BINARY = binary
    upstream = Upstream()
    mirrors = {"boatyard": boatyard}
    if machine.find("docker-registry"):
        mirrors["docker-registry"] = docker_registry
    values = {}
    for number in range(options.rounds):
        for clients in (16, 100):
            for name, start in mirrors.items():
                place = world / f"mirror-{name}-{clients}-{number}"
                place.mkdir()
                server, prefix = start(place, upstream)
                try:
                    upstream.reset()
                    one_round(values, server, prefix, upstream, clients)
                finally:
                    server.stop()
    upstream.shutdown()
    return [
        result(what, name, unit, got, better="lower" if unit != "MB/s" else "higher")
        for (what, unit), by_name in values.items()
        for name, got in by_name.items()
    ]


def one_round(values, server, prefix, upstream, clients):
    def add(what, unit, value):
        values.setdefault((what, unit), {}).setdefault(server.name, []).append(value)

    title = f"mirror, cold, {clients} clients, "
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        start = time.monotonic()
        pulls = [pool.submit(pull, server.port, prefix, upstream) for _ in range(clients)]
        first = [pull.result() for pull in pulls]
        add(title + "all done", "s", time.monotonic() - start)
        add(title + "first byte of a blob", "ms", 1000 * sorted(first)[len(first) // 2])
        add(title + "upstream requests", "", upstream.requests)
        add(title + "upstream bytes / image", "x", upstream.bytes / (LAYERS * LAYER_BYTES))
    start = time.monotonic()
    for _ in range(3):
        pull(server.port, prefix, upstream)
    seconds = (time.monotonic() - start) / 3
    add("mirror, warm, one client", "MB/s", LAYERS * LAYER_BYTES / 1e6 / seconds)


def pull(port, prefix, upstream):
    """Pulls the image, and returns how long the first byte of its first layer took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    manifest = json.loads(get(connection, f"/v2/{prefix}bench/app/manifests/1")[0])
    first = None
    for blob in [manifest["config"], *manifest["layers"]]:
        body, waited = get(connection, f"/v2/{prefix}bench/app/blobs/{blob['digest']}")
        if len(body) != blob["size"]:
            raise SystemExit(f"error: a blob has {len(body)} bytes, not {blob['size']}")
        if first is None and blob is not manifest["config"]:
            first = waited
    return first


def get(connection, path):
    start = time.monotonic()
    connection.request("GET", path, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    answer = connection.getresponse()
    body = answer.read(1)
    waited = time.monotonic() - start
    body += answer.read()
    if answer.status != 200:
        raise SystemExit(f"error: {path}: {answer.status} {body[:300]!r}")
    return body, waited


def boatyard(place, upstream):
    config = place / "boatyard.toml"
    url = f"http://127.0.0.1:{upstream.server_port}"
    config.write_text(f"[[mirror]]\nname = 'up'\nurl = '{url}'\n")
    data, port = servers.place(place, "boatyard")
    command = [servers.BINARY, "--root", data / "root", "--config", config, "serve",
               "--listen", f"127.0.0.1:{port}"]
    return servers.Server("boatyard", port, data, command), "up/"


def docker_registry(place, upstream):
    data, port = servers.place(place, "docker-registry")
    config = data / "config.yml"
    text = servers.REGISTRY_CONFIG.format(data=data / "data", port=port)
    config.write_text(f"{text}proxy: {{remoteurl: \"http://127.0.0.1:{upstream.server_port}\"}}\n")
    command = [machine.find("docker-registry"), "serve", config]
    return servers.Server("docker-registry", port, data, command), ""
