"""A function's folder as a tar: packed where the project is, unpacked where it is built.

Packing gives the same bytes for the same content. Unpacking trusts nothing: only regular files, folders
and links that stay inside, within the limits of ``limits.py``.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cloudlet.model.errors import InvalidProject

from .limits import PACKAGE_BYTES_MAX, PACKAGE_FILES_MAX, PATH_CHARS_MAX

SKIPPED = frozenset(
    {".git", ".svn", ".hg", "__pycache__", ".DS_Store", ".venv", "venv", ".env", ".env.local"}
)
DEPENDENCIES = "node_modules"
_EDITOR = re.compile(r"\..*\.sw[a-z]|.*~|\.#.*|#.*#|4913")
"""What editors put beside a file while it is open or saved."""
_CHUNK = 256 * 1024
_END_MARK = 1024
"""Zero bytes that end a tar."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or link of a function's folder."""

    path: str
    """Relative, with ``/``."""
    source: Path
    size: int
    executable: bool
    link: str = ""
    """Target of a symbolic link, relative to the link."""


def pack(directory: Path, out: IO[bytes], *, ignore: tuple[str, ...] = (), dependencies: bool = False) -> int:
    """Write `directory` as a tar to `out`; return the number of files.

    `dependencies` packs ``node_modules`` too. Raise InvalidProject for links that lead outside, for what
    is neither file nor folder, and when a limit is passed.
    """
    entries = list_entries(directory, ignore=ignore, dependencies=dependencies)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            _add(tar, entry)
    return len(entries)


def list_entries(directory: Path, *, ignore: tuple[str, ...] = (), dependencies: bool = False) -> list[Entry]:
    """What `pack` packs, by path. Raise as `pack` does."""
    entries: list[Entry] = []
    total = 0
    root = directory.resolve()
    for path in _walk(directory, "", ignore, dependencies):
        entry = _entry(root, directory / path, path)
        total += entry.size
        entries.append(entry)
        if len(entries) > PACKAGE_FILES_MAX:
            raise InvalidProject(
                f"{directory.name}: more than {PACKAGE_FILES_MAX} files: exclude some with 'ignore'"
            )
        if total > PACKAGE_BYTES_MAX:
            raise InvalidProject(
                f"{directory.name}: more than {PACKAGE_BYTES_MAX >> 20} MB: exclude files with 'ignore'"
            )
    return sorted(entries, key=lambda entry: entry.path)


def unpack(archive: Path, directory: Path) -> None:
    """Unpack `archive` into the empty `directory`. Raise InvalidProject; what was written stays then."""
    links: dict[str, str] = {}
    seen: set[str] = set()
    total = 0
    try:
        _check_complete(archive)
        with tarfile.open(archive, mode="r:") as tar:
            for member in tar:
                path = _checked_path(member.name)
                if path in seen or len(seen) >= PACKAGE_FILES_MAX:
                    raise InvalidProject(
                        f"the upload has {path!r} twice or more than {PACKAGE_FILES_MAX} files"
                    )
                seen.add(path)
                if member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and member.sparse is None:
                    total += member.size
                    if total > PACKAGE_BYTES_MAX:
                        raise InvalidProject(f"the upload unpacks to more than {PACKAGE_BYTES_MAX >> 20} MB")
                    _extract(tar, member, directory / path)
                elif member.issym():
                    links[path] = check_link(path, member.linkname)
                elif not member.isdir():
                    raise InvalidProject(
                        f"the upload has {path!r}, which is neither a file, a folder nor a link"
                    )
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise InvalidProject(f"the upload cannot be unpacked: {exc}") from exc
    _make_links(directory, links)


def check_link(path: str, target: str) -> str:
    """Return `target` or raise InvalidProject when a link at `path` would lead outside.

    ``..`` is allowed at the start only: after a name it could follow another link upwards, so that the text
    of the path would say less than what it does.
    """
    parts = PurePosixPath(target).parts
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    depth = len(PurePosixPath(path).parts) - 1
    if not target or target.startswith("/") or up > depth or ".." in parts[up:] or "\0" in target:
        raise InvalidProject(
            f"{path}: the link to {target[:100]!r} leads outside the function: copy what it names"
        )
    return target


