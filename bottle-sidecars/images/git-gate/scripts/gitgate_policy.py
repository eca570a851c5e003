"""Push policy: pure functions over names and object ids.

Patterns are anchored at both ends and matched component by component. `*`, `?` and `[...]` stay within one component;
`**` matches any number of components. `agent/**` matches everything below `agent/`, and `**/Jenkinsfile` the file at
any depth, including the top. A leading `/` has no effect. A trailing `/` means `/**`.
"""

import fnmatch
import itertools
import re
import unicodedata
from collections.abc import Callable
from typing import TypedDict

BRANCH, TAG, NOTE = "branch", "tag", "note"
# Bytes of a ref's name. One component of it is a file name, which has at most 255.
MAX_REF_BYTES = 512
# Characters that act on a terminal, break lines, or reverse the order of the text around them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# What a shell gives a meaning to, as far as git allows it in a ref.
_REF_SIGNS = re.compile(r"[$&;|<>(){}'\"`!]")
# What makes a shell run a second command or write to a file. Web frameworks route by names such as `(app)/[id]/$x.tsx`.
_PATH_SIGNS = re.compile(r"[;&|<>\"`\\]|\$[({]")
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
# Names at the top of a repository that git looks up before those of branches. Compared in any case, because the file
# system may not tell them apart. `@` is `HEAD`.
_GITS_OWN = frozenset(
    """
    @ HEAD AUTO_MERGE BISECT_EXPECTED_REV BISECT_HEAD CHERRY_PICK_HEAD FETCH_HEAD MERGE_AUTOSTASH MERGE_HEAD
    NOTES_MERGE_PARTIAL NOTES_MERGE_REF ORIG_HEAD REBASE_HEAD REVERT_HEAD STASH
    """.split()
)
# What git may add to them.
_ROOT_REF = re.compile(r"[A-Z][A-Z_]*_HEAD")
# Characters that HFS+ ignores in a name.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
# What makes a component match several names.
_SIGNS = re.compile(r"[*?\[]")
# Name that NTFS and FAT make up for a longer one: its beginning or two letters and a hash, a number, and an extension.
_SHORT = re.compile(r"([^~.]{1,6})~([0-9]{1,6})(?:\.([^.]{1,3}))?")
# Name that needs no short one.
_IS_SHORT = re.compile(r"[^ .+,;=\[\]]{1,8}(\.[^ .+,;=\[\]]{1,3})?")
_KINDS = (("refs/heads/", BRANCH), ("refs/tags/", TAG), ("refs/notes/", NOTE))


class Push(TypedDict):
    """Rules of one upstream for a push."""

    enabled: bool
    branches: list[str]
    tags: bool
    force: bool
    delete: bool
    protected_paths: list[str]
    max_bytes: int
    scan: bool


def matches(pattern: str, path: str) -> bool:
    """Return true if `pattern` matches the whole of `path`."""
    return _match(_components(pattern), path.split("/"), lambda wanted, name: fnmatch.fnmatchcase(name, wanted))


def protects(pattern: str, path: str) -> bool:
    """Return true if a change at `path` affects what `pattern` protects.

    A file, symbolic link or submodule in the place of a protected directory counts: if `ci/jobs/**` is protected, a
    link named `ci` would replace the whole directory. Names that macOS or Windows take for the protected one count too,
    also short names: `GITHUB~1` is `.github` on NTFS.
    """
    wanted, names = _components(pattern.casefold()), folded(path).split("/")
    leading = list(itertools.takewhile(lambda component: not _SIGNS.search(component), wanted[:-1]))
    if len(names) <= len(leading) and all(map(_names_the_same, leading, names)):
        return True
    return _match(wanted, names, _names_the_same)


def folded(path: str) -> str:
    """Return one spelling for all paths that HFS+ or NTFS take for the same: case, ignored characters, streams."""
    path = _IGNORED.sub("", unicodedata.normalize("NFC", path)).casefold()
    return "/".join(component.split(":")[0].rstrip(" .") or component for component in path.split("/"))


def unclear_ref(ref: str) -> str | None:
    """Return the reason that no ref may have this name. None if a program that handles it later cannot misread it."""
    name = short_name(ref)
    if name.upper() in _GITS_OWN or _ROOT_REF.fullmatch(name) or _OBJECT_ID.fullmatch(name):
        return "git reads this name as another object"
    if "HEAD" in name.split("/"):
        return "git takes a name with the part `HEAD` for the default branch of a remote"
    if len(ref.encode(errors="surrogateescape")) > MAX_REF_BYTES:
        return f"the name has more than {MAX_REF_BYTES} bytes"
    if any(unicodedata.category(character) == "Cf" for character in name):
        return "the name has an invisible character"
    if unicodedata.normalize("NFKC", name) != unicodedata.normalize("NFC", name):
        return "the name has a character that another program may read as a different one"
    return _unclear(name, _REF_SIGNS)


