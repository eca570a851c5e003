"""Makes the code of egress, git-gate and supervise write audit lines to standard output. Takes a scratch directory."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import gitgate
from egress import audit
from supervise.proposals import Queue, Refused

scratch = Path(sys.argv[1])

audit.emit("started", port=9099, routes=1)
audit.emit("reload", outcome="failed", reason="routes.yaml: not YAML", routes_sha256="0" * 64)
audit.Record("GET", "api.example.com", 443, "/v1/x?q=hidden", route="api", injected=True, status=200).write()
audit.Record("GET", "api.example.com", 443, "/v2", status=403, refused="path").write()
finding = {"pattern": "github-token", "place": "header x-note"}
audit.Record("GET", "api.example.com", 443, "/v1", status=403, refused="dlp", finding=finding).write()
audit.Record("CONNECT", None, None, None, error="client-tls").write()

os.dup2(1, gitgate.AUDIT_FD)
began = time.monotonic()
gitgate.audit("fetch", "app", "done", began)
gitgate.audit("push-begin", "app", "refused", began, reason="pushing to `app` is turned off for this bottle")
gitgate.audit("push", "app", "unknown", began, reason="no sign of life", tips=["0" * 40], bytes=1)

for name in ("queue", "decisions"):
    (scratch / name).mkdir()
queue = Queue(scratch / "queue", scratch / "decisions", "demo-1")
verdicts = {"a.example.com": "approved", "b.example.com": "denied", "c.example.com": "approved"}
for host, verdict in verdicts.items():
    proposal, _ = queue.propose("allow_host", {"host": host}, "the tests need it")
    bound_to = hashlib.sha256(host.encode()).hexdigest() if host.startswith("c.") else proposal.sha256
    decision = {
        "version": 1, "id": proposal.id, "proposal_sha256": bound_to, "decision": verdict, "reason": "because",
        "decided_at": "2026-01-02T03:04:05.678Z",
    }
    (scratch / "decisions" / f"{proposal.id}.json").write_text(json.dumps(decision))
    queue.outcome(proposal.id)
lost, _ = queue.propose("allow_host", {"host": "d.example.com"}, "the tests need it")
queue.note_refusal("propose_allow_host", Refused("full", "").code)
queue.close()
(scratch / "queue/proposals" / f"{lost.id}.json").unlink()
Queue(scratch / "queue", scratch / "decisions", "demo-1").close()
