#!/bin/sh
# Builds the stand-in with this host's Go and prints the image's tag. The tag is the hash of what goes into
# it, so an image that exists already is current. The engine pulls nothing.
#
#   CA_BUNDLE   roots for upstream servers (default: the host's own)
set -eu
cd "$(dirname "$0")"
bundle=${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}

hash=$(find . -type f ! -name '*_test.go' ! -name README.md | LC_ALL=C sort | xargs sha256sum | cat - "$bundle" | sha256sum | cut -c1-16)
tag=bottle-e2e/pipelock-stand-in:$hash
if docker image inspect "$tag" >/dev/null 2>&1; then
    echo "$tag"
    exit
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags '-s -w' -o "$context/pipelock" .
cp Dockerfile "$context/"
cp "$bundle" "$context/ca-certificates.crt"
chmod 0644 "$context/ca-certificates.crt"
docker build --quiet --tag "$tag" "$context" >/dev/null
echo "$tag"
