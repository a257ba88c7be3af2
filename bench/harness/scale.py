"""How we live with much: many repositories, tags and blobs, the same image in many places, and pushes
beside everything else. Only ours is measured; what is asked for stands beside each figure.
"""

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import subprocess
import threading
import time

from . import pushes, servers
from .table import result

REPOSITORIES, TAGS = 10_000, 100_000
BUSY = "team000/app00"  # It has half of all tags.
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def measure(binary, world, options):
    place = world / "scale"
    place.mkdir()
    figures = {}

    def add(what, unit, value, asked=""):
        values = figures.setdefault((what, unit), ([], asked and f"asked: {asked}"))[0]
        values.extend(value if isinstance(value, list) else [value])

    lists(binary, place, options, add)
    blobs(binary, place, options, add)
    copies(binary, place, options, add)
    latency(binary, place, options, add)
    return [result(what, "boatyard", unit, values, better="lower", note=asked)
            for (what, unit), (values, asked) in figures.items()]


def lists(binary, place, options, add):
    """Starts on a root with many repositories, and asks for pages."""
    root = place / "fleet"
    fleet(root)
    for _ in range(options.rounds):
        with serving(binary, root) as (server, seconds):
            add("start, 10,000 repositories, 100,000 tags", "s", seconds, "1")
            time.sleep(2)
            add("idle RSS", "MB", rss_mb(server), "25")
            for what, path in (
                ("page of 5 tags", "/v2/team050/app50/tags/list?n=100"),
                ("page of 100 tags of 50,000", f"/v2/{BUSY}/tags/list?n=100&last=t025000"),
                ("page of 100 repositories", "/v2/_catalog?n=100&last=team050/app50"),
            ):
                asked = "20" if "tags" in what else ""
                add(what, "ms", [1000 * timed(server.port, path) for _ in range(20)], asked)
    garbage = blob(root, b"nobody's")
    with serving(binary, root, "[gc]\nevery = '1s'\ngrace_seconds = 1\n") as (server, _):
        while garbage.exists():
            time.sleep(0.05)
        time.sleep(1)
        add("idle RSS after a collection", "MB", rss_mb(server), "25")
    remove(root)


def fleet(root):
    """Writes what pushes of one image under many names would have left."""
    version(root)
    config, layer = b"{}", b"a layer"
    digests = [digest(blob(root, data)) for data in (config, layer)]
    target = digest(blob(root, manifest(config, layer)))
    for number in range(REPOSITORIES):
        repository = root / "hosted" / f"team{number // 100:03}" / f"app{number % 100:02}"
        kept = repository / "_manifests" / target
        for directory in (kept, repository / "_blobs", repository / "_tags"):
            directory.mkdir(parents=True)
        (kept / "type").write_text(MANIFEST)
        (kept / "refs").write_text("".join(f"blob {needed}\n" for needed in digests))
        for needed in digests:
            (repository / "_blobs" / needed).touch()
        tags = TAGS // 2 if number == 0 else TAGS // 2 // REPOSITORIES
        for tag in range(tags):
            (repository / "_tags" / f"t{tag:06}").write_text(target + "\n")


