"""Code that the sidecars share. Each build context contains a copy as the package `sidecar`."""
