//! The workspace: files that lead the launch to read more than the workspace. The copy in the container is searched for what
//! the host keeps elsewhere.

use crate::table::{Attack, Group, recorded};

/// Files below the workspace that the launch finds: a path, and a shell script that makes it, in the workspace. `$SECRET_DIR`
/// has files of the host with a canary.
pub(crate) const PLANTED: &[&str] = &[
    "ln -s \"$SECRET_DIR/key\" link; ln -s \"$SECRET_DIR\" linked; ln -s ../../../../../../../..$SECRET_DIR/key relative",
    "mkdir -p deep/a/b; ln -s \"$SECRET_DIR\" deep/a/b/c; ln -s deep/a/b/c/key chained",
    "ln -s /proc/self/environ environ; ln -s /proc/self/fd fds; ln -s /dev/stdin stdin",
    "mkfifo pipe; mkdir odd; mkfifo odd/pipe",
    "touch \"$(printf 'a\\033[31mb')\" \"$(printf 'line\\nend')\" -- '-rf' '--checkpoint=1' '--checkpoint-action=exec=sh x'",
    "mkdir -p up/..x; touch 'up/..x/...' 'up/ ..'",
    "cp /bin/true suid; chmod 6755 suid",
    "printf 'KEY=CANARY-%s\\n' env-file-0123456789 >.env; printf 'machine x password CANARY-netrc-0123456789\\n' >.netrc; printf '//r/:_authToken=CANARY-npmrc-0123456789\\n' >.npmrc; printf 'CANARY-id-0123456789\\n' >id_ed25519",
    "printf 'https://a:CANARY-credentials-0123456789@h\\n' >.git/credentials; git config http.https://h/.extraHeader 'Authorization: CANARY-header-0123456789'; git config remote.o.url https://a:CANARY-url-0123456789@h/r.git",
    "git config include.path \"$SECRET_DIR/gitconfig\"; git config core.worktree /etc; git config core.hooksPath \"$SECRET_DIR\"; git config core.fsmonitor \"touch $SECRET_DIR/ran\"; git config filter.x.clean \"touch $SECRET_DIR/ran\"; echo '* filter=x' >.gitattributes",
    "mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch \"%s/ran\"\\n' \"$SECRET_DIR\" >.git/hooks/post-checkout; chmod +x .git/hooks/post-checkout; cp .git/hooks/post-checkout .git/hooks/pre-commit",
    "mkdir -p .git/objects/info; echo \"$SECRET_DIR/objects\" >.git/objects/info/alternates; ln -s \"$SECRET_DIR\" .git/refs/linked",
    "mkdir sub; echo \"gitdir: $SECRET_DIR/gitdir\" >sub/.git; mkdir -p .git/modules/m; printf '[core]\\n worktree = %s\\n' \"$SECRET_DIR\" >.git/modules/m/config",
    "printf '!.env\\n!%s\\n' \"$SECRET_DIR/key\" >.dockerignore; printf '!../\\n!**\\n' >.gitignore",
];

pub(crate) const ATTACKS: &[Attack] = &[
    tries("a link to a file of the host", "sh('cat /workspace/link /workspace/relative; readlink -f /workspace/link')"),
    tries(
        "a link to a directory of the host",
        "sh('ls -R /workspace/linked /workspace/deep; cat /workspace/linked/* /workspace/deep/a/b/c/* /workspace/chained')",
    ),
    tries(
        "links into the launcher's process",
        "sh('timeout 2 cat /workspace/environ; ls -l /workspace/fds; timeout 2 cat /workspace/stdin')",
    ),
    tries(
        "pipes and other special files",
        "sh('find /workspace ! -type f ! -type d ! -type l -exec ls -l {} +; timeout 1 cat /workspace/pipe')",
    ),
    tries("names that a program takes for options or for lines", "sh('ls -la /workspace | cat -v; ls /workspace/up')"),
    tries(
        "a set-user-id file",
        "
code, output = sh('ls -l /workspace/suid; /workspace/suid; id')
if 'uid=0' in output: got(output)",
    ),
    tries(
        "files with credentials",
        "sh('cat /workspace/.env /workspace/.netrc /workspace/.npmrc /workspace/id_ed25519')",
    ),
    tries(
        "credentials in git's configuration",
        "sh('cat /workspace/.git/config /workspace/.git/credentials; git -C /workspace config --list')",
    ),
    tries(
        "git configuration that includes or runs files of the host",
        "sh('git -C /workspace config --list --show-origin; git -C /workspace status; cat /workspace/.git/config')",
    ),
    tries(
        "borrowed objects and refs of the host",
        "sh('cat /workspace/.git/objects/info/alternates /workspace/.git/refs/linked/*; git -C /workspace fsck --full; git -C /workspace cat-file -p refs/linked/key')",
    ),
    tries(
        "a submodule whose directory is the host's",
        "sh('cat /workspace/sub/.git; git -C /workspace/sub log; git -C /workspace/sub config --list; cat /workspace/.git/modules/m/config; cat /workspace/.git/modules/*')",
    ),
    tries(
        "lists of ignored files that ask for more",
        "sh('cat /workspace/.dockerignore /workspace/.gitignore; find / -xdev -name key -exec cat {} +; find / -xdev -newer /etc/hostname -type f -exec grep -la CANARY {} + | grep -v attack-')",
    ),
    tries(
        "everything that was copied",
        "sh('cd /workspace && tar -cf - . 2>/dev/null | grep -ao \"CANARY-[a-z0-9-]*\" | sort -u')",
    ),
    tries(
        "history of the image",
        "sh('cat /.dockerenv /etc/hostname /proc/self/mountinfo; find / -xdev -name \".wh.*\"; find / -xdev \\\\( -name Dockerfile -o -name .dockerignore \\\\) -exec cat {} +')",
    ),
];

const fn tries(name: &'static str, program: &'static str) -> Attack {
    recorded(Group::Workspace, name, program)
}
