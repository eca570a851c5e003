"""Requests of an agent, and tokens, made with a fixed seed. No token is in this file as it is."""

import base64
import gzip
import hashlib
import json
import random
import string
import sysconfig
import time
import urllib.parse
import uuid
import zlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ALPHANUMERIC = string.ascii_letters + string.digits
NOW = 1_800_000_000


def text(generator: random.Random, length: int, of: str = ALPHANUMERIC) -> str:
    return "".join(generator.choices(of, k=length))


def checked(generator: random.Random, length: int) -> str:
    """A token's text with the checksum of GitHub and npm."""
    value, check = zlib.crc32((body := text(generator, length - 6)).encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        check = (string.digits + string.ascii_uppercase + string.ascii_lowercase)[digit] + check
    return body + check


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def jwt(generator: random.Random, claims: dict[str, object], alg: str = "RS256") -> str:
    signature = base64.urlsafe_b64encode(generator.randbytes(256 if alg == "RS256" else 32)).rstrip(b"=").decode()
    return f"{segment({'alg': alg, 'typ': 'JWT'})}.{segment(claims)}.{signature}"


def tokens() -> dict[str, str]:
    """One token of each format, random."""
    r = random.Random(7)
    upper = string.ascii_uppercase + "234567"
    url = ALPHANUMERIC + "-_"
    private = rsa.generate_private_key(65537, 2048)
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "AWS id": "AK" + "IA" + text(r, 16, upper),
        "AWS secret": "aws_secret_" + "access_key = " + text(r, 40, ALPHANUMERIC + "/+"),
        "GitHub": "gh" + "p_" + checked(r, 36),
        "GitHub, no checksum": "gh" + "s_" + text(r, 36),
        "GitHub, fine-grained": "github_" + "pat_" + text(r, 22) + "_" + text(r, 59),
        "GitLab": "gl" + "pat-" + text(r, 20, url),
        "GitLab, routable": "gl"
        + "pat-"
        + text(r, 27, url)
        + ".01."
        + text(r, 9, "0123456789" + string.ascii_lowercase),
        "Anthropic": "sk-" + "ant-api03-" + text(r, 93, url) + "AA",
        "Anthropic, OAuth": "sk-" + "ant-oat01-" + text(r, 93, url) + "AA",
        "OpenAI": "sk-" + text(r, 20) + "T3Blbk" + "FJ" + text(r, 20),
        "OpenAI, project": "sk-" + "proj-" + text(r, 74, url) + "T3Blbk" + "FJ" + text(r, 74, url),
        "Slack": "xo" + f"xb-{text(r, 12, string.digits)}-{text(r, 13, string.digits)}-{text(r, 24)}",
        "Slack, webhook": "https://hooks.slack.com/ser"
        + f"vices/T{text(r, 10, upper)}/B{text(r, 10, upper)}/{text(r, 24)}",
        "Stripe": "sk_" + "live_" + text(r, 24),
        "Google": "AI" + "za" + text(r, 35, url),
        "Google, OAuth": "GOC" + "SPX-" + text(r, 28, url),
        "Azure, storage": "DefaultEndpointsProtocol=https;AccountName=x;Account"
        + "Key="
        + text(r, 86, ALPHANUMERIC + "+/")
        + "==",
        "Azure, client": text(r, 3) + "8Q" + "~" + text(r, 34, ALPHANUMERIC + "~_."),
        "npm": "np" + "m_" + checked(r, 36),
        "PyPI": "pypi-" + "AgEIcHlwaS5vcmcC" + text(r, 140, url),
        "Docker Hub": "dckr_" + "pat_" + text(r, 27, url),
        "Hugging Face": "h" + "f_" + text(r, 34),
        "SendGrid": "S" + "G." + text(r, 22, url) + "." + text(r, 43, url),
        "Telegram": text(r, 10, string.digits) + ":A" + "A" + text(r, 33, url),
        "Vault": "hv" + "s." + text(r, 95, url),
        "JWT": jwt(r, {"iss": "https://login.example.org", "sub": "42", "exp": NOW + 3600, "scope": "admin"}),
        "key, RSA": private.private_bytes(*pem).decode(),
        "key, RSA, PKCS#1": private.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        ).decode(),
        "key, EC": ec.generate_private_key(ec.SECP256R1()).private_bytes(*pem).decode(),
        "key, SSH": ed25519.Ed25519PrivateKey.generate()
        .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        .decode(),
        "database": f"postgres://app:{text(r, 18)}@db.prod.company.io:5432/app",
        "database, MongoDB": f"mongodb+srv://svc:{text(r, 20)}@cluster0.ab1cd.mongodb.net/?retryWrites=true",
        "database, Redis": f"rediss://default:{text(r, 24)}@redis-1.cloud.company.io:6380/0",
    }


