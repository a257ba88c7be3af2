"""Large documents of package indexes through the cache proxy: a page of a Python project and an npm
document, beside no proxy at all and nginx's proxy_cache, which passes on the bytes as they are. Ours
are rendered once: with files below the page, and tarballs where the client needs them.
"""

import json
import shutil

from . import machine, origins, proxies, servers
from .table import result

# About as many as the largest projects have.
FILES, VERSIONS, README = 12_000, 4_000, 4_000
PAGE, DOCUMENT = "/simple/big/", "/big"
# What is in the documents that we give, and in no upstream's.
RENDERED = {f"/pypi{PAGE}": b'"files/big-0.0-py3-none-any.whl', f"/npm{DOCUMENT}": b"/npm/big/-/big-0.0.0.tgz"}
CONFIG = """\
[log]
access = false
[proxy]
listen = ['127.0.0.1:{port}']
quiet = true
[[proxy.upstream]]
name = 'pypi'
url = 'http://127.0.0.1:{origin}'
ecosystem = 'pypi'
[[proxy.upstream]]
name = 'npm'
url = 'http://127.0.0.1:{origin}'
ecosystem = 'npm'
"""


def page():
    files = [
        {
            "filename": f"big-{number}.0-py3-none-any.whl",
            "url": f"http://files.example/packages/{number:060x}/big-{number}.0-py3-none-any.whl",
            "hashes": {"sha256": f"{number:064x}"},
            "requires-python": ">=3.8",
            "core-metadata": {"sha256": f"{number + FILES:064x}"},
            "upload-time": "2026-01-01T00:00:00.000000Z",
            "size": 1_000_000,
            "yanked": False,
        }
        for number in range(FILES)
    ]
    about = {"meta": {"api-version": "1.1"}, "name": "big", "files": files, "versions": []}
    return json.dumps(about).encode()


def document():
    versions = {
        f"{number}.0.0": {
            "name": "big",
            "version": f"{number}.0.0",
            "description": "x" * README,
            "dependencies": {f"dependency-{n}": f"^{n}.0.0" for n in range(20)},
            "dist": {
                "tarball": f"http://registry.example/big/-/big-{number}.0.0.tgz",
                "shasum": f"{number:040x}",
                "integrity": "sha512-" + "A" * 86 + "==",
            },
        }
        for number in range(VERSIONS)
    }
    times = {version: "2026-01-01T00:00:00.000Z" for version in versions}
    about = {"name": "big", "dist-tags": {"latest": "0.0.0"}, "versions": versions, "time": times}
    return json.dumps(about).encode()


def boatyard(world, origin):
    data, port = servers.place(world, "boatyard")
    config = data / "boatyard.toml"
    config.write_text(CONFIG.format(port=port, origin=origin))
    command = [servers.BINARY, "--root", data / "root", "--config", config, "serve",
               "--listen", "127.0.0.1:0"]
    return servers.Server("boatyard", port, data, command)


def measure(binary, world, options):
    servers.BINARY = binary
    place = world / "packages"
    place.mkdir()
    world.chmod(0o755)
    files = origins.Files()
    # nginx gives a directory's index.html.
    files.by_path = {f"{PAGE}index.html": page(), DOCUMENT: document()}
    origin = origins.fast(place, files)
    values = {}

    def note(what, unit, name, value):
        values.setdefault((what, unit), {}).setdefault(name, []).append(value)

    def check(server, path, rendered):
        connection = server.connect()
        connection.request("GET", path, headers={"User-Agent": "bench"})
        body = connection.getresponse().read()
        connection.close()
        if rendered not in body:
            raise SystemExit(f"error: {path}: it is passed on as it is")

    def loads(server, wanted):
        for what, path in wanted:
            cold = proxies.install(server.port, [path])
            if server.name == "boatyard":
                check(server, path, RENDERED[path])
            if server is not origin:
                note(f"{what}, cold", "s", server.name, cold)
            load = proxies.wrk(server, path, 8, options)
            note(f"{what}, hot, 8 clients", "/s", server.name, load["requests"] / load["seconds"])
            note(f"{what}, CPU per answer", "ms", server.name, cpu(server, path, options))
        note("peak RSS with large documents", "MB", server.name, server.peak_rss_mb())

    def cpu(server, path, options):
        before = server.cpu_seconds()
        load = proxies.wrk(server, path, 8, options)
        return (server.cpu_seconds() - before) / load["requests"] * 1000

    pypi, npm = f"PyPI page of {FILES:,} files", f"npm document of {VERSIONS:,} versions"
    plain = [(pypi, PAGE), (npm, DOCUMENT)]
    below = [(pypi, f"/pypi{PAGE}"), (npm, f"/npm{DOCUMENT}")]
    try:
        origin.name = "no proxy"
        for _ in range(options.rounds):
            loads(origin, plain)
            for start, wanted in ((boatyard, below), (proxies.nginx, plain)):
                server = start(place, origin.port)
                try:
                    loads(server, wanted)
                finally:
                    server.stop()
                    shutil.rmtree(server.data, ignore_errors=True)
    finally:
        origin.stop()
    return [
        result(what, name, unit, got, better="higher" if unit == "/s" else "lower")
        for (what, unit), by_name in values.items()
        for name, got in by_name.items()
    ]
