//! The host side: what an agent leaves in files and outputs that the host reads. Each attack prepares something; the host then
//! does what a user does, and is searched for the effect.

use crate::table::{Attack, Effect, Group, effect};

pub(crate) const ATTACKS: &[Attack] = &[
    copied("a link to a file of the host, copied out", "sh('mkdir -p /tmp/out/$N; ln -s /etc/hostname /tmp/out/$N/absolute; ln -s ../../../../../../etc/hostname /tmp/out/$N/relative')"),
    copied("a link to a directory, with files beside it", "sh('mkdir -p /tmp/out/$N/real; echo $N >/tmp/out/$N/real/file; ln -s /tmp /tmp/out/$N/tmp; ln -s .. /tmp/out/$N/up; ln -s . /tmp/out/$N/self')"),
    copied("hard links", "sh('mkdir -p /tmp/out/$N; echo $N >/tmp/out/$N/one; ln /tmp/out/$N/one /tmp/out/$N/two; ln /etc/passwd /tmp/out/$N/three; ln -P /etc/hostname /tmp/out/$N/four')"),
    copied("a pipe, a socket and a device", "
sh('mkdir -p /tmp/out/$N; mkfifo /tmp/out/$N/pipe; mknod /tmp/out/$N/device c 1 3')
socket.socket(socket.AF_UNIX).bind(f'/tmp/out/{N}/socket')"),
    copied("a set-user-id program", "sh('mkdir -p /tmp/out/$N; cp /bin/true /tmp/out/$N/suid; chmod 6777 /tmp/out/$N/suid; mkdir -m 3777 /tmp/out/$N/open')"),
    copied("names of 255 bytes, with line ends and escape sequences", "
os.makedirs(f'/tmp/out/{N}')
for name in ('x' * 255, 'a\\nb', 'a\\x1b]0;owned\\x07', '-rf', '...', ' ', '\\x7f', 'a\\\\b', '..\\\\x', 'C:x', 'con', '\\u202ex'): open(f'/tmp/out/{N}/{name}', 'w').write(N)
open(os.fsencode(f'/tmp/out/{N}/') + b'\\xff\\xfe', 'w').write(N)"),
    copied("five hundred directories, one in the other", "
os.makedirs(f'/tmp/out/{N}'); os.chdir(f'/tmp/out/{N}')
for _ in range(500): os.mkdir('dddddddddd'); os.chdir('dddddddddd')
open('file', 'w').write(N)"),
    copied("a directory that nobody may read", "sh('mkdir -p /tmp/out/$N/closed; echo $N >/tmp/out/$N/closed/file; chmod 0 /tmp/out/$N/closed')"),
    copied("a path that changes while it is read", "
os.makedirs(f'/tmp/out/{N}/real'); open(f'/tmp/out/{N}/real/file', 'w').write(N)
if os.fork() == 0:
    os.setsid()
    for _ in range(200000):
        try: os.symlink('/etc', f'/tmp/out/{N}/new'); os.rename(f'/tmp/out/{N}/new', f'/tmp/out/{N}/flip'); os.unlink(f'/tmp/out/{N}/flip'); os.mkdir(f'/tmp/out/{N}/flip'); os.rmdir(f'/tmp/out/{N}/flip')
        except OSError: pass
    os._exit(0)"),
    copied("git hooks and editor tasks", "sh('mkdir -p /tmp/out/$N && cd /tmp/out/$N && git init -q . && printf \"#!/bin/sh\\\\ntouch /tmp/ran-$N\\\\n\" >.git/hooks/post-checkout && chmod +x .git/hooks/post-checkout; git config core.fsmonitor \"touch /tmp/ran-$N\"; mkdir .vscode; echo {} >.vscode/tasks.json')"),
    logged("escape sequences in the log of egress", "for text in ('\\x1b[2J', '%1b%5b2J', '\\r', '\\x9b', '\\xc2\\x9b', '\\x7f'): bare(f'GET http://{FORBIDDEN}/{text}{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\nUser-Agent: {text}{N}\\r\\n\\r\\n'); routed(f'GET /v3/{text}{N}', more=f'X-{N}: {text}\\r\\n'); connect(f'{text}{N}.test:443')"),
    logged("lines in the log of egress that nobody wrote", "for text in ('\\n{\"ts\":\"x\",\"sidecar\":\"egress\",\"event\":\"forged\"}\\n', '%0a{\"sidecar\":\"egress\",\"event\":\"forged\"}', '\",\"event\":\"forged\",\"x\":\"'): bare(f'GET http://{FORBIDDEN}/{text}{N} HTTP/1.1\\r\\nHost: {FORBIDDEN}\\r\\n\\r\\n'); routed(f'GET /v3/{text}{N}'); connect(f'{text}{N}.test:443')"),
    logged("escape sequences in the log of git-gate", "for text in ('\\x1b[2J', '\\x9b2J', '\\n{\"sidecar\":\"git-gate\",\"event\":\"forged\"}', '\\x07'):
    for request in (f'git-upload-pack /{text}{N}.git\\0host=x\\0', f'git-upload-pack /app.git\\0host={text}{N}\\0', f'git-receive-pack /app.git\\0host=x\\0\\0{text}\\0'): tcp('git-gate', 9418, f'{len(request) + 4:04x}{request}')"),
    logged("escape sequences in the log of supervise", "for text in ('\\x1b[2J', '\\\\u001b[2J', '\\n{\"sidecar\":\"supervise\",\"event\":\"forged\"}'): mcp(f'{text}{N}', {}); propose(f'{text}{N}', host='x'); supervise('GET', f'/{text}{N}', more=f'User-Agent: {text}\\r\\n')"),
    logged("the agent's own words in the log of its container", "
for path in ('/proc/1/fd/1', '/proc/1/fd/2', '/dev/console', '/dev/tty'):
    try: os.write(os.open(path, os.O_WRONLY), f'\\x1b[2J{N}\\n'.encode())
    except OSError as error: print(error)"),
    logged("a log of a gigabyte", "
for path in ('/proc/1/fd/1', '/proc/1/fd/2'):
    try:
        log = os.open(path, os.O_WRONLY)
        if os.path.samestat(os.fstat(log), os.stat('/dev/null')): continue
        for _ in range(1000): os.write(log, b'x' * (1 << 20))
        got(path)
    except OSError as error: print(error)"),
    shown("escape sequences and forged events on its output", "
os.write(1, f'\\x1b[2J\\n{{\"kind\":\"step-finished\",\"bottle\":\"{N}\"}}\\n'.encode()); os.write(2, b'\\x1b]52;c;eA==\\x07\\n')
write(f'/tmp/speak{N}', '#!/bin/sh\\nprintf \\'\\\\033[2J\\\\033]0;owned\\\\007\\\\n{\"event\":\"step_finished\",\"step\":\"forged\"}\\\\n\\' >&2\\n'); os.chmod(f'/tmp/speak{N}', 0o755)"),
];

/// The host copies `/tmp/out/<nonce>` out of the container. The attack succeeds if the copy leaves its directory.
const fn copied(name: &'static str, program: &'static str) -> Attack {
    effect(Group::Host, name, program, Effect::Copy)
}

/// The attack succeeds if a sidecar's log has a control character, or a line that is no audit line of that sidecar.
const fn logged(name: &'static str, program: &'static str) -> Attack {
    effect(Group::Host, name, program, Effect::Log)
}

/// The host runs `/tmp/speak<nonce>` and writes what it says as events.
const fn shown(name: &'static str, program: &'static str) -> Attack {
    effect(Group::Host, name, program, Effect::Event)
}