PLAIN = "plain"


def encodings(token: str) -> dict[str, str]:
    """The ways in which a token is written."""
    raw = token.encode()
    percent = "".join(f"%{byte:02X}" for byte in raw)
    return {
        PLAIN: token,
        "base64": base64.b64encode(raw).decode(),
        "base64 of a line": base64.b64encode(b"the key is " + raw + b" and more").decode(),
        "base64url": base64.urlsafe_b64encode(b'{"key":"' + raw + b'"}').rstrip(b"=").decode(),
        "base64, twice": base64.b64encode(base64.b64encode(b"k=" + raw)).decode(),
        "base64, lines": base64.encodebytes(b"key: " + raw).decode(),
        "hexadecimal": raw.hex(),
        "HEXADECIMAL": raw.hex().upper(),
        "percent": urllib.parse.quote(token, safe=""),
        "percent, all": percent,
        "percent, twice": urllib.parse.quote(percent, safe=""),
        "JSON": json.dumps(json.dumps({"key": token})),
        "JSON, all": "".join(f"\\u{byte:04x}" for byte in raw),
        "JSON, slash": token.replace("/", "\\/"),
        "HTML": "".join(f"&#{byte};" for byte in raw),
    }


def further_encodings(token: str) -> dict[str, bytes]:
    """Further ways, in a body: those that a person does not choose."""
    raw = token.encode()
    based = base64.b64encode(raw)
    signs = "".join(chr(byte) if chr(byte).isalnum() else f"&#{byte};" for byte in raw)
    return {
        "HTML, hexadecimal": "".join(f"&#x{byte:x};" for byte in raw).encode(),
        "HTML, HEXADECIMAL": "".join(f"&#X{byte:X};" for byte in raw).encode(),
        "HTML, zeros": "".join(f"&#0{byte};" for byte in raw).encode(),
        "HTML, no semicolon": "".join(f"&#{byte}" for byte in raw).encode(),
        "HTML, signs": signs.encode(),
        "HTML, signs, hexadecimal": signs.replace("&#45;", "&#x2d;").encode(),
        "hexadecimal, mixed": "".join(("%02X" if at % 2 else "%02x") % byte for at, byte in enumerate(raw)).encode(),
        "\\x": "".join(f"\\x{byte:02x}" for byte in raw).encode(),
        "\\X": "".join(f"\\x{byte:02X}" for byte in raw).encode(),
        "percent, mixed": "".join(f"%{byte:02x}" if at % 2 else chr(byte) for at, byte in enumerate(raw)).encode(),
        "base64, three times": base64.b64encode(base64.b64encode(based)),
        "base64 of hexadecimal": base64.b64encode(raw.hex().encode()),
        "hexadecimal of base64": based.hex().encode(),
        "base64 of percent": base64.b64encode("".join(f"%{byte:02x}" for byte in raw).encode()),
        "base64 of UTF-16": base64.b64encode(token.encode("utf-16-le")),
        "base64, lines of 4": b"\n".join(based[at : at + 4] for at in range(0, len(based), 4)),
        "base64 of gzip": base64.b64encode(gzip.compress(raw, mtime=0)),
    }


