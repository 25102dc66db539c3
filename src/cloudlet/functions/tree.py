"""Directory trees: their digest, copies by hard link, sizes, removal."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from cloudlet.model.errors import BuildFailed

from .limits import PACKAGE_BYTES_MAX, PACKAGE_FILES_MAX

FILES_LISTED_MAX = 2_000
FILE_MODE = 0o444
"""Code of a version is read-only; folders stay writable for their owner so that a person can delete them."""


def tree_digest(directory: Path) -> str:
    """SHA-256 over paths, contents, link targets and executable bits, as hex. Times do not count."""
    digest = hashlib.sha256()
    for path in walk(directory):
        info = path.lstat()
        name = os.fsencode(path.relative_to(directory))
        if stat.S_ISLNK(info.st_mode):
            _add(digest, b"l", name, os.fsencode(path.readlink()))
        elif stat.S_ISREG(info.st_mode):
            kind = b"x" if info.st_mode & 0o100 else b"f"
            with path.open("rb") as file:
                _add(digest, kind, name, hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def file_digests(directory: Path) -> dict[str, str] | None:
    """Digest by path of every file and link; None when there are more than FILES_LISTED_MAX."""
    found: dict[str, str] = {}
    for path in walk(directory):
        if len(found) >= FILES_LISTED_MAX:
            return None
        if path.is_symlink():
            digest = hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
        else:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        # Names are bytes on disk, and the list is written as text.
        found[os.fsencode(path.relative_to(directory)).decode(errors="replace")] = digest[:16]
    return found


def walk(directory: Path) -> Iterator[Path]:
    """Everything that is not a folder, in the order of paths; links are not followed."""
    for item in sorted(os.scandir(directory), key=lambda item: item.name):
        if item.is_dir(follow_symlinks=False):
            yield from walk(Path(item.path))
        else:
            yield Path(item.path)


def link_tree(source: Path, target: Path) -> None:
    """Put everything of `source` into `target` by hard links (copies on another file system).

    What `target` has already stays: a function's own files win over those of its dependencies.
    """
    for item in os.scandir(source):
        place = target / item.name
        if item.is_dir(follow_symlinks=False):
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                continue
            place.mkdir(exist_ok=True)
            link_tree(Path(item.path), place)
        elif not os.path.lexists(place):
            _link(Path(item.path), place)


def check_size(directory: Path, what: str) -> None:
    """Raise BuildFailed when `directory` has more bytes or files than a package may have."""
    size = 0
    for count, path in enumerate(walk(directory), start=1):
        size += path.lstat().st_size
        if size > PACKAGE_BYTES_MAX or count > PACKAGE_FILES_MAX:
            raise BuildFailed(
                f"{what} has more than {PACKAGE_BYTES_MAX >> 20} MB or {PACKAGE_FILES_MAX} files: use fewer"
            )


def make_read_only(directory: Path) -> None:
    """Files 0444 (0555 when executable), folders 0755."""
    for parent, folders, files in os.walk(directory):
        for name in folders:
            folder = Path(parent, name)
            if not folder.is_symlink():
                folder.chmod(0o755)
        for name in files:
            file = Path(parent, name)
            mode = file.lstat().st_mode
            wanted = FILE_MODE | (0o111 if mode & 0o100 else 0)
            if stat.S_ISREG(mode) and stat.S_IMODE(mode) != wanted:
                file.chmod(wanted)


def remove_tree(directory: Path) -> None:
    """Delete `directory`, also when an installer left folders without write permission; absent is fine."""
    if not directory.is_dir() or directory.is_symlink():
        directory.unlink(missing_ok=True)
        return
    for parent, folders, _files in os.walk(directory):
        for name in folders:
            folder = Path(parent, name)
            if not folder.is_symlink() and not os.access(folder, os.W_OK | os.X_OK):
                folder.chmod(0o700)
    shutil.rmtree(directory)


def sync_tree(directory: Path) -> None:
    """Make files and folders durable, so that a version that records know is whole after a power cut.

    Files with several names are those of a layer, which was made durable when it was made.
    """
    for parent, _folders, files in os.walk(directory):
        for path in (Path(parent, name) for name in files):
            info = path.lstat()
            if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
                _sync(path)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _add(digest: hashlib._Hash, *parts: bytes) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)


def _link(source: Path, place: Path) -> None:
    if source.is_symlink():
        place.symlink_to(source.readlink())
        return
    try:
        os.link(source, place)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copy2(source, place, follow_symlinks=False)
