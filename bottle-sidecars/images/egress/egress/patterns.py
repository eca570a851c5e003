"""Formats of credentials and private keys, from the public documentation of the services that issue them.

Each has a literal text that is searched for first, and an expression that is compared where the literal was found. Only
formats are listed that can hardly be anything else. Documentation is full of examples, so a match also has to look
random, and the examples of the services themselves are known.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# Parts of placeholders, in lower case. A random token of 40 characters contains one of them once in some 100,000 cases.
_PLACEHOLDER = re.compile(
    rb"example|xxxx|\*\*\*\*|\.\.\.\.|placeholder|redacted|changeme|your[-_]?|dummy|fake|sample|-?not-?a-?|abcdef|bcdefg|"
    rb"123456|234567|345678|456789|012345|fedcba|987654|qwerty|aaaaa|00000|11111"
)
# Examples in public documentation that look random.
_EXAMPLES = (
    b"ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    b"gho_16C7e42F292c6912E7710c838347Ae178B4a",
    b"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq",
    b"C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw",
)


@dataclass(frozen=True, slots=True)
class Context:
    """Surroundings of a match: the text before and after it, the host of the request, and the time."""

    around: bytes
    host: str = ""
    now: float = 0.0


Check = Callable[[re.Match[bytes], Context], bool]


@dataclass(frozen=True, slots=True)
class Pattern:
    name: str
    literals: tuple[bytes, ...]
    expression: re.Pattern[bytes]
    check: Check
    issuers: tuple[str, ...] = ()
    """Domains of the service itself, to which its credentials are sent in a header or to get another token."""
    before: int = 8
    """Number of bytes before the literal with which the expression can begin."""
    ahead: int = 320
    """Number of bytes from the literal on with which the expression and its check are content."""
    in_words: bool = False
    """True if a match can have spaces, quotes or line breaks in it."""
    lead: re.Pattern[bytes] | None = None
    """Text of a match before its literal. None: a match begins with the literal."""
    in_session_headers: bool = True
    """False if such a value is by design in headers of sessions, such as `Authorization` and `Cookie`."""
    in_url: bool = False
    """True if the service itself documents that such a value is in its URLs."""

    def issued_by(self, host: str) -> bool:
        return any(host == domain or host.endswith("." + domain) for domain in self.issuers)

    def match(self, text: bytes, at: int) -> re.Match[bytes] | None:
        """Returns the match that has a literal at this place. No other place of the text is tried."""
        if self.lead and (led := self.lead.search(text[:at])) and (found := self.expression.match(text, led.start())):
            return found
        return self.expression.match(text, at)


def entropy(text: bytes) -> float:
    """Returns Shannon's entropy in bits for each byte."""
    counts = [text.count(byte) for byte in set(text)]
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def _random(bits: float) -> Check:
    """Returns the check of a match that looks random: the last group, else all of it, has this entropy."""

    def check(found: re.Match[bytes], _: Context) -> bool:
        text = found[found.lastindex or 0]
        return entropy(text) >= bits and not _PLACEHOLDER.search(text.lower()) and not found[0].startswith(_EXAMPLES)

    return check


_LOOKS_RANDOM = _random(3.0)


def _has_checksum(found: re.Match[bytes], context: Context) -> bool:
    """GitHub and npm: the last six characters are a CRC-32 in base 62. One that was shortened or changed by hand has to
    look random."""
    text = found[1]
    value, encoded = crc32(text[:-6]), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        encoded = _DIGITS[digit] + encoded
    return text[-6:] == encoded.encode() or _LOOKS_RANDOM(found, context)


def _is_aws_id(found: re.Match[bytes], context: Context) -> bool:
    """A signed URL or header names the id (`Credential=`), and every client of a store follows redirects to such URLs."""
    at = context.around.find(found[0])
    before = context.around[max(0, at - 24) : at].lower()
    signs = before.endswith(
        (
            b"credential=",
            b"credential\\u003d",
            b"credential%3d",
            b"credential%253d",
            b"awsaccesskeyid=",
            b"awsaccesskeyid%3d",
            b'credential":"',
        )
    )
    return not signs and _LOOKS_RANDOM(found, context)


# What stands beside the key that every page with a map, or every web application at Firebase, shows to its visitors.
_PUBLIC_KEY = re.compile(
    rb"authDomain|firebaseapp|messagingSenderId|(?i:maps\.google|google[ ._-]{0,2}maps?\b|google_?maps?_|"
    rb"maps[ ._-]?(?:api|js|embed|platform|browser)|\bgmaps?\b|initMap)"
)


