"""How many manifests and blobs a second the servers give to clients that ask without a pause."""

import hashlib
import json
import os
import pathlib
import subprocess
import urllib.parse

from . import machine
from .pushes import begin, expect
from .servers import registries
from .table import result

NAME = "bench/pull"
BLOB_LEN = 1 << 20
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
REPORT = pathlib.Path(__file__).with_name("report.lua")


class Image:
    """An image with one layer of 1 MiB, the same on every server."""

    def __init__(self, world):
        self.world = world
        self.layer = os.urandom(BLOB_LEN)
        self.config = json.dumps({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(self.layer)]},
        }).encode()
        self.manifest = json.dumps({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor("config.v1+json", self.config),
            "layers": [descriptor("layer.v1.tar", self.layer)],
        }).encode()
        self.manifest_path = f"/v2/{NAME}/manifests/latest"
        self.blob_path = f"/v2/{NAME}/blobs/{digest(self.layer)}"

    def publish(self, running):
        for server in running:
            if server.name == "nginx":
                self.lay_out(server.data / "www")
            else:
                self.push(server)

    def push(self, server):
        connection = server.connect()
        for blob in (self.layer, self.config):
            url = urllib.parse.urlsplit(begin(connection, NAME))
            query = "&".join(filter(None, [url.query, "digest=" + urllib.parse.quote(digest(blob))]))
            headers = {"Content-Type": "application/octet-stream"}
            ask(connection, "PUT", f"{url.path}?{query}", 201, blob, headers)
        headers = {"Content-Type": MANIFEST_TYPE}
        ask(connection, "PUT", self.manifest_path, 201, self.manifest, headers)

    def lay_out(self, root):
        """Gives nginx the blob as a file whose name is the path of the registry."""
        path = root / self.blob_path.lstrip("/")
        path.parent.mkdir(parents=True)
        path.write_bytes(self.layer)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor(kind, content):
    media_type = f"application/vnd.oci.image.{kind}"
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def ask(connection, method, path, status, content, headers):
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    response.read()
    expect(response, status)


def manifests(running, image, options):
    """64 clients read a manifest by its tag; and what an answer costs the server."""
    loads = alternate(registries(running), image.manifest_path, 64, options)
    return [
        result("manifest by tag, 64 clients", name, "/s", rates(seen), better="higher")
        for name, seen in loads.items()
    ] + [
        result("the same, CPU per answer", name, "us", costs(seen, "requests", 1e6), better="lower")
        for name, seen in loads.items()
    ]


def blobs(running, image, options):
    """32 clients read a blob of 1 MiB; and what a gigabyte costs the server."""
    loads = alternate(running, image.blob_path, 32, options)
    return [
        result("1 MiB blob, 32 clients", name, "/s", rates(seen), better="higher")
        for name, seen in loads.items()
    ] + [
        result("the same, CPU per GB", name, "s", costs(seen, "bytes", 1e9), better="lower")
        for name, seen in loads.items()
    ]


def alternate(running, path, clients, options):
    """Loads one server after the other, round by round; the first round only warms them."""
    loads = {server.name: [] for server in running}
    for number in range(options.rounds + 1):
        for server in running:
            before = server.cpu_seconds()
            load = wrk(server.url(path), clients, options)
            load["cpu"] = server.cpu_seconds() - before
            if number > 0:
                loads[server.name].append(load)
    return loads


def rates(loads):
    return [load["requests"] / load["seconds"] for load in loads]


def costs(loads, what, many):
    return [load["cpu"] / load[what] * many for load in loads]


def wrk(url, clients, options):
    """Loads a server and returns what wrk saw. An answer that is not a success is an error."""
    command = [machine.find("wrk"), f"-t{options.wrk_threads}", f"-c{clients}",
               f"-d{options.seconds}s", "-s", str(REPORT), "-H", f"Accept: {MANIFEST_TYPE}, */*"]
    said = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    load = json.loads(said.splitlines()[-1])
    if load["errors"] or not load["requests"]:
        raise SystemExit(f"error: {url}: {load['errors']} errors, {load['requests']} answers")
    return load
