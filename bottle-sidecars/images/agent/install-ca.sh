#!/bin/sh
# Adds the authority that the agent faces, and those that its upstream connections trust besides, to the certificates
# that the image trusts.
#
# Run as root in the agent's container, which may have no capability at all, with the certificates (PEM) on
# standard input. Works in images without update-ca-certificates, and in no time in those with it, where that program takes more
# than a second: it is left the source file, so that a later run of it comes to the same bundle. Safe to run again, also
# with another certificate: the earlier one goes. Prints the number of certificates in the bundle.
set -eu
umask 022

bundle=/etc/ssl/certs/ca-certificates.crt
source=/usr/local/share/ca-certificates/claude-bottle.crt

fail() { echo "install-ca: $1" >&2; exit 1; }

mkdir -p "${bundle%/*}" "${source%/*}"
new=$(mktemp "$bundle.XXXXXX")
incoming=$(mktemp "$source.XXXXXX")
trap 'rm -f "$new" "$incoming"' EXIT

cat > "$incoming"
begins=$(grep -c '^-----BEGIN CERTIFICATE-----' "$incoming") || fail "expected a certificate on standard input"
[ "$(grep -c '^-----END CERTIFICATE-----' "$incoming")" = "$begins" ] || fail "a certificate on standard input is cut off"
! grep -q 'PRIVATE KEY' "$incoming" || fail "a private key has no place in this container"

# Debian's and Alpine's place, which the agent's environment names; else what Fedora, SUSE or OpenSSL itself use.
for roots in "$bundle" /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem /dev/null; do
  [ ! -r "$roots" ] || break
done
[ -e "$source" ] || : > "$source"

# Every root but ours, be it the earlier ones or these, then ours. Certificates are compared by their base64 text,
# since bundles break lines differently.
awk '
  function finish() {
    if (FILENAME == ARGV[3]) { if (!(body in ours)) printf "%s", text }
    else { ours[body] = 1; if (FILENAME == ARGV[2]) last = last text }
  }
  { sub(/\r$/, "") }
  /^-----BEGIN CERTIFICATE-----/ { inside = 1; body = ""; text = "" }
  inside { text = text $0 "\n" }
  /^-----END CERTIFICATE-----/ { if (inside) finish(); inside = 0; next }
  inside && !/^-----/ { gsub(/[ \t]/, ""); body = body $0 }
  END { printf "%s", last }
' "$source" "$incoming" "$roots" > "$new"

chmod 0644 "$new" "$incoming"
mv -f "$incoming" "$source"
mv -f "$new" "$bundle"
grep -c -e '-----BEGIN CERTIFICATE-----' "$bundle"
