"""Sends one crafted pack to git-gate, without git, which would not make it: `bombs.py NAME HOST [SECONDS]`.
With SECONDS, the client leaves after that time.

Prints one line of JSON: the seconds until git-gate closed the connection, the bytes of the pack, and what git-gate said.
"""

import binascii
import hashlib
import json
import socket
import struct
import sys
import time
import zlib

COMMIT, TREE, BLOB, TAG, DELTA = 1, 2, 3, 4, 7
NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
NOBODY = b"A <a@bottle.test> 1700000000 +0000"
PORT = 9418


class Pack:
    """A pack under construction. Every method returns the id of its object."""

    def __init__(self):
        self.entries = []
        self.known = set()

    def add(self, kind, body):
        name = hashlib.sha1(b"%s %d\0" % (NAMES[kind], len(body)) + body).digest()
        if name not in self.known:
            self.known.add(name)
            self.entries.append(header(kind, len(body)) + zlib.compress(body, 1 if len(body) < 1 << 20 else 9))
        return name

    def blob(self, body):
        return self.add(BLOB, body)

    def tree(self, entries):
        """Entries are (mode, name, id), in git's order."""
        return self.add(TREE, b"".join(b"%s %s\0%s" % entry for entry in entries))

    def commit(self, tree, parents=(), message=b"x"):
        lines = [b"tree " + tree.hex().encode(), *(b"parent " + parent.hex().encode() for parent in parents)]
        return self.add(COMMIT, b"\n".join([*lines, b"author " + NOBODY, b"committer " + NOBODY, b"", message]))

    def tag(self, name, kind, to):
        lines = [b"object " + to.hex().encode(), b"type " + NAMES[kind], b"tag " + name, b"tagger " + NOBODY, b"", b"x"]
        return self.add(TAG, b"\n".join(lines))

    def delta(self, base, base_size, size):
        """An object of `size` bytes that repeats the first 64 KiB of its base. Its id is not computed."""
        copies = b"".join(b"\x80" for _ in range(size >> 16))
        body = number(base_size) + number(size >> 16 << 16) + copies
        self.entries.append(header(DELTA, len(body)) + base + zlib.compress(body, 9))

    def bytes(self):
        body = b"PACK" + struct.pack(">II", 2, len(self.entries)) + b"".join(self.entries)
        return body + hashlib.sha1(body).digest()


def header(kind, size):
    first, size = kind << 4 | size & 15, size >> 4
    out = bytearray()
    while size:
        out.append(first | 128)
        first, size = size & 127, size >> 7
    return bytes([*out, first])


def number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def nested(pack, entry, levels, width):
    """Trees of `levels` levels, each of which holds the next one `width` times."""
    for _ in range(levels):
        mode, below = entry
        entry = (b"40000", pack.tree([(mode, b"%02d" % n, below) for n in range(width)]))
    return entry[1]


def empty_paths(pack):
    return pack.commit(nested(pack, (b"40000", pack.tree([])), 10, 10))


def shared_blob(pack):
    return pack.commit(nested(pack, (b"100644", pack.blob(b"x")), 10, 10))


def two_to_the_40(pack):
    return pack.commit(nested(pack, (b"100644", pack.blob(b"x")), 40, 2))


def deep(pack, levels=1000):
    return pack.commit(nested(pack, (b"100644", pack.blob(b"x")), levels, 1))


def too_deep_for_git(pack):
    return deep(pack, 10_000)


def wide(pack):
    blob = pack.blob(b"x")
    return pack.commit(pack.tree([(b"100644", b"%07d" % n, blob) for n in range(1_000_000)]))


def twice(pack):
    blob = pack.blob(b"x")
    return pack.commit(pack.tree([(b"100644", b"same", blob), (b"100644", b"same", blob)]))


def tag_chain(pack):
    to, kind = pack.commit(pack.tree([])), COMMIT
    for n in range(100_000):
        to, kind = pack.tag(b"t%d" % n, kind, to), TAG
    return to


def commit_chain(pack):
    tree, parents = pack.tree([]), ()
    for n in range(100_000):
        parents = (pack.commit(tree, parents, b"%d" % n),)
    return parents[0]


def back_and_forth(pack):
    """Two directories of 20,000 files that share none, committed in turn."""
    blobs = [pack.blob(b"%d" % n) for n in range(2)]
    trees = [
        pack.tree([(b"40000", b"d", pack.tree([(b"100644", b"%06d" % n, blob) for n in range(20_000)]))])
        for blob in blobs
    ]
    parents = ()
    for n in range(2000):
        parents = (pack.commit(trees[n % 2], parents, b"%d" % n),)
    return parents[0]


