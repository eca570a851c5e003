"""Git remotes: over ssh (user git) and over HTTP(S) by git's own CGI program."""

import base64
import os
import pathlib
import subprocess

ROOT = pathlib.Path("/srv/git")
TOKEN = ""


def make_repositories(names):
    for name in names:
        repository = ROOT / f"{name}.git"
        if repository.exists():
            continue
        git("init", "-q", "--bare", "-b", "main", repository)
        git("-C", repository, "config", "http.receivepack", "true")
        tree = git("-C", repository, "mktree", stdin="")
        commit = git("-C", repository, "commit-tree", "-m", "Begin", tree.strip())
        git("-C", repository, "update-ref", "refs/heads/main", commit.strip())


def git(*arguments, stdin=None):
    """Runs git as the user that owns the repositories."""
    author = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Outside"), ("EMAIL", "outside@outside.test"))}
    return subprocess.run(
        ["git", *map(str, arguments)], check=True, capture_output=True, text=True, input=stdin, user="git", group="git",
        env={"PATH": os.environ["PATH"], "HOME": "/home/git", **author},
    ).stdout


def start_sshd(data, names):
    key = data / "ssh_host_ed25519_key"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, capture_output=True, text=True)
    public = " ".join((data / "ssh_host_ed25519_key.pub").read_text().split()[:2])
    (data / "known_hosts").write_text("".join(f"{name} {public}\n" for name in names))
    # sshd wants the file to belong to the user or to root, whoever owns the mounted one.
    mounted = pathlib.Path("/keys/authorized_keys")
    (data / "authorized_keys").write_bytes(mounted.read_bytes() if mounted.exists() else b"")
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    return subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/opt/outside/sshd_config"])


def allowed(header):
    """Return true if an Authorization header has the token."""
    if not TOKEN:
        return True
    scheme, _, value = (header or "").partition(" ")
    if scheme.lower() == "bearer":
        return value == TOKEN
    try:
        return scheme.lower() == "basic" and base64.b64decode(value).decode().partition(":")[2] == TOKEN
    except ValueError:
        return False


def backend(method, path, query, headers, peer, body):
    """Hands a request to `git http-backend`: its status, headers and body. `body` is a file that holds the request's."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/home/git",
        "GIT_PROJECT_ROOT": str(ROOT),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(os.fstat(body.fileno()).st_size),
        "REMOTE_ADDR": peer,
        "REMOTE_USER": "outside",
    }
    for header, variable in (("Content-Encoding", "HTTP_CONTENT_ENCODING"), ("Git-Protocol", "GIT_PROTOCOL")):
        if header in headers:
            environment[variable] = headers[header]
    done = subprocess.run(["git", "http-backend"], stdin=body, capture_output=True, user="git", group="git", env=environment)
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    answer = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if ": " in line]
    status = int(next((value.split()[0] for name, value in answer if name == "Status"), "200" if answer else "500"))
    return status, [pair for pair in answer if pair[0] != "Status"], content