def blobs(binary, place, options, add):
    """A dry run over tiny blobs, half of which a repository has."""
    root = place / "blobs"
    version(root)
    links = root / "hosted" / "app" / "_blobs"
    links.mkdir(parents=True)
    for number in range(options.scale_blobs):
        path = blob(root, b"%d" % number)
        if number % 2 == 0:
            (links / digest(path)).touch()
    for _ in range(options.rounds):
        start = time.monotonic()
        command = [binary, "--root", root, "gc", "--dry-run", "--grace", "1h"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        add(f"gc --dry-run of {options.scale_blobs:,} blobs", "s", time.monotonic() - start, "seconds")
    remove(root)


def copies(binary, place, options, add):
    """The same image, uploaded whole to 20 repositories: no client knows of the others."""
    root = place / "copies"
    layer = os.urandom(100_000_000)
    with serving(binary, root) as (server, _):
        connection = connect(server.port)
        push(connection, "app0", "1", layer)
        one = disk_mb(root)
        for number in range(1, 20):
            push(connection, f"app{number}", "1", layer)
        add("disk of 20 copies of an image, of one", "x", disk_mb(root) / one, "1")
    remove(root)


def latency(binary, place, options, add):
    """Pushes of small images, alone and while a collection, a mirror and a build go on."""
    root, origin_root = place / "busy", place / "origin"
    with contextlib.ExitStack() as stack:
        origin, _ = stack.enter_context(serving(binary, origin_root))
        mirror = f"[[mirror]]\nname = 'origin'\nurl = 'http://127.0.0.1:{origin.port}'\n"
        server, _ = stack.enter_context(serving(binary, root, mirror))
        layers = mirrored(origin)
        numbers = iter(range(1 << 30))
        seconds = max(options.seconds, 2) * options.rounds
        alone = latencies(server, numbers, seconds)
        stop = threading.Event()
        works = (collecting(binary, root), mirroring(server, layers), building(binary, root, place))
        threads = [threading.Thread(target=again, args=(stop, work)) for work in works]
        [thread.start() for thread in threads]
        beside = latencies(server, numbers, seconds)
        stop.set()
        [thread.join() for thread in threads]
    add("push of a small image, alone, p50", "ms", percentile(alone, 50))
    add("push of a small image, alone, p99", "ms", percentile(alone, 99))
    add("push of a small image, beside others, p50", "ms", percentile(beside, 50))
    add("push of a small image, beside others, p99", "ms", percentile(beside, 99))
    add("p99 beside others, of p99 alone", "x", percentile(beside, 99) / percentile(alone, 99), "2")
    remove(root)
    remove(origin_root)


def latencies(server, numbers, seconds):
    """Returns how long pushes took, in ms, one after another."""
    connection, taken = connect(server.port), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        layer = os.urandom(100_000)
        start = time.monotonic()
        push(connection, "team/app", f"t{next(numbers)}", layer)
        taken.append(1000 * (time.monotonic() - start))
    return taken


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def again(stop, work):
    while not stop.is_set():
        work()


def collecting(binary, root):
    return lambda: subprocess.run([binary, "--root", root, "gc"], check=True,
                                  stdout=subprocess.DEVNULL)


def mirrored(origin):
    """Pushes layers to the upstream and returns their paths in the mirror."""
    connection = connect(origin.port)
    paths = []
    for number in range(40):
        layer = os.urandom(20_000_000)
        push(connection, "app", f"t{number}", layer)
        paths.append(f"/v2/origin/app/blobs/{name(layer)}")
    return iter(paths)


def mirroring(server, paths):
    def work():
        path = next(paths, None)
        if path is None:
            return time.sleep(0.1)
        return subprocess.run(["curl", "-sSf", "-o", "/dev/null", server.url(path)], check=True)
    return work


def building(binary, root, place):
    context = place / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY data /\n")

    def work():
        (context / "data").write_bytes(os.urandom(5_000_000))
        subprocess.run([binary, "--root", root, "build", "-q", "-t", "built", context], check=True,
                       stdout=subprocess.DEVNULL)
    return work


@contextlib.contextmanager
def serving(binary, root, config=""):
    """Runs a server on a root; gives it and how long it took until it was ready."""
    path = root.with_suffix(".toml")
    path.write_text(config)
    port = servers.free_port()
    command = ["env", f"BOATYARD_CONFIG={path}", binary, "--root", root, "serve",
               "--listen", f"127.0.0.1:{port}", "--proxy-listen", f"127.0.0.1:{servers.free_port()}"]
    start = time.monotonic()
    with open(root.with_suffix(".log"), "wb") as log:
        server = Running(subprocess.Popen(command, stdout=log, stderr=log), port)
    try:
        while not is_ready(port):
            if server.process.poll() is not None:
                raise SystemExit(f"error: no start:\n{root.with_suffix('.log').read_text()}")
            time.sleep(0.002)
        yield server, time.monotonic() - start
    finally:
        server.process.terminate()
        server.process.wait(60)


class Running:
    """A server that is ready."""

    def __init__(self, process, port):
        self.process, self.port = process, port

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"


def is_ready(port):
    with contextlib.suppress(OSError):
        connection = connect(port)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def connect(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def timed(port, path):
    connection = connect(port)
    connection.connect()
    start = time.monotonic()
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    pushes.expect(response, 200)
    return time.monotonic() - start


def push(connection, repository, tag, layer):
    """Pushes an image of one layer, as a client does that asks for nothing first."""
    config = json.dumps({"tag": tag}).encode()
    for data in (layer, config):
        place = pushes.begin(connection, repository).partition("?")
        url = "?".join(filter(None, (place[0], f"{place[2]}&digest={name(data)}".lstrip("&"))))
        answer(connection, "PUT", url, data, "application/octet-stream")
    answer(connection, "PUT", f"/v2/{repository}/manifests/{tag}", manifest(config, layer), MANIFEST)


def answer(connection, method, url, body, kind):
    connection.request(method, url, body, {"Content-Type": kind})
    response = connection.getresponse()
    response.read()
    pushes.expect(response, 201)


def manifest(config, layer):
    describe = lambda kind, data: {"mediaType": kind, "digest": name(data), "size": len(data)}
    return json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": describe(CONFIG, config), "layers": [describe(LAYER, layer)],
    }).encode()


def name(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def version(root):
    root.mkdir()
    (root / "version").write_text("boatyard 1\n")


def blob(root, data):
    """Writes a blob where it belongs, and returns its path."""
    digits = name(data).partition(":")[2]
    path = root / "blobs" / "sha256" / digits[:2] / digits
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def digest(path):
    return f"sha256:{path.name}"


def rss_mb(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1000


def disk_mb(root):
    said = subprocess.run(["du", "-sk", root], check=True, capture_output=True, text=True)
    return int(said.stdout.split()[0]) / 1000


def remove(root):
    """Faster than Python's own, where there are many files."""
    subprocess.run(["rm", "-rf", root], check=True)