def inflates(pack):
    """A blob of 1 GiB, which takes 1 MB in the pack."""
    return pack.commit(pack.tree([(b"100644", b"zeros", pack.blob(bytes(1 << 30)))]))


def large_commit(pack):
    return pack.commit(pack.tree([]), message=b"x" * (1 << 30))


def deltas(pack):
    """Objects of 4 GB each, of which every one takes 100 bytes in the pack."""
    base = pack.blob(bytes(1 << 16))
    for n in range(50):
        pack.delta(base, 1 << 16, (4000 << 20) - (n << 16))
    return pack.commit(pack.tree([(b"100644", b"base", base)]))


def many_deltas(pack):
    """Objects of 100 MB each, which together take minutes to unpack."""
    base = pack.blob(bytes(1 << 16))
    for n in range(5000):
        pack.delta(base, 1 << 16, (100 << 20) + (n << 16))
    return pack.commit(pack.tree([(b"100644", b"base", base)]))


def many_refs(pack):
    return pack.commit(pack.tree([]))


def hits(pack):
    """A file that is a million different secrets."""
    word = hashlib.sha256
    body = b"".join(b"gh%s_%s\n" % (b"p", word(b"%d" % n).hexdigest()[:36].encode()) for n in range(700_000))
    return pack.commit(pack.tree([(b"100644", b"secrets", pack.blob(body))]))


def ordinary(pack):
    """5,000 files of 10 kB that do not compress."""
    directories = []
    for d in range(50):
        seed = hashlib.shake_256(b"%d" % d).digest(100 * 7500)
        files = [
            (b"100644", b"f%02d.txt" % n, pack.blob(binascii.b2a_base64(seed[n * 7500 : n * 7500 + 7500])))
            for n in range(100)
        ]
        directories.append((b"40000", b"d%02d" % d, pack.tree(files)))
    return pack.commit(pack.tree(directories))


CASES = {
    "empty_paths": empty_paths,
    "shared_blob": shared_blob,
    "two_to_the_40": two_to_the_40,
    "deep": deep,
    "too_deep_for_git": too_deep_for_git,
    "wide": wide,
    "twice": twice,
    "tag_chain": tag_chain,
    "commit_chain": commit_chain,
    "back_and_forth": back_and_forth,
    "inflates": inflates,
    "large_commit": large_commit,
    "deltas": deltas,
    "many_deltas": many_deltas,
    "many_refs": many_refs,
    "hits": hits,
    "ordinary": ordinary,
}


def packet(line):
    return b"%04x" % (len(line) + 4) + line


def read_packet(stream):
    length = int(stream.read(4) or b"0", 16)
    return stream.read(length - 4) if length > 4 else b""


def push(host, repository, tip, pack, refs, leave_after=None):
    """Push `tip` to every ref. Return what git-gate said, and the status lines."""
    connection = socket.create_connection((host, PORT), 600)
    connection.sendall(packet(b"git-receive-pack /%s\0host=%s\0" % (repository, host.encode())))
    stream = connection.makefile("rb")
    while read_packet(stream):
        pass
    capabilities = b"\0report-status side-band-64k"
    for n, ref in enumerate(refs):
        connection.sendall(packet(b"%s %s %s%s" % (b"0" * 40, tip.hex().encode(), ref, b"" if n else capabilities)))
    connection.sendall(b"0000" + pack)
    if leave_after:
        time.sleep(leave_after)
        connection.close()
        return ""
    said = bytearray()
    while message := read_packet(stream):
        said += message[1:]
    return said.decode(errors="replace")


def main():
    name, host = sys.argv[1:3]
    pack = Pack()
    tip = CASES[name](pack)
    body = pack.bytes()
    refs = [b"refs/heads/agent/" + name.encode()]
    if name == "many_refs":
        refs = [b"refs/heads/agent/%d" % n for n in range(10_000)]
    leave = float(sys.argv[3]) if sys.argv[3:] else None
    began = time.monotonic()
    try:
        said = push(host, b"app.git", tip, body, refs, leave)
    except OSError as failure:
        said = repr(failure)
    print(json.dumps({"seconds": round(time.monotonic() - began, 2), "bytes": len(body), "said": said[:2000]}))


if __name__ == "__main__":
    main()