def is_skipped(name: str) -> bool:
    """Whether a file or folder of this name is never packed."""
    return name in SKIPPED or _EDITOR.fullmatch(name) is not None


def _walk(directory: Path, prefix: str, ignore: tuple[str, ...], dependencies: bool) -> Iterator[str]:
    for item in sorted(os.scandir(directory), key=lambda item: item.name):
        path = f"{prefix}{item.name}"
        if (
            is_skipped(item.name)
            or (item.name == DEPENDENCIES and not dependencies)
            or _ignored(path, ignore)
        ):
            continue
        if item.is_dir(follow_symlinks=False):
            yield from _walk(Path(item.path), f"{path}/", ignore, dependencies)
        else:
            yield path


def _ignored(path: str, patterns: tuple[str, ...]) -> bool:
    """A pattern names a path, a folder with all in it, or a file name anywhere; ``*`` crosses folders."""
    name = path.rsplit("/", 1)[-1]
    for pattern in patterns:
        bare = pattern.removeprefix("./").removesuffix("/**/*").removesuffix("/**").rstrip("/")
        anywhere = bare.removeprefix("**/")
        if bare and (fnmatch.fnmatchcase(path, bare) or fnmatch.fnmatchcase(name, anywhere)):
            return True
    return False


def _entry(root: Path, source: Path, path: str) -> Entry:
    if len(path) > PATH_CHARS_MAX:
        raise InvalidProject(f"{path[:80]}…: the path is longer than {PATH_CHARS_MAX} characters")
    info = source.lstat()
    if stat.S_ISLNK(info.st_mode):
        return Entry(path, source, 0, False, _link_target(root, source, path))
    if not stat.S_ISREG(info.st_mode):
        raise InvalidProject(f"{path}: neither a file, a folder nor a link: remove it or list it in 'ignore'")
    return Entry(path, source, info.st_size, bool(info.st_mode & 0o100))


def _link_target(root: Path, source: Path, path: str) -> str:
    """Links keep their meaning wherever the folder is: absolute ones inside become relative."""
    target = source.readlink()
    if target.is_absolute():
        resolved = source.resolve()
        if not resolved.is_relative_to(root):
            raise InvalidProject(
                f"{path}: the link to {target} leads outside the function: copy what it names"
            )
        target = Path(os.path.relpath(resolved, source.parent.resolve()))
    return check_link(path, target.as_posix())


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode = 0o755 if entry.executable else 0o644
    if entry.link:
        info.type = tarfile.SYMTYPE
        info.linkname = entry.link
        tar.addfile(info)
        return
    info.size = entry.size
    try:
        with entry.source.open("rb") as file:
            tar.addfile(info, file)
    except OSError as exc:
        raise InvalidProject(f"{entry.path}: cannot be read (it may have changed meanwhile): {exc}") from exc


def _check_complete(archive: Path) -> None:
    """The reader takes the end of the file for the end of the archive; the format has a mark of its own."""
    with archive.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_MARK))
        if size < _END_MARK or file.read(_END_MARK).strip(b"\0"):
            raise InvalidProject("the upload cannot be unpacked: it is not a tar, or not complete")


def _checked_path(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or len(name) > PATH_CHARS_MAX:
        raise InvalidProject(f"the upload has a path that is not allowed: {name[:100]!r}")
    return "/".join(parts)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    if content is None:
        raise InvalidProject(f"the upload has {member.name!r} without content")
    # Exclusive creation never follows a link and never replaces a file.
    with target.open("xb") as out:
        while chunk := content.read(_CHUNK):
            out.write(chunk)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _make_links(directory: Path, links: dict[str, str]) -> None:
    """Last, so that no file can be written through a link."""
    for path, target in links.items():
        link = directory / path
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.parent.resolve() != directory.resolve() / PurePosixPath(path).parent:
                raise InvalidProject(f"the upload has {path!r} inside a link")
            link.symlink_to(target)
        except OSError as exc:
            raise InvalidProject(f"the upload cannot be unpacked: {path}: {exc.strerror}") from exc
