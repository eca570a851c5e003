"""Supervise sidecar: an agent proposes changes through MCP, and a person on the host decides.

FORMAT.md specifies the files that this package reads and writes.
"""
