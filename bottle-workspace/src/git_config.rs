//! The workspace's git configuration, reduced to what an agent needs.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use gix_config::File;
use gix_config::file::Metadata;

/// Keys that are copied, by section.
///
/// Everything else is left out: it may hold a credential (`http.*.extraHeader`), name a program of the host
/// (`core.sshCommand`, `filter.*.clean`, an alias), or include another file.
const ALLOWED: &[(&str, &[&str])] = &[
    ("branch", &["remote", "pushremote", "merge", "rebase"]),
    (
        "color",
        &["advice", "branch", "diff", "grep", "interactive", "pager", "push", "remote", "showbranch", "status", "ui"],
    ),
    (
        "core",
        &[
            "abbrev",
            "autocrlf",
            "bare",
            "bigfilethreshold",
            "checkstat",
            "compression",
            "eol",
            "filemode",
            "ignorecase",
            "logallrefupdates",
            "precomposeunicode",
            "quotepath",
            "repositoryformatversion",
            "safecrlf",
            "sharedrepository",
            "sparsecheckout",
            "sparsecheckoutcone",
            "symlinks",
            "trustctime",
            "whitespace",
            "worktree",
        ],
    ),
    ("diff", &["algorithm", "colormoved", "context", "mnemonicprefix", "noprefix", "renamelimit", "renames"]),
    (
        "extensions",
        &[
            "compatobjectformat",
            "noop",
            "objectformat",
            "partialclone",
            "preciousobjects",
            "refstorage",
            "relativeworktrees",
            "submodulepathconfig",
            "worktreeconfig",
        ],
    ),
    ("feature", &["experimental", "manyfiles"]),
    ("fetch", &["parallel", "prune", "prunetags", "recursesubmodules"]),
    (
        "gc",
        &[
            "aggressivedepth",
            "aggressivewindow",
            "auto",
            "autodetach",
            "autopacklimit",
            "bigpackthreshold",
            "cruftpacks",
            "logexpiry",
            "maxcruftsize",
            "packrefs",
            "pruneexpire",
            "reflogexpire",
            "reflogexpireunreachable",
            "rerereresolved",
            "rerereunresolved",
            "worktreepruneexpire",
            "writecommitgraph",
        ],
    ),
    ("index", &["recordendofindexentries", "recordoffsettable", "skiphash", "sparse", "threads", "version"]),
    ("init", &["defaultbranch"]),
    ("log", &["abbrevcommit", "date", "decorate", "diffmerges", "follow", "showroot", "showsignature"]),
    ("merge", &["conflictstyle", "ff", "renames", "renormalize"]),
    (
        "pack",
        &[
            "compression",
            "deltacachelimit",
            "deltacachesize",
            "depth",
            "indexversion",
            "packsizelimit",
            "readreverseindex",
            "threads",
            "usebitmaps",
            "usesparse",
            "window",
            "windowmemory",
            "writebitmaphashcache",
            "writereverseindex",
        ],
    ),
    ("pull", &["ff", "rebase"]),
    ("push", &["autosetupremote", "default", "followtags"]),
    ("rebase", &["autosquash", "autostash", "updaterefs"]),
    (
        "remote",
        &[
            "fetch",
            "mirror",
            "partialclonefilter",
            "promisor",
            "prune",
            "push",
            "pushurl",
            "skipdefaultupdate",
            "tagopt",
            "url",
        ],
    ),
    ("rerere", &["autoupdate", "enabled"]),
    (
        "status",
        &[
            "aheadbehind",
            "branch",
            "displaycommentprefix",
            "relativepaths",
            "renamelimit",
            "renames",
            "short",
            "showstash",
            "showuntrackedfiles",
            "submodulesummary",
        ],
    ),
    ("submodule", &["active", "branch", "ignore", "path", "url"]),
    ("tag", &["sort"]),
    ("url", &["insteadof", "pushinsteadof"]),
    ("user", &["email", "name"]),
];

