#!/bin/sh
# Adds the bottle's certificate authority, and the extra roots for upstream connections, to the certificates that the image
# trusts.
#
# Runs as root in the agent's container, which needs no capability, and reads the certificates (PEM) from standard input. It
# needs no update-ca-certificates, which takes more than a second, but writes that program's source file, so that a
# later run of it gives the same bundle. It can run again, with another certificate as well, which replaces the earlier one.
# Prints the number of certificates in the bundle.
#
# With a directory as its argument, it writes both files below that directory, and needs no root.
set -eu
umask 022

below=${1:-}
images=/etc/ssl/certs/ca-certificates.crt
bundle=$below$images
source=$below/usr/local/share/ca-certificates/claude-bottle.crt

fail() { echo "install-ca: $1" >&2; exit 1; }

mkdir -p "${bundle%/*}" "${source%/*}"
new=$(mktemp "$bundle.XXXXXX")
incoming=$(mktemp "$source.XXXXXX")
trap 'rm -f "$new" "$incoming"' EXIT

cat > "$incoming"
begins=$(grep -c '^-----BEGIN CERTIFICATE-----' "$incoming") || fail "expected a certificate on standard input"
[ "$(grep -c '^-----END CERTIFICATE-----' "$incoming")" = "$begins" ] || fail "a certificate on standard input is cut off"
! grep -q 'PRIVATE KEY' "$incoming" || fail "standard input contains a private key; expected certificates only"

# The path of Debian and Alpine, which the agent's environment names, or else that of Fedora, SUSE or OpenSSL.
for roots in "$bundle" "$images" /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem /dev/null; do
  [ ! -r "$roots" ] || break
done
[ -e "$source" ] || : > "$source"

# Prints all roots without those of an earlier run and those of this run, then those of this run. Certificates are compared
# by their base64 text, because bundles break lines differently.
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
