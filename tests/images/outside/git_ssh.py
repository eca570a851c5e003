"""The command that sshd runs for every login: notes what was asked for, then lets git's own shell decide."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
import events

command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
events.record("ssh", peer=os.environ.get("SSH_CONNECTION", "").split(" ")[0], command=command)
# Clients name a repository from the root of what is served: `host:demo.git`, `ssh://git@host/demo.git`.
for verb in ("git-upload-pack", "git-receive-pack"):
    if command.startswith(f"{verb} '"):
        path = command[len(verb) + 2 : -1].removeprefix("/srv/git").lstrip("/")
        os.chdir("/srv/git")
        os.execv("/usr/bin/git-shell", ["git-shell", "-c", f"{verb} '{path}'"])
sys.exit("only git is served here")