/// A reduced configuration.
#[derive(Default)]
pub(super) struct Reduced {
    /// The text that is copied in its place, of a configuration in git's own format.
    pub(super) text: Vec<u8>,
    /// Keys that were left out, such as `http.extraheader`.
    pub(super) left_out: BTreeSet<String>,
    /// True if a URL lost its credentials.
    pub(super) has_secret_url: bool,
}

/// Returns a reflog or a message of a repository with URLs that have no credentials. `None` if none of them has any.
pub(super) fn without_urls(text: &[u8]) -> Option<Reduced> {
    // A byte is a character here, so that other encodings than UTF-8 stay as they are.
    let characters: String = text.iter().copied().map(char::from).collect();
    let without = without_credentials(&characters);
    let text = without.chars().filter_map(|c| u8::try_from(c).ok()).collect();
    (without != characters).then(|| Reduced { text, has_secret_url: true, ..Reduced::default() })
}

/// Returns a configuration outside a repository as [`reduce`], if it has a credential. `None` if it has none: it may be the
/// work of the agent.
pub(super) fn reduce_if_secret(config: &[u8]) -> Option<Reduced> {
    let signs = ["header", "password", "pass", "token", "secret", "cookiefile", "proxy"];
    let reduced = reduce(config)?;
    let is_secret = |key: &String| signs.iter().any(|sign| key.ends_with(sign)) || key.starts_with("credential.");
    (reduced.has_secret_url || reduced.left_out.iter().any(is_secret)).then_some(reduced)
}

/// Returns the configuration with only the allowed keys, and without credentials in URLs. `None` if it is not in git's format.
pub(super) fn reduce(config: &[u8]) -> Option<Reduced> {
    let file =
        File::from_bytes_no_includes(config, Metadata::api(), gix_config::file::init::Options::default()).ok()?;
    let (mut text, mut left_out, mut has_secret_url) = (String::new(), BTreeSet::new(), false);
    let mut plain = |value: &str| {
        let without = without_credentials(value);
        has_secret_url |= without != value;
        without
    };
    for section in file.sections() {
        let name = section.header().name().to_string().to_ascii_lowercase();
        let allowed = ALLOWED.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, keys)| *keys);
        let subsection = section.header().subsection_name().map(ToString::to_string);
        let mut lines = String::new();
        let mut seen = BTreeSet::new();
        for key in section.value_names() {
            let key = key.to_ascii_lowercase();
            // A key that is there several times is named once for each.
            if !seen.insert(key.clone()) {
                continue;
            }
            let is_allowed = allowed.contains(&&*key);
            let values: Vec<String> = section.values(&key).iter().map(ToString::to_string).collect();
            if !is_allowed || values.iter().any(|value| runs_a_program(&name, &key, value)) {
                left_out.insert(format!("{name}.{key}"));
                continue;
            }
            // A key without a value means true, an empty value false.
            if section.value_implicit(&key) == Some(None) {
                let _ = writeln!(lines, "\t{key}");
                continue;
            }
            for value in values {
                let _ = writeln!(lines, "\t{key} = \"{}\"", escaped(&plain(&value)));
            }
        }
        if lines.is_empty() {
            continue;
        }
        let _ = match subsection {
            Some(subsection) => {
                let subsection = plain(&subsection).replace('\\', "\\\\").replace('"', "\\\"");
                writeln!(text, "[{name} \"{subsection}\"]\n{}", lines.trim_end_matches('\n'))
            }
            None => writeln!(text, "[{name}]\n{}", lines.trim_end_matches('\n')),
        };
    }
    Some(Reduced { text: text.into_bytes(), left_out, has_secret_url })
}

/// Returns true if no value of the key names a program or a file with commands.
pub(super) fn names_no_program(section: &str, key: &str) -> bool {
    let (_, keys) = ALLOWED.iter().find(|(known, _)| *known == section).unwrap_or(&("", &[]));
    keys.contains(&key)
}

/// Returns true if git would run the value: a remote helper such as `ext::`, or a command after `!`.
fn runs_a_program(section: &str, key: &str, value: &str) -> bool {
    let is_url = matches!((section, key), ("remote" | "submodule", "url" | "pushurl"));
    value.starts_with('!') || (is_url && value.contains("::"))
}

