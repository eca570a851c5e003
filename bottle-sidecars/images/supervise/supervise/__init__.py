"""The supervise sidecar: the agent asks through MCP, a person on the host decides.

The files that this package reads and writes are specified in FORMAT.md beside its Dockerfile.
"""
