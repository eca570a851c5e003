"""Lays out what pip and npm have fetched as the files of a package index and of a registry.

    mirror.py WHEELS CACHE REGISTRY BEFORE TO

    TO/simple/<name>/index.json     the page of a Python project (PEP 691), with the hash of its metadata (PEP 714)
    TO/files/<wheel>[.metadata]     the wheels, and the metadata that pip reads first (PEP 658)
    TO/npm/<name>/packument.json    the versions of an npm package that were published before BEFORE, in npm's short form
    TO/npm/<name>/-/<tarball>       the tarballs that npm has fetched

The pages are there in gzip as well. CACHE is npm's: an index of lines, each with a URL and the hash of its content.
"""

import base64
import gzip
import hashlib
import json
import pathlib
import re
import sys
import urllib.parse
import zipfile

FILES, REGISTRY = "https://files.example.com", "https://npm.example.com"

# What npm's short form has of each version.
KEPT = (
    "name version deprecated dependencies optionalDependencies devDependencies bundleDependencies peerDependencies "
    "peerDependenciesMeta bin directories dist engines cpu os libc _hasShrinkwrap hasInstallScript funding"
).split()


def main(wheels, cache, registry, before, to):
    to = pathlib.Path(to)
    projects, packages, tarballs = python(pathlib.Path(wheels), to), 0, 0
    for url, content in cached(pathlib.Path(cache) / "_cacache"):
        path = urllib.parse.unquote(url.removeprefix(registry.rstrip("/") + "/"))
        if path.endswith(".tgz"):
            write(to / "npm" / path, content)
            tarballs += 1
        elif "/-/" not in path:
            page(to / "npm" / path / "packument.json", short(json.loads(content), before))
            packages += 1
    if projects < 6 or tarballs < 300 or packages < tarballs:
        raise SystemExit(f"fetched only {projects} Python projects, {packages} npm packages, {tarballs} npm tarballs")
    print(f"{projects} Python projects, {packages} npm packages, {tarballs} npm tarballs")


def python(wheels, to):
    projects = 0
    for wheel in sorted(wheels.iterdir()):
        name, version = wheel.name.split("-")[:2]
        with zipfile.ZipFile(wheel) as archive:
            path = next(path for path in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", path))
            metadata = archive.read(path)
        write(to / "files" / f"{wheel.name}.metadata", metadata)
        (to / "files" / wheel.name).write_bytes(wheel.read_bytes())
        file = {
            "filename": wheel.name,
            "url": f"{FILES}/{wheel.name}",
            "hashes": {"sha256": sha256(wheel.read_bytes())},
            "core-metadata": {"sha256": sha256(metadata)},
        }
        name = re.sub(r"[-_.]+", "-", name).lower()
        answer = {"meta": {"api-version": "1.1"}, "name": name, "versions": [version], "files": [file]}
        page(to / "simple" / name / "index.json", answer)
        projects += 1
    return projects


def cached(cache):
    """Every URL of npm's cache with its content."""
    for bucket in (cache / "index-v5").glob("*/*/*"):
        for line in bucket.read_text().splitlines():
            if "\t" not in line:
                continue
            entry = json.loads(line.split("\t", 1)[1])
            algorithm, digest = entry["integrity"].split(" ")[0].split("-", 1)
            digest = base64.b64decode(digest).hex()
            content = cache / "content-v2" / algorithm / digest[:2] / digest[2:4] / digest[4:]
            yield entry["metadata"]["url"], content.read_bytes()


def short(packument, before):
    """The short form of a packument, as it was at a date."""
    published = packument["time"]
    versions = {
        number: {key: version[key] for key in KEPT if key in version}
        for number, version in packument["versions"].items()
        if published[number] <= before
    }
    for version in versions.values():
        tarball = urllib.parse.urlsplit(version["dist"]["tarball"]).path
        version["dist"]["tarball"] = REGISTRY + tarball
    tags = {tag: number for tag, number in packument["dist-tags"].items() if number in versions}
    # Without this tag npm takes no package at all. At a date it takes the newest release for it.
    released = (number for number in versions if "-" not in number)
    tags.setdefault("latest", max(released, key=numbers, default=next(reversed(versions), None)))
    return {"name": packument["name"], "dist-tags": tags, "modified": before, "versions": versions}


def numbers(version):
    return [int(part) for part in version.split("+")[0].split(".")]


def page(path, value):
    text = json.dumps(value, separators=(",", ":")).encode()
    write(path, text)
    write(path.with_name(path.name + ".gz"), gzip.compress(text, mtime=0))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
