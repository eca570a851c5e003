"""Credentials of the agent in the query of a request for which egress injects one.

A service may prefer the one in the query. The agent could then act as another account there, and send data to it.
Headers that pass are listed; the names of parameters are each service's own, so here those are listed that are removed.
"""

import re
from urllib.parse import unquote_to_bytes

# In lower case, with letters and digits only: `private_token`, `Private-Token` and `private.token[]` are one name.
_NAMES = frozenset(
    """
    assertion auth authentication authorization awsaccesskeyid basicauth bearer clientassertion credential credentials
    hmac jwt key passphrase passwd password pwd secret sig signature subscriptionkey token xamzcredential
    xgoogcredential
    """.split()
)
# What a name may end with. `next_page_token` and `sort_key` are no credentials.
_ENDINGS = tuple(
    """
    accesskey accesskeyid accesstoken accountkey adminkey adminsecret apikey apipassword apisecret apitoken appkey
    applicationkey appsecret apptoken authkey authtoken bearertoken clientkey clientsecret clienttoken consumerkey
    consumersecret deploytoken developerkey devkey devtoken idtoken jobtoken jwttoken masterkey oauthtoken partnerkey
    personaltoken privatekey privatetoken refreshtoken registrytoken secretkey securitytoken servertoken
    servicekey sessiontoken sharedsecret userpassword usertoken xamzsignature xgoogsignature
    """.split()
)
_OTHER = re.compile(rb"[^a-z0-9]")
# Some servers take a semicolon for an ampersand.
_SEPARATOR = re.compile("([&;])")


def without_credentials(target: str, passing: frozenset[str] = frozenset()) -> tuple[str, tuple[str, ...]]:
    """Returns a request target without the parameters that are credentials, and their names.

    A parameter passes if it has a name of `passing`, which is in the form of `routes.header_key`.
    """
    path, mark, query = target.partition("?")
    if not query:
        return target, ()
    pieces = _SEPARATOR.split(query)
    kept, removed = "", list[str]()
    for at in range(0, len(pieces), 2):
        name = unquote_to_bytes(pieces[at].partition("=")[0].encode("utf-8", "surrogateescape"))
        plain = _OTHER.sub(b"", name.lower()).decode("ascii")
        written = name.decode("latin-1").lower().replace("_", "-")
        if (plain in _NAMES or plain.endswith(_ENDINGS)) and written not in passing:
            removed.append(plain)
            continue
        separator = pieces[at - 1] if at and kept else ""
        kept += separator + pieces[at]
    if not removed:
        return target, ()
    return path + (mark + kept if kept else ""), tuple(removed)