/// Returns a value as it stands between quotes.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out
}

/// Returns the text without the password of each URL in it, and without its user unless it is one of `ssh`. A query may hold a
/// token, so it is removed as well.
fn without_credentials(text: &str) -> String {
    let is_gap = |c: char| c.is_ascii_whitespace() || "\"'<>(),;".contains(c);
    without_url_credentials(text).split_inclusive(is_gap).map(without_password).collect()
}

/// Returns a word without the password in `user:password@host:path`, which is `ssh` without a scheme.
fn without_password(word: &str) -> Cow<'_, str> {
    let parts = || {
        let (login, host) = word.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        let is_place = host.split_once(':').is_some_and(|(name, _)| !name.is_empty() && !name.contains('/'));
        (is_place && !user.is_empty() && !login.contains("://")).then_some((user, host))
    };
    parts().map_or(Cow::Borrowed(word), |(user, host)| Cow::Owned(format!("{user}@{host}")))
}

fn without_url_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let scheme =
            before[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).next().unwrap_or_default();
        let end = after.find(['/', '?', '#', '"', '\'', ' ', '\t', '\n']).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        if let Some((user, host)) = authority.rsplit_once('@') {
            let user = user.split(':').next().unwrap_or_default();
            if matches!(scheme, "ssh" | "git+ssh" | "ssh+git") && !user.is_empty() {
                out.push_str(user);
                out.push('@');
            }
            out.push_str(host);
        } else {
            out.push_str(authority);
        }
        let path = tail.find(['"', '\'', ' ', '\t', '\n']).unwrap_or(tail.len());
        let (path, next) = tail.split_at(path);
        out.push_str(path.split(['?', '#']).next().unwrap_or_default());
        rest = next;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(text: &str) -> (String, Vec<String>) {
        let reduced = reduce(text.as_bytes()).unwrap();
        (String::from_utf8(reduced.text).unwrap(), reduced.left_out.into_iter().collect())
    }

    #[test]
    fn reflogs_lose_the_credentials_of_urls_and_nothing_else() {
        let line =
            |url: &str| [b"0 1 M\xfc <m@h.example> 1 +0000\tclone: from ".as_slice(), url.as_bytes(), b"\n"].concat();
        let reduced = without_urls(&line("https://me:hunter2@h.example/a")).unwrap();
        assert_eq!((reduced.text, reduced.has_secret_url), (line("https://h.example/a"), true));
        assert!(
            without_urls(&line("git@h.example:a")).is_none() && without_urls(&line("https://h.example/a")).is_none()
        );
        let scp = without_urls(&line("me:hunter2@h.example:a")).unwrap();
        assert_eq!(scp.text, line("me@h.example:a"));
    }

    #[test]
    fn a_configuration_of_the_users_own_is_reduced_only_if_it_has_a_credential() {
        for kept in [
            "[alias]\n\tx = !make\n[core]\n\teditor = vi\n",
            "[submodule \"a\"]\n\turl = ../a\n\tupdate = rebase\n",
            "[x",
        ] {
            assert!(reduce_if_secret(kept.as_bytes()).is_none(), "{kept}");
        }
        for secret in [
            "[http]\n\textraHeader = a\n",
            "[github]\n\toauth-token = a\n",
            "[sendemail]\n\tsmtpPass = a\n",
            "[submodule \"a\"]\n\turl = https://a:b@h.example/a\n",
        ] {
            assert!(reduce_if_secret(secret.as_bytes()).is_some(), "{secret}");
        }
    }

    #[test]
    fn what_an_agent_needs_is_kept() {
        let (text, left_out) = reduced(
            "[core]\n\trepositoryformatversion = 0\n\tbare = false ; a comment\n[remote \"origin\"]\n\turl = git@git.example:a/b.git\n\
             \tfetch = +refs/heads/*:refs/remotes/origin/*\n\tfetch = +refs/notes/*:refs/notes/*\n\
             [branch \"a \\\"b\\\"\"]\n\tmerge = refs/heads/a\n[user]\n\tname = \"Ann # \\\"A\\\"\"\n[push]\n\tfollowTags\n",
        );
        assert_eq!(
            text,
            "[core]\n\trepositoryformatversion = \"0\"\n\tbare = \"false\"\n[remote \"origin\"]\n\turl = \"git@git.example:a/b.git\"\n\
             \tfetch = \"+refs/heads/*:refs/remotes/origin/*\"\n\tfetch = \"+refs/notes/*:refs/notes/*\"\n\
             [branch \"a \\\"b\\\"\"]\n\tmerge = \"refs/heads/a\"\n[user]\n\tname = \"Ann # \\\"A\\\"\"\n[push]\n\tfollowtags\n"
        );
        assert_eq!(left_out, Vec::<String>::new());
    }

    /// Every place in which a credential has been seen, in the spellings that git accepts.
    #[test]
    fn no_credential_is_kept_however_it_is_spelled() {
        let (text, left_out) = reduced(
            "[http \"https://git.example/\"]\n\textraHeader = AUTHORIZATION: basic hunter2\n[HTTP]\n  ExtraHeader=hunter2\n\
             [http]extraheader = hunter2\n[http \"x\"] cookieFile = hunter2\n",
        );
        assert_eq!((text.as_str(), left_out.first().map(String::as_str)), ("", Some("http.cookiefile")));
        let (text, left_out) = reduced(
            "[http]\n\textraHeader = \"Authorization: \\\n  hunter2\"\n[include]\n\tpath = ~/hunter2\n[includeIf \"gitdir:~/\"]\n\tpath = hunter2\n\
             [credential]\n\thelper = store --file hunter2\n[credential \"https://h.example\"]\n\tusername = hunter2\n\
             [core]\n\tsshCommand = ssh -i hunter2\n\tfsmonitor = hunter2\n\tgitProxy = hunter2\n[alias]\n\tx = !hunter2\n\
             [filter \"x\"]\n\tclean = hunter2\n[gc]\n\trecentObjectsHook = hunter2\n[pack]\n\tpackObjectsHook = hunter2\n\
             [color]\n\tx = hunter2\n[log]\n\tmailmap = hunter2\n[branch \"x\"]\n\tdescription = hunter2\n\
             [sendemail]\n\tsmtpPass = hunter2\n[remote \"e\"]\n\turl = ext::hunter2\n",
        );
        assert_eq!(text, "");
        assert!(
            left_out.contains(&"include.path".into()) && left_out.contains(&"core.sshcommand".into()),
            "{left_out:?}"
        );
    }

    #[test]
    fn urls_lose_their_credentials_in_every_scheme_and_place() {
        let (text, _) = reduced(
            "[remote \"a\"]\n\turl = https://me:hunter2@git.example/a.git\n\turl = https://hunter2@git.example/a.git\n\
             \tpushurl = me:hunter2@git.example:a.git\n\turl = git@git.example:b.git\n\
             \tpushurl = ssh://git:hunter2@git.example:22/a.git\n\turl = ftp://me:hunter2@f.example/a https://u:hunter2@b.example/c\n\
             \turl = https://git.example/a.git?private_token=hunter2\n\
             [url \"https://x:hunter2@h.example/\"]\n\tinsteadOf = h:\n",
        );
        assert!(!text.contains("hunter2"), "{text}");
        for kept in [
            "url = \"https://git.example/a.git\"",
            "pushurl = \"ssh://git@git.example:22/a.git\"",
            "pushurl = \"me@git.example:a.git\"",
            "url = \"git@git.example:b.git\"",
            "url = \"ftp://f.example/a https://b.example/c\"",
            "[url \"https://h.example/\"]\n\tinsteadof = \"h:\"",
        ] {
            assert!(text.contains(kept), "{kept}\n{text}");
        }
    }

    #[test]
    fn what_is_not_a_configuration_is_not_copied() {
        for text in ["[core\nbare = false", "[core]\n\tbare = \"false\n", "[]\n"] {
            assert!(reduce(text.as_bytes()).is_none(), "{text}");
        }
    }
}