def _source(limit: int = 60_000) -> list[str]:
    """Source code that is there: Python's own library."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*.py"))
    return [found.read_text("utf-8", "replace")[:limit] for found in files]


def _fixtures(r: random.Random) -> list[str]:
    """Text that looks like a credential and is none."""
    public = rsa.generate_private_key(65537, 2048).public_key()
    return [
        "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "export GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "GITHUB_TOKEN=ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "token: ghp_1234567890abcdefghijklmnopqrstuvwxyz",
        "token = 'ghp_' + 'a' * 36; re.compile(r'ghp_[A-Za-z0-9]{36}')",
        "ANTHROPIC_API_KEY=sk-ant-api03-your-key-here-xxxxxxxxxxxxxxxxxxxx",
        "ANTHROPIC_API_KEY=sk-ant-placeholder-not-a-real-key-0000000000000000",
        "OPENAI_API_KEY=sk-proj-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "OPENAI_API_KEY=sk-..., sk-1234567890abcdef1234567890abcdef1234567890abcdef",
        "stripe.api_key = 'sk_test_" + "4eC39HqLyjWDarjtT1zdp7dc'",
        "stripe: sk_live_xxxxxxxxxxxxxxxxxxxxxxxx",
        "xoxb-your-token, xoxb-123456789012-1234567890123-xxxxxxxxxxxxxxxxxxxxxxxx",
        "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
        "AIzaSyXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
        f"const firebaseConfig = {{apiKey: 'AIza{text(r, 35)}', authDomain: 'app.firebaseapp.com', projectId: 'app'}}",
        "//registry.npmjs.org/:_authToken=${NPM_TOKEN}",
        "npm_config_registry npm_lifecycle_event npm_package_version npm_config_user_agent_is_long_enough_for_it_all",
        "postgres://postgres:postgres@localhost:5432/app",
        "postgres://user:password@db.example.com/app mysql://root:secret@mysql:3306/db",
        "DATABASE_URL=postgresql://app:${DB_PASSWORD}@db.prod.company.io/app",
        "mongodb+srv://<username>:<password>@cluster0.mongodb.net/test",
        "redis://:{password}@redis.svc.cluster.local:6379",
        'f"postgresql+asyncpg://{settings.user}:{settings.password}@{settings.host}.internal"',
        "-----BEGIN PRIVATE KEY-----\\n...\\n-----END PRIVATE KEY-----",
        "if line == '-----BEGIN RSA PRIVATE KEY-----': raise ValueError('a private key')",
        "re.compile(r'-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY-----[\\s\\S]+?-----END')",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLE\n-----END RSA PRIVATE KEY-----",
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " me@host",
        # The example of jwt.io, an expired token, one without a signature, and a public one of Supabase.
        jwt(r, {"sub": "1234567890", "name": "John Doe", "iat": 1516239022}, "HS256"),
        jwt(r, {"sub": "42", "exp": NOW - 10}),
        jwt(r, {"sub": "42", "exp": NOW + 10}, "none"),
        jwt(r, {"iss": "supabase", "role": "anon", "exp": NOW + 10**8}, "HS256"),
        "eyJhbGciOiJIUzI1NiJ9.eyJub3QganNvbi4uLi4.c2lnbmF0dXJlLXRoYXQtaXMtbm90LW9uZQ",
        f"sha512-{base64.b64encode(r.randbytes(64)).decode()}",
        f"eyJ2ZXJzaW9uIjozLCJzb3VyY2VzIjpbImluZGV4LmpzIl19 sourceMappingURL=data:application/json;base64,{segment({'version': 3, 'mappings': text(r, 900)})}",
        "https://bucket.s3.amazonaws.com/x?X-Amz-Credential="
        + "AK"
        + "IA"
        + text(r, 16, string.ascii_uppercase + "234567")
        + "%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature="
        + r.randbytes(32).hex(),
        "r8_version ya29.example hf_hub_download hf_xet gsk_example pul-it-together SG.model xai-org/grok AccountKey=UseDevelopmentStorage",
    ]


def benign() -> list[tuple[str, str, str, list[tuple[str, str]], bytes]]:
    """Requests of agents: a name, host, path, headers and body. There are at least 200."""
    r = random.Random(11)
    source, fixtures = _source(), _fixtures(r)
    found: list[tuple[str, str, str, list[tuple[str, str]], bytes]] = []
    claude = [("content-type", "application/json"), ("anthropic-version", "2023-06-01"), ("x-api-key", "placeholder")]
    own = [("authorization", "Bearer sk-" + "ant-oat01-" + text(r, 93) + "AA"), ("anthropic-beta", "oauth-2025-04-20")]

    def add(name: str, host: str, path: str, headers: list[tuple[str, str]], body: bytes | str = b"") -> None:
        found.append((name, host, path, headers, body.encode() if isinstance(body, str) else body))

    def turn(content: str, image: bytes | None = None) -> str:
        blocks: list[object] = [
            {"type": "text", "text": "Look at this."},
            {"type": "tool_result", "tool_use_id": f"toolu_01{text(r, 22)}", "content": content},
        ]
        if image:
            data = base64.b64encode(image).decode()
            blocks.append({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
        return json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": blocks}]})

    for index in range(60):
        add(f"code {index}", "api.anthropic.com", "/v1/messages?beta=true", claude, turn(source[index % len(source)]))
    for index, fixture in enumerate(fixtures):
        add(f"fixture {index}", "api.anthropic.com", "/v1/messages", own, turn(fixture))
        add(
            f"fixture {index}, chat",
            "api.openai.com",
            "/v1/responses",
            [],
            json.dumps({"input": json.dumps([fixture])}),
        )
    for index in range(12):
        image = b"\x89PNG\r\n\x1a\n" + r.randbytes(100_000)
        add(f"image {index}", "api.anthropic.com", "/v1/messages", claude, turn("ok", image))
    for index in range(12):
        lines = source[index].splitlines()
        diff = "\n".join(f"{r.choice(' +-')}{line}" for line in lines)
        add(
            f"diff {index}",
            "api.openai.com",
            "/v1/chat/completions",
            [],
            turn(f"index {r.randbytes(20).hex()}\n{diff}"),
        )
    for index in range(10):
        entries = {
            f"node_modules/p{n}": {
                "resolved": f"https://registry.npmjs.org/p{n}/-/p{n}-1.{n}.0.tgz",
                "integrity": f"sha512-{base64.b64encode(r.randbytes(64)).decode()}",
            }
            for n in range(300)
        }
        add(f"package-lock {index}", "api.anthropic.com", "/v1/messages", claude, turn(json.dumps(entries, indent=2)))
        wheels = "".join(f"p{n}==1.{n} \\\n    --hash=sha256:{r.randbytes(32).hex()}\n" for n in range(300))
        add(f"requirements {index}", "api.anthropic.com", "/v1/messages", claude, turn(wheels))
        uuids = json.dumps([str(uuid.UUID(bytes=r.randbytes(16), version=4)) for _ in range(400)])
        add(f"identifiers {index}", "api.anthropic.com", "/v1/messages", claude, turn(uuids))
        sums = "\n".join(f"{hashlib.sha256(r.randbytes(9)).hexdigest()}  f{n}" for n in range(400))
        add(f"checksums {index}", "api.anthropic.com", "/v1/messages", claude, turn(sums))
    for index in range(8):
        words = [text(r, r.randint(1, 3), string.ascii_letters) for _ in range(9000)]
        code = "".join(f"{word}{r.choice('.(){};,=+-_:')}" for word in words)
        add(f"minified {index}", "api.anthropic.com", "/v1/messages", claude, turn(f"!function(e,t){{{code}}}();"))
        objects = b"".join(zlib.compress(text.encode()) for text in source[index * 3 : index * 3 + 3])
        pack = b"0094" + b"0" * 40 + b" refs/heads/main\0 report-status-v2 agent=git/2.47.0000PACK\0\0\0\2" + objects
        add(
            f"pack {index}",
            "git.example.com",
            "/a/b.git/git-receive-pack",
            [("content-type", "application/x-git-receive-pack-request")],
            pack,
        )
        packed = gzip.compress(turn(source[index]).encode())
        add(f"compressed {index}", "api.example.com", "/v1", [("content-encoding", "gzip")], packed)
        add(f"binary {index}", "files.example.com", f"/{uuid.UUID(bytes=r.randbytes(16))}", [], r.randbytes(200_000))
    for index in range(12):
        name = r.choice(["requests", "left-pad", "@types/node", "numpy"])
        sha = r.randbytes(32).hex()
        add(
            f"pip {index}",
            "files.pythonhosted.org",
            f"/packages/{sha[:2]}/{sha[2:4]}/{sha[4:]}/{name}-1.0-py3-none-any.whl",
            [("if-none-match", f'"{r.randbytes(16).hex()}"')],
        )
        add(
            f"npm {index}",
            "registry.npmjs.org",
            f"/{urllib.parse.quote(name, safe='@')}",
            [
                ("npm-session", r.randbytes(8).hex()),
                ("user-agent", "npm/10.8.2 node/v20.19.2 linux x64 workspaces/false"),
            ],
        )
        add(
            f"audit {index}",
            "registry.npmjs.org",
            "/-/npm/v1/security/advisories/bulk",
            [("content-encoding", "gzip")],
            gzip.compress(json.dumps({f"p{n}": ["1.0.0"] for n in range(500)}).encode()),
        )
        add(
            f"trace {index}",
            "api.example.com",
            "/",
            [
                ("traceparent", f"00-{r.randbytes(16).hex()}-{r.randbytes(8).hex()}-01"),
                ("x-request-id", str(uuid.UUID(bytes=r.randbytes(16)))),
                ("cookie", f"session={segment({'id': text(r, 40)})}; _ga=GA1.2.{text(r, 9, string.digits)}"),
            ],
        )
    # What clients do with credentials of their own, at the service that issued them.
    release = jwt(r, {"iss": "github.com", "aud": "release-assets.githubusercontent.com", "exp": NOW + 300}, "HS256")
    add(
        "release asset",
        "release-assets.githubusercontent.com",
        f"/github-production-release-asset/1/{uuid.UUID(bytes=r.randbytes(16))}?sp=r&sv=2018-11-09&sr=b&se=2026-01-01T00%3A00%3A00Z&sig={urllib.parse.quote(base64.b64encode(r.randbytes(32)).decode(), safe='')}&jwt={release}",
        [],
    )
    add(
        "registry",
        "registry-1.docker.io",
        "/v2/library/debian/manifests/latest",
        [
            (
                "authorization",
                f"Bearer {jwt(r, {'iss': 'auth.docker.io', 'aud': 'registry.docker.io', 'exp': NOW + 300})}",
            )
        ],
    )
    add("own token", "api.github.com", "/user", [("authorization", "token " + "gh" + "p_" + checked(r, 36))])
    add(
        "own token, git",
        "github.com",
        "/a/b.git/info/refs",
        [
            (
                "authorization",
                "Basic " + base64.b64encode(b"x-access-token:gh" + b"p_" + checked(r, 36).encode()).decode(),
            )
        ],
    )
    add(
        "refresh",
        "console.anthropic.com",
        "/v1/oauth/token",
        [],
        json.dumps({"grant_type": "refresh_token", "refresh_token": "sk-" + "ant-ort01-" + text(r, 93) + "AA"}),
    )
    add(
        "signed",
        "bucket.s3.amazonaws.com",
        "/x",
        [
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential="
                + "AS"
                + "IA"
                + text(r, 16, string.ascii_uppercase + "234567")
                + "/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature="
                + r.randbytes(32).hex(),
            )
        ],
    )
    add(
        "Gemini",
        "generativelanguage.googleapis.com",
        "/v1beta/models/m:generateContent",
        [("x-goog-api-key", "AI" + "za" + text(r, 35))],
        "{}",
    )
    # What is signed or public, and tokens of sessions.
    for name, url in signed_urls(r).items():
        parts = urllib.parse.urlsplit(url)
        add(f"signed URL, {name}", str(parts.hostname), f"{parts.path}?{parts.query}", [])
        add(
            f"signed URL in a tool's result, {name}",
            "api.anthropic.com",
            "/v1/messages",
            claude,
            turn(f"< location: {url}"),
        )
        page = f'<a href="{url.replace("&", "&amp;")}">it</a>'
        add(f"signed URL in a page, {name}", "api.openai.com", "/v1/responses", [], json.dumps({"input": turn(page)}))
        form = urllib.parse.urlencode({"url": url, "n": 1})
        add(f"signed URL in a form, {name}", "api.example.com", "/fetch", [], form)
        add(f"signed URL as referrer, {name}", "cdn.example.com", "/a.css", [("referer", url)])
    session = jwt(r, {"iss": "https://login.example.org", "sub": "42", "sid": text(r, 22), "exp": NOW + 86_400})
    for header in ("Mcp-Session-Id", "X-CSRF-Token", "X-XSRF-TOKEN", "X-Session-Token", "csrf-token", "Authorization"):
        add(f"session, {header}", "mcp.example.com", "/mcp", [(header.lower(), session)], "{}")
    key = "AI" + "za" + text(r, 35)
    for index, line in enumerate(
        [
            f'<script async src="https://maps.googleapis.com/maps/api/js?key={key}&callback=initMap"></script>',
            f"const GOOGLE_MAPS_API_KEY = '{key}'; // restricted to our referrers",
            f'new Loader({{apiKey: "{key}", version: "weekly"}}).importLibrary("maps"); // Google Maps',
            f"NEXT_PUBLIC_GOOGLE_MAPS_KEY={key}",
            f'<meta-data android:name="com.google.android.geo.API_KEY" android:value="{key}"/> <!-- Google Maps -->',
        ]
    ):
        add(f"map {index}", "api.anthropic.com", "/v1/messages", claude, turn(line))
    add("map's own request", "maps.googleapis.com", f"/maps/api/geocode/json?address=Bern&key={key}", [])
    bot = f"{text(r, 10, string.digits)}:A" + f"A{text(r, 33)}"
    add("bot's own request", "api.telegram.org", f"/bot{bot}/sendMessage", [], '{"chat_id": 1, "text": "done"}')
    return found


def signed_urls(r: random.Random) -> dict[str, str]:
    """URLs that carry a signature, as stores and forges give them."""

    def b64(size: int) -> str:
        return urllib.parse.quote(base64.b64encode(r.randbytes(size)).decode(), safe="")

    def github(audience: str) -> str:
        claims = {"iss": "github.com", "aud": audience, "key": "key5", "exp": NOW + 300, "nbf": NOW, "path": "x.blob"}
        return jwt(r, claims, "HS256")

    upper = string.ascii_uppercase + "234567"
    amazon = (
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AS" + f"IA{text(r, 16, upper)}%2F20260101%2Feu-west-1%2Fs3"
        f"%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=900&X-Amz-Security-Token=IQoJb3JpZ2luX2Vj{b64(400)}"
        f"&X-Amz-SignedHeaders=host&X-Amz-Signature={r.randbytes(32).hex()}"
    )
    azure = f"?sp=r&sv=2018-11-09&sr=b&spr=https&se=2026-01-01T00%3A00%3A00Z&sig={b64(32)}"
    file = uuid.UUID(bytes=r.randbytes(16))
    return {
        "S3": f"https://my-bucket.s3.eu-west-1.amazonaws.com/a/b.tgz{amazon}",
        "S3, version 2": "https://my-bucket.s3.amazonaws.com/a?AWSAccessKeyId=AK"
        + f"IA{text(r, 16, upper)}&Signature={b64(20)}&Expires={NOW + 900}",
        "GCS": "https://storage.googleapis.com/my-bucket/a.tgz?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=build"
        f"%40my-project.iam.gserviceaccount.com%2F20260101%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20260101T000000Z"
        f"&X-Goog-Expires=900&X-Goog-SignedHeaders=host&X-Goog-Signature={r.randbytes(256).hex()}",
        "GCS, version 2": "https://storage.googleapis.com/my-bucket/a.tgz?GoogleAccessId=build@my-project.iam."
        f"gserviceaccount.com&Expires={NOW + 900}&Signature={b64(256)}",
        "Azure": f"https://myaccount.blob.core.windows.net/c/a.zip{azure}",
        "release": "https://release-assets.githubusercontent.com/github-production-release-asset/1/"
        f"{file}{azure}&jwt={github('release-assets.githubusercontent.com')}&response-content-type=application%2Fzip",
        "image": "https://private-user-images.githubusercontent.com/1/2-"
        f"{file}.png?jwt={github('raw.githubusercontent.com')}",
        "Supabase": "https://abcdefghijklmnopqrst.supabase.co/storage/v1/object/sign/b/a.png?token="
        + jwt(r, {"url": "b/a.png", "iat": NOW, "exp": NOW + 600}, "HS256"),
    }


def large_turn(size: int = 1_000_000) -> bytes:
    """A turn of an agent with code and an image, in JSON."""
    r = random.Random(3)
    code = "".join(_source())[: size * 3 // 4]
    image = base64.b64encode(r.randbytes(size // 6)).decode()
    messages = [{"role": "user", "content": [{"type": "text", "text": code}, {"type": "image", "data": image}]}]
    return json.dumps({"model": "m", "messages": messages}).encode()[:size]


def median_ms(run, rounds: int = 15) -> float:
    """Median of the processor's time. Other programs would disturb a clock."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        times.append((time.process_time() - began) * 1000)
    return sorted(times)[rounds // 2]


# Names of hosting services, stores, registries and models, as agents ask for them.
NAMES = """
    d111111abcdef8.cloudfront.net d2lbomn4fgwk6h.cloudfront.net d3nn82uaxijpm6.cloudfront.net
    d36jcksde1wxzq.cloudfront.net my-bucket.s3.amazonaws.com my-company-prod-assets.s3.us-west-2.amazonaws.com
    prod-us-west-2-starport-layer-bucket.s3.us-west-2.amazonaws.com
    prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com
    terraform-state-123456789012.s3.eu-central-1.amazonaws.com
    cdk-hnb659fds-assets-123456789012-us-east-1.s3.us-east-1.amazonaws.com
    aws-sam-cli-managed-default-samclisourcebucket-1a2b3c4d5e6f.s3.amazonaws.com
    elasticbeanstalk-us-east-1-123456789012.s3.amazonaws.com
    amazonlinux-2-repos-us-east-1.s3.dualstack.us-east-1.amazonaws.com bedrock-runtime.us-east-1.amazonaws.com
    sagemaker-us-west-2.amazonaws.com 123456789012.dkr.ecr.us-east-1.amazonaws.com
    a1b2c3d4e5f6g7.execute-api.us-east-1.amazonaws.com abcd1234ef.execute-api.eu-west-1.amazonaws.com
    my-alb-1234567890.us-east-1.elb.amazonaws.com
    k8s-default-ingress-0a1b2c3d4e-1234567890.eu-west-1.elb.amazonaws.com
    mydb.c9akciq32rgw.us-east-1.rds.amazonaws.com
    search-mydomain-abcdefghijklmnopqrstuvwxyz.us-east-1.es.amazonaws.com my-app.vercel.app
    my-app-git-main-my-team.vercel.app my-app-git-feature-login-my-team.vercel.app
    my-app-9zk3x2l1p-my-team.vercel.app nextjs-commerce-h3kq8w2xz-acme.vercel.app
    dashboard-git-fix-auth-redirect-acme-inc.vercel.app portfolio-2024-omega.vercel.app
    deploy-preview-42--my-site.netlify.app 65f1a2b3c4d5e6f7a8b9c0d1--my-site.netlify.app
    main--storybook-design-system.netlify.app my-site.pages.dev abc123de.my-site.pages.dev
    7f3e9a1b.docs-site.pages.dev my-worker.my-account.workers.dev my-service-abcdefghij-uc.a.run.app
    my-service-123456789012.us-central1.run.app api-gateway-k7f3jq2m5a-ew.a.run.app
    us-central1-my-project-123456.cloudfunctions.net my-project-default-rtdb.firebaseio.com
    my-app-12345.firebaseapp.com storage.googleapis.com my-bucket.storage.googleapis.com
    generativelanguage.googleapis.com us-central1-aiplatform.googleapis.com artifactregistry.googleapis.com
    oauth2.googleapis.com us-docker.pkg.dev mystorageaccount.blob.core.windows.net
    prodstorage20240501.blob.core.windows.net productionresultssa0.blob.core.windows.net
    pipelinesghubeus10.actions.githubusercontent.com my-openai-resource.openai.azure.com
    my-keyvault-prod.vault.azure.net myregistry.azurecr.io my-webapp-staging.azurewebsites.net
    victorious-plant-0a1b2c3d4.azurestaticapps.net raw.githubusercontent.com objects.githubusercontent.com
    release-assets.githubusercontent.com github-releases.githubusercontent.com avatars.githubusercontent.com
    codeload.github.com api.github.com uploads.github.com copilot-proxy.githubusercontent.com
    api.individual.githubcopilot.com pkg-containers.githubusercontent.com
    results-receiver.actions.githubusercontent.com registry.npmjs.org files.pythonhosted.org static.crates.io
    index.crates.io static.rust-lang.org proxy.golang.org sum.golang.org rubygems.org repo.maven.apache.org
    plugins.gradle.org registry-1.docker.io auth.docker.io production.cloudflare.docker.com quay.io cdn01.quay.io
    mirror.gcr.io ghcr.io deb.debian.org security.debian.org archive.ubuntu.com dl-cdn.alpinelinux.org
    download.docker.com packages.microsoft.com cdn-lfs.huggingface.co cdn-lfs-us-1.hf.co cas-bridge.xethub.hf.co
    transfer.xethub.hf.co cas-server.xethub.hf.co my-space-username.hf.space api.anthropic.com
    console.anthropic.com statsig.anthropic.com api.openai.com chatgpt.com auth.openai.com
    oaidalleapiprodscus.blob.core.windows.net files.oaiusercontent.com sdmntprwestus.oaiusercontent.com
    o123456.ingest.sentry.io o4504136533147648.ingest.us.sentry.io browser-intake-datadoghq.com
    http-intake.logs.datadoghq.com images.unsplash.com fonts.googleapis.com cdn.jsdelivr.net unpkg.com esm.sh
    cdnjs.cloudflare.com assets-global.website-files.com images.ctfassets.net cdn.shopify.com
    xyzcompany.supabase.co abcdefghijklmnopqrst.supabase.co db.qwertyuiopasdfghjklz.supabase.co
    cluster0.ab1cd.mongodb.net ep-cool-darkness-123456.us-east-2.aws.neon.tech
    redis-12345.c123.us-east-1-2.ec2.redns.redis-cloud.com my-org.atlassian.net acme-corp.slack.com
    hooks.slack.com my-team.sentry.io gitlab-registry.example.com staging-api-v2.internal-tools.company.io
    documentation.example.com playwright.download.prss.microsoft.com vscode-sync.trafficmanager.net
    marketplace.visualstudio.com gallerycdn.vsassets.io ms-python.gallerycdn.vsassets.io
    rust-lang.gallerycdn.vsassets.io nodejs.org registry.yarnpkg.com conda.anaconda.org pypi.org
    download.pytorch.org developer.download.nvidia.com
    pub-0a1b2c3d4e5f60718293a4b5c6d7e8f9.r2.dev zqxjk2y3mwe4lqgbwbdvkm7ypm0wqjco.lambda-url.us-west-2.on.aws
    friendly-space-goldfish-7w6q5v4r3w2x5p9-3000.app.github.dev 3000-acme-widgets-a1b2c3d4e5f.ws-eu104.gitpod.io
    myapp.whitesand-1a2b3c4d.eastus.azurecontainerapps.io my-project-h3kq8w2xzab1.deno.dev
    node-0123.fleet-2024-05.prod.company.io 20240501-103000-nightly.artifacts.company.io
    my-func-app-2024-a1b2c3d4e5f6g7h8.westeurope-01.azurewebsites.net
    internal-my-service-prod-1234567890.us-gov-west-1.elb.amazonaws.com
    vpce-0a1b2c3d4e5f67890-1a2b3c4d.s3.us-east-1.vpce.amazonaws.com
    ec2-198-51-100-23.eu-central-1.compute.amazonaws.com ip-10-0-12-34.eu-west-1.compute.internal
    a1b2c3d4e5f6g7-ats.iot.us-east-1.amazonaws.com fs-0a1b2c3d4e5f67890.efs.us-east-1.amazonaws.com
    my-cluster-1.abcdefghijkl.eu-west-1.eks.amazonaws.com d-1234567890.awsapps.com dev-12345678.okta.com
    tenant-4f3k2j1h.eu.auth0.com 1234567.fls.doubleclick.net r4---sn-4g5ednsz.googlevideo.com
    lh3.googleusercontent.com 123456789012-abcdef.apps.googleusercontent.com
""".split()
