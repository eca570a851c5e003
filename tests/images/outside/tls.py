"""The certificate: signed by the authority of the test when one is mounted, else by one made here."""

import ipaddress
import pathlib
import ssl
import subprocess


def server_context(data, names):
    mounted = pathlib.Path("/ca")
    if (mounted / "ca.key").exists():
        authority, key = mounted / "ca.crt", mounted / "ca.key"
        (data / "ca.crt").write_bytes(authority.read_bytes())
    else:
        authority, key = data / "ca.crt", data / "ca.key"
        openssl(
            "req", "-x509", *NEW_KEY, "-keyout", key, "-out", authority, "-days", "7", "-subj", "/CN=outside test authority",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )
    openssl(
        "req", "-x509", *NEW_KEY, "-keyout", data / "server.key", "-out", data / "server.crt", "-days", "7",
        "-subj", f"/CN={names[0]}", "-CA", authority, "-CAkey", key,
        "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth",
        "-addext", "keyUsage=critical,digitalSignature",
        "-addext", "subjectAltName=" + ",".join(alternative(name) for name in names),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(data / "server.crt", data / "server.key")
    context.set_alpn_protocols(["http/1.1"])

    def remember(connection, name, _context):
        connection.server_name = name

    context.sni_callback = remember
    return context


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def alternative(name):
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True)