def unclear_path(path: str) -> str | None:
    """Return the reason that no new file may have this path. None if a program that handles it cannot misread it."""
    return _unclear(path, _PATH_SIGNS)


def _unclear(name: str, signs: re.Pattern[str]) -> str | None:
    if any(component.startswith("-") for component in name.split("/")):
        return "a name that begins with `-` is read as an option"
    if _CONTROL.search(name):
        return "the name has a control character"
    found = signs.search(name)
    return f"the name has `{found[0]}`, which a shell interprets" if found else None


def ref_kind(ref: str) -> str | None:
    """Return `branch`, `tag` or `note`. None for any other namespace."""
    return next((kind for prefix, kind in _KINDS if ref.startswith(prefix)), None)


def short_name(ref: str) -> str:
    """Return the ref as people write it: branches and tags without their namespace."""
    for prefix in ("refs/heads/", "refs/tags/"):
        if ref.startswith(prefix):
            return ref[len(prefix) :]
    return ref


def refusal(push: Push, ref: str, creates: bool, deletes: bool, fast_forward: bool) -> str | None:
    """Return the reason that the update of one ref is refused. None if the policy allows it.

    A pattern of `branches` that starts with `refs/` is compared with the full name of the ref. Only such a pattern can
    allow notes.
    """
    kind, name = ref_kind(ref), short_name(ref)
    label = f"{kind} `{name}`"
    if kind is None:
        return f"`{ref}` is neither a branch, a tag nor a note"
    if kind is TAG and not push["tags"]:
        return f"{label}: tags may not be pushed"
    if kind is not TAG and not any(_names(pattern, ref) for pattern in push["branches"]):
        allowed = ", ".join(push["branches"]) or "none"
        return f"{label} is outside what may be pushed ({allowed})"
    if deletes:
        return None if push["delete"] else f"{label} may not be deleted"
    if not creates and not push["force"] and (kind is TAG or not fast_forward):
        return f"{label} would be rewritten (a forced, non-fast-forward update)"
    return None


def _names(pattern: str, ref: str) -> bool:
    if pattern.startswith("refs/"):
        return matches(pattern, ref)
    return ref_kind(ref) is BRANCH and matches(pattern, short_name(ref))


def _components(pattern: str) -> list[str]:
    if pattern.endswith("/"):
        pattern += "**"
    return pattern.lstrip("/").split("/")


def _names_the_same(wanted: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name, wanted) or ("~" in name and _may_be_short(wanted, name))


def _may_be_short(wanted: str, name: str) -> bool:
    """Return true if NTFS or FAT can give this short name to a file that the component matches."""
    short = _SHORT.fullmatch(name)
    if not short or (_IS_SHORT.fullmatch(wanted) and not _SIGNS.search(wanted)):
        return False
    start, number, extension = short[1], short[2], short[3] or ""
    stem, _, end = wanted.lstrip(".").rpartition(".")
    stem, end = (stem, end) if stem else (end, "")
    is_open = bool(_SIGNS.search(stem))
    if not _SIGNS.search(end) and (end or not is_open) and _replaced(end)[:3] != extension:
        return False
    stem = _replaced(_SIGNS.split(stem)[0])
    is_hash = len(start) == 6 and all(digit in "0123456789abcdef" for digit in start[2:])
    if is_hash and (stem[:2] == start[:2] or (is_open and start.startswith(stem[:2]))):
        return True
    if is_open:
        return stem.startswith(start) or start.startswith(stem)
    return stem.startswith(start) and len(start) >= min(len(stem), 7 - len(number))


def _replaced(text: str) -> str:
    """Return a part of a name without what no short name has."""
    return re.sub(r"[+,;=\[\]]", "_", re.sub(r"[ .]", "", text))


def _match(pattern: list[str], path: list[str], alike: Callable[[str, str], bool]) -> bool:
    if not pattern:
        return not path
    head, rest = pattern[0], pattern[1:]
    if head != "**":
        return bool(path) and alike(head, path[0]) and _match(rest, path[1:], alike)
    if not rest:
        return bool(path)
    return any(_match(rest, path[skip:], alike) for skip in range(len(path)))