def _is_google_key(found: re.Match[bytes], context: Context) -> bool:
    return not _PUBLIC_KEY.search(context.around) and _LOOKS_RANDOM(found, context)


def _decoded(part: bytes) -> object:
    try:
        return json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None


# The parameter of a signed URL, such as that of a release's file: `?jwt=`, also as HTML, JSON and URLs escape it.
_SIGNED_URL = re.compile(rb"(?i)(?:[?&;]|%3F|%26|\\u0026)(?:jwt|token|sig|signature)(?:=|%3D|\\u003d)\Z")
# The longest life, in seconds, of a JWT in a signed URL.
_SIGNED_URL_LIFE = 3600


def _is_live_jwt(found: re.Match[bytes], context: Context) -> bool:
    """A JWT is a credential while it is valid. One that names the host itself (`iss`, `aud`) is sent where it belongs.

    One that a URL holds and that ends within an hour is for the one file of that URL, as with a signature of a store.
    """
    head, claims = _decoded(found[1]), _decoded(found[2])
    if not isinstance(head, dict) or not isinstance(claims, dict) or str(head.get("alg", "none")).lower() == "none":
        return False
    expires = claims.get("exp")
    if not isinstance(expires, int | float) or expires <= context.now or claims.get("role") == "anon":
        return False
    if expires <= context.now + _SIGNED_URL_LIFE and _SIGNED_URL.search(found.string[: found.start()]):
        return False
    audience = claims.get("aud")
    named = [claims.get("iss"), *(audience[:16] if isinstance(audience, list) else [audience])]
    domains = [re.sub(r"^https?://|/.*$", "", name.lower()) for name in named if isinstance(name, str)]
    host = "." + context.host
    return not any("." in domain and host.endswith("." + domain) for domain in domains if context.host)


def _is_key_material(found: re.Match[bytes], _: Context) -> bool:
    text = re.sub(rb"(?<!\\)\\++[rn]|\s|%0[AaDd]", b"", found[1])
    return entropy(text) >= 4.0 and not re.search(rb"(.)\1{15}", text) and b"EXAMPLE" not in text


_LOCAL = re.compile(
    rb"(?i)(?:localhost|(?:.*\.)?(?:example|test|invalid|local|localhost|internal)|(?:.*\.)?example\.(?:com|org|net))\Z"
)


def _is_real_login(found: re.Match[bytes], context: Context) -> bool:
    """A URL of a database with a password that is no placeholder, at a host that others can reach."""
    user, password, host = found[1], found[2], found[3]
    if b"." not in host or _LOCAL.match(host) or re.match(rb"(?:127|10|0|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.", host):
        return False
    if re.search(rb"[$<>{}*%]\{?[A-Za-z_]|[<>{}*]", password) or password.lower() == user.lower():
        return False
    return (
        not re.search(rb"(?i)passw|secret|pwd", password) and _random(2.5)(found, context) and entropy(password) >= 2.5
    )


def _is_login(found: re.Match[bytes], _: Context) -> bool:
    try:
        decoded = base64.b64decode(found[1].rstrip(b"=") + b"==")
    except binascii.Error:
        return False
    user, colon, password = decoded.partition(b":")
    return (
        bool(user and colon) and len(password) >= 8 and decoded.isascii() and not _PLACEHOLDER.search(decoded.lower())
    )


# A word begins here. What is before it can be an escape: `\\n`, `\\u003d`, `%3D`.
_BEGIN = rb"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"


def _pattern(
    name: str,
    literals: str,
    expression: str,
    check: Check = _LOOKS_RANDOM,
    issuers: str = "",
    before: int = 8,
    ahead: int = 320,
    in_session_headers: bool = True,
    in_url: bool = False,
    in_words: bool = False,
    lead: str = "",
) -> Pattern:
    """The expression may not be a part of a longer word, unless it says where it begins and ends.

    The agent chooses what an expression is compared with. So no part of it may be matched in two ways, and what is
    repeated often is possessive (`++`) where the next character tells the end.
    """
    raw = expression.encode("ascii")
    if not raw.startswith(b"(?i)"):
        raw = _BEGIN + rb"(?:" + raw + rb")(?![A-Za-z0-9])"
    found = tuple(literal.replace("^", " ").encode("ascii") for literal in literals.split())
    return Pattern(
        name,
        found,
        re.compile(raw, re.DOTALL),
        check,
        tuple(issuers.split()),
        before,
        ahead,
        in_words,
        re.compile(rb"(?:" + lead.encode("ascii") + rb")\Z") if lead else None,
        in_session_headers,
        in_url,
    )


