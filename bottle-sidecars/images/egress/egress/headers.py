"""Names of the request headers that pass to a host for which egress injects a credential.

With the key of another account, the agent could send data to that account. Services have invented hundreds of names for
such headers, so the names that pass are listed, and not those that are removed.
"""

import re

# Of HTTP and its extensions, browsers, traces, and clients whose headers share no prefix. Compression of WebSocket
# frames is missing, because a compressed frame cannot be searched for the credential. So is `Range`: two answers could
# each have a half of it.
_NAMES = frozenset(
    """
    accept baggage b3 cache-control chatgpt-account-id client-request-id conversation-id copilot-vision-request date
    dnt editor-plugin-version editor-version expect from git-protocol graphql-features host http-referer
    idempotency-key is-from-ci last-event-id npm-auth-type origin originator pragma prefer priority purpose
    range-unit referer save-data sec-gpc sec-websocket-key sec-websocket-protocol sec-websocket-version sentry-trace
    session-id soapaction thread-id time-zone traceparent tracestate transfer-encoding tus-resumable
    upgrade-insecure-requests user-agent version via vscode-machineid vscode-sessionid want-content-digest
    want-repr-digest x-accept-content-transfer-encoding x-app x-atlassian-token x-client-info x-client-name
    x-client-request-id x-client-version x-cloud-trace-context x-correlation-id x-idempotency-key x-initiator
    x-interaction-id x-opaque-id x-parent-span-id x-request-id x-requested-with x-responsesapi-include-timing-metrics
    x-server-timeout x-service-name x-session-affinity x-session-id x-title x-trace-id x-user-agent
    """.split()
)
# Of the clients of model APIs, forges, registries and clouds.
_PREFIXES = tuple(
    """
    accept- amz-sdk- anthropic- connect- content- copilot- docker- elastic-apm- gitlab- grpc- helicone- if- mcp-
    mistral- newrelic- notion- npm- openai- pacote- sec-ch- sec-fetch- stripe- upload- x-amz- x-amzn- x-anthropic-
    x-b3- x-claude- x-codex- x-datadog- x-elastic- x-gemini- x-github- x-gitlab- x-goog- x-grok- x-grpc- x-hf-
    x-langchain- x-ms- x-oai- x-openai- x-openrouter- x-stainless- x-supabase- x-upload- x-xet-
    """.split()
)
# What is below a prefix may be a credential all the same, such as `x-goog-api-key`.
_CREDENTIAL = re.compile("assertion|auth|cookie|credential|jwt|key|otp|passw|pwd|secret|signature|token")


def passes(key: str) -> bool:
    """Returns true for a header that may pass. The key is in the form of `routes.header_key`."""
    return key in _NAMES or (key.startswith(_PREFIXES) and not _CREDENTIAL.search(key))


def without_credentials(protocols: bytes) -> bytes:
    """Returns the WebSocket protocols that are no credential. Browsers have no header to send one in."""
    named = [protocol.strip() for protocol in protocols.split(b",")]
    return b", ".join(name for name in named if not _CREDENTIAL.search(name.decode("latin-1").lower()))