# Between the lines of a key: a line break, as it is or as it is written in a text of JSON, once or several times encoded.
_BREAK = r"(?:\\++[rn]|%0[AaDd]|[\s\"'+,|#>-])"

PATTERNS: tuple[Pattern, ...] = (
    # Clouds.
    _pattern("aws-access-key-id", "AKIA ASIA", r"(?:AKIA|ASIA)[A-Z2-7]{16}", _is_aws_id, "amazonaws.com", before=32),
    _pattern(
        "aws-secret-access-key",
        "ecret_access_key ecretAccessKey SECRET_ACCESS_KEY ecret^access^key",
        r"(?i)secret[_ ]?access[_ ]?key[\\\"']{0,8}[\s+]{0,4}(?:=|:|=>|%3d)[\s+]{0,4}[\\\"']{0,8}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
        _random(4.0),
        before=16,
        in_words=True,
        lead="[Ss]",
    ),
    _pattern(
        "google-api-key",
        "AIza",
        r"AIza[A-Za-z0-9_-]{35}",
        _is_google_key,
        "googleapis.com google.com",
        before=400,
        in_url=True,
    ),
    _pattern("google-client-secret", "GOCSPX-", r"GOCSPX-([A-Za-z0-9_-]{28})", issuers="googleapis.com google.com"),
    _pattern("google-access-token", "ya29.", r"ya29\.([A-Za-z0-9_-]{40,})", issuers="googleapis.com google.com"),
    _pattern(
        "azure-storage-key", "AccountKey=", r"AccountKey=([A-Za-z0-9+/]{86})(?:==|%3D%3D|\\u003d\\u003d)", _random(4.0)
    ),
    _pattern(
        "azure-shared-access-key",
        "SharedAccessKey=",
        r"SharedAccessKey=([A-Za-z0-9+/]{43})(?:=|%3D|\\u003d)",
        _random(4.0),
    ),
    _pattern(
        "azure-client-secret",
        "7Q~ 8Q~",
        r"([A-Za-z0-9_~.]{3}[78]Q~[A-Za-z0-9_~.-]{31,34})",
        _random(4.0),
        "microsoftonline.com",
        10,
        lead="[A-Za-z0-9_~.]{3}",
    ),
    _pattern("digitalocean-token", "dop_v1_ doo_v1_ dor_v1_", r"do[opr]_v1_([a-f0-9]{64})", issuers="digitalocean.com"),
    # Forges and registries.
    _pattern(
        "github-token",
        "ghp_ gho_ ghu_ ghs_ ghr_",
        r"gh[pousr]_([A-Za-z0-9]{36})",
        _has_checksum,
        "github.com githubusercontent.com ghcr.io githubcopilot.com",
    ),
    _pattern(
        "github-token",
        "github_pat_",
        r"github_pat_([A-Za-z0-9]{22}_[A-Za-z0-9]{59})",
        issuers="github.com githubusercontent.com ghcr.io githubcopilot.com",
    ),
    _pattern(
        "gitlab-token",
        "glpat- gldt- glrt- glcbt- glptt- glsoat- glffct- glimt- glft- glagent-",
        r"gl(?:pat|dt|rt|cbt|ptt|soat|ffct|imt|ft|agent)-([A-Za-z0-9_-]{20,300}(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?)",
        issuers="gitlab.com",
    ),
    _pattern("npm-token", "npm_", r"npm_([A-Za-z0-9]{36})", _has_checksum, "npmjs.org npmjs.com"),
    _pattern(
        "npm-token",
        "_authToken",
        r"_authToken[\\\"']{0,4}\s{0,2}[=:]\s{0,2}[\\\"']{0,4}([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})",
        issuers="npmjs.org npmjs.com",
        before=8,
        in_words=True,
    ),
    _pattern("pypi-token", "pypi-AgE", r"pypi-AgE([A-Za-z0-9_-]{50,})", issuers="pypi.org"),
    _pattern(
        "docker-hub-token", "dckr_pat_ dckr_oat_", r"dckr_[po]at_([A-Za-z0-9_-]{27,64})", issuers="docker.com docker.io"
    ),
    _pattern(
        "docker-login",
        'auths\\":^{ auths":^{ auths":{ auths\\":{',
        r"(?i)auths[\\\"']+\s*:\s*\{.{0,160}?[\\\"']auth[\\\"']+\s*:\s*[\\\"']+([A-Za-z0-9+/]{16,}={0,2})[\\\"']",
        _is_login,
        ahead=800,
        in_words=True,
    ),
    _pattern("rubygems-token", "rubygems_", r"rubygems_([a-f0-9]{48})", issuers="rubygems.org"),
    _pattern("huggingface-token", "hf_", r"hf_([A-Za-z0-9]{34,40})", _random(3.5), "huggingface.co hf.co"),
    # Models.
    _pattern(
        "anthropic-key",
        "sk-ant-",
        r"sk-ant-[a-z]{3,8}[0-9]{2}-([A-Za-z0-9_-]{24,})",
        issuers="anthropic.com claude.ai claude.com",
    ),
    _pattern(
        "openai-key",
        "T3BlbkFJ",
        r"sk-(?:proj-|svcacct-|admin-|None-)?([A-Za-z0-9_-]{16,80}T3BlbkFJ[A-Za-z0-9_-]{16,80})",
        issuers="openai.com",
        before=100,
        lead=_BEGIN.decode("ascii") + "sk-[A-Za-z0-9_-]{16,90}+",
    ),
    _pattern(
        "openai-key",
        "sk-proj- sk-svcacct- sk-admin-",
        r"sk-(?:proj|svcacct|admin)-([A-Za-z0-9_-]{40,})",
        _random(4.0),
        "openai.com",
    ),
    _pattern("openrouter-key", "sk-or-v1-", r"sk-or-v1-([a-f0-9]{64})", issuers="openrouter.ai"),
    _pattern("groq-key", "gsk_", r"gsk_([A-Za-z0-9]{52})", issuers="groq.com"),
    _pattern("xai-key", "xai-", r"xai-([A-Za-z0-9]{80})", issuers="x.ai"),
    _pattern("replicate-token", "r8_", r"r8_([A-Za-z0-9]{37})", _random(4.0), "replicate.com"),
    # Services.
    _pattern(
        "slack-token",
        "xoxb- xoxp- xoxa- xoxs- xoxr- xoxe- xoxe.xox",
        r"xox(?:[abprs]|e\.xox[bp]|e)-(?:[0-9]{1,13}-){1,6}([A-Za-z0-9-]{20,200})",
        issuers="slack.com",
    ),
    _pattern("slack-token", "xapp-", r"xapp-[0-9]-[A-Z0-9]{8,14}-[0-9]{8,14}-([a-f0-9]{40,80})", issuers="slack.com"),
    _pattern(
        "slack-webhook",
        "hooks.slack.com",
        r"hooks\.slack\.com\\?/services\\?/T[A-Z0-9]{8,12}\\?/B[A-Z0-9]{8,12}\\?/([A-Za-z0-9]{24})",
        issuers="hooks.slack.com",
    ),
    _pattern("stripe-key", "sk_live_ rk_live_", r"[sr]k_live_([A-Za-z0-9]{24,240})", issuers="stripe.com"),
    _pattern("stripe-webhook-secret", "whsec_", r"whsec_([A-Za-z0-9+/]{32,64})", _random(3.5), "stripe.com"),
    _pattern("sendgrid-key", "SG.", r"SG\.([A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})", _random(4.0), "sendgrid.com"),
    _pattern(
        "shopify-token",
        "shpat_ shpca_ shppa_ shpss_",
        r"shp(?:at|ca|pa|ss)_([a-f0-9]{32})",
        issuers="shopify.com myshopify.com",
    ),
    _pattern("linear-key", "lin_api_", r"lin_api_([A-Za-z0-9]{40})", issuers="linear.app"),
    _pattern("notion-token", "ntn_", r"ntn_([A-Za-z0-9]{46})", _random(4.0), "notion.com"),
    _pattern(
        "atlassian-token",
        "ATATT3x",
        r"ATATT3x([A-Za-z0-9_=-]{160,})",
        issuers="atlassian.com atlassian.net bitbucket.org",
    ),
    _pattern("grafana-token", "glsa_", r"glsa_([A-Za-z0-9]{32}_[a-f0-9]{8})", issuers="grafana.net grafana.com"),
    _pattern("new-relic-key", "NRAK-", r"NRAK-([A-Z0-9]{27})", issuers="newrelic.com"),
    _pattern(
        "databricks-token", "dapi", r"dapi([a-f0-9]{32})(?:-[0-9])?", issuers="databricks.com azuredatabricks.net"
    ),
    _pattern("vault-token", "hvs. hvb.", r"hv[sb]\.([A-Za-z0-9_-]{80,})", _random(4.0)),
    _pattern("pulumi-token", "pul-", r"pul-([a-f0-9]{40})", issuers="pulumi.com"),
    _pattern(
        "supabase-token",
        "sbp_ sb_secret_",
        r"(?:sbp_([a-f0-9]{40})|sb_secret_([A-Za-z0-9_-]{31,}))",
        issuers="supabase.co supabase.com",
    ),
    _pattern(
        "telegram-token",
        ":AA %3AAA %3aAA",
        r"[0-9]{8,10}:AA([A-Za-z0-9_-]{33})",
        _random(4.0),
        "telegram.org",
        before=20,
        in_url=True,
        lead=_BEGIN.decode("ascii") + "[0-9]{8,10}",
    ),
    _pattern(
        "jwt",
        "eyJhbGciOi eyJ0eXAiOi eyJraWQiOi eyJ4NXQiOi",
        r"(eyJ[A-Za-z0-9_-]{10,2000}+)\.(eyJ[A-Za-z0-9_-]{10,4000}+)\.[A-Za-z0-9_-]{32,800}+",
        _is_live_jwt,
        before=40,
        ahead=4000,
        in_session_headers=False,
    ),
    # Keys.
    _pattern(
        "private-key",
        "PRIVATE^KEY PRIVATE+KEY PRIVATE%20KEY",
        rf"(?i)-----BEGIN[ +](?:[A-Z0-9]+[ +]){{0,2}}PRIVATE[ +]KEY(?:[ +]BLOCK)?-----(?:{_BREAK}{{1,12}}(?:Version|Comment|Proc-Type|DEK-Info|Hash):[^\n\\]{{0,80}}+)*+{_BREAK}{{0,12}}+((?:[A-Za-z0-9/+=\s\"',|#>-]|\\++[rn]|%0[AaDd]){{48,200}}+)",
        _is_key_material,
        before=48,
        ahead=800,
        in_words=True,
        lead="(?i:-----BEGIN[ +](?:[A-Z0-9]{1,20}+[ +]){0,2})",
    ),
    _pattern(
        "ssh-private-key",
        "b3BlbnNzaC1rZXktdjEA",
        r"(?i)b3BlbnNzaC1rZXktdjEA([A-Za-z0-9/+=\\\s]{60,})",
        _is_key_material,
        in_words=True,
    ),
    _pattern(
        "rsa-private-key",
        "MIIEvQIBADANBgkqhkiG MIIEvgIBADANBgkqhkiG MIIJQgIBADANBgkqhkiG MIIJQwIBADANBgkqhkiG MIIEowIBAAKCAQEA MIIEpAIBAAKCAQEA MIIEpQIBAAKCAQEA MIIJKAIBAAKCAgEA MIIJKQIBAAKCAgEA",
        r"(?i)MII[EJ][A-Za-z0-9]{2}IBA[DA][A-Za-z0-9+/]{8}([A-Za-z0-9/+=\\\s]{60,})",
        _is_key_material,
        in_words=True,
    ),
    _pattern(
        "putty-private-key",
        "PuTTY-User-Key-File-",
        r"PuTTY-User-Key-File-[23]: (.{20,600})Private-Lines",
        lambda *_: True,
        ahead=1600,
        in_words=True,
    ),
    _pattern("age-private-key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1([QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})"),
    # Logins.
    _pattern(
        "database-url",
        "postgres:// postgresql:// mysql:// mariadb:// mongodb:// mongodb+srv:// redis:// rediss:// amqp:// amqps:// "
        "+psycopg:// +psycopg2:// +asyncpg:// +pymysql:// sqlserver:// postgres:\\/\\/ postgresql:\\/\\/",
        r"(?i)(?<![A-Za-z])[a-z][a-z0-9+]{3,20}:(?:/|\\/){2}([^\s:/@\"'\\<>]{0,64}):([^\s/@\"'\\]{6,128})@([A-Za-z0-9.-]{1,253})",
        _is_real_login,
        before=24,
        in_words=True,
        lead="(?i:(?<![A-Za-z])[a-z][a-z0-9+]{0,19})",
    ),
)
