"""Packing what people have, unpacking what anybody may send."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudlet.functions import archive
from cloudlet.functions.archive import check_link, pack, unpack
from cloudlet.model.errors import InvalidProject


def packed(directory: Path, **options: object) -> bytes:
    out = io.BytesIO()
    pack(directory, out, **options)  # type: ignore[arg-type]
    return out.getvalue()


def unpacked(data: bytes, tmp_path: Path) -> Path:
    archive_file = tmp_path / "upload.tar"
    archive_file.write_bytes(data)
    target = tmp_path / "target"
    target.mkdir()
    unpack(archive_file, target)
    return target


def crafted(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info, b"x" if kind == tarfile.REGTYPE else b""


def function(tmp_path: Path) -> Path:
    root = tmp_path / "fn"
    for name in (
        "index.js",
        "lib/a.js",
        "node_modules/x/index.js",
        ".git/HEAD",
        "__pycache__/a.pyc",
        "big.psd",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link.js").symlink_to("lib/a.js")
    (root / "absolute.js").symlink_to(root / "index.js")
    return root


def files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def test_what_is_packed_comes_out_again(tmp_path: Path) -> None:
    target = unpacked(packed(function(tmp_path), ignore=("*.psd",)), tmp_path)
    assert files(target) == {"index.js", "lib/a.js", "run.sh", "link.js", "absolute.js"}
    assert (target / "link.js").readlink() == Path("lib/a.js")
    assert (target / "absolute.js").readlink() == Path("index.js")
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755


def test_dependencies_are_packed_when_they_are_not_installed_later(tmp_path: Path) -> None:
    assert "node_modules/x/index.js" in files(
        unpacked(packed(function(tmp_path), dependencies=True), tmp_path)
    )


def test_equal_folders_give_equal_bytes(tmp_path: Path) -> None:
    first, second = function(tmp_path / "1"), function(tmp_path / "2")
    (second / "index.js").touch()
    (first / "absolute.js").unlink()
    (second / "absolute.js").unlink()
    assert packed(first) == packed(second)


@pytest.mark.parametrize("pattern", ["lib", "lib/", "./lib/**", "lib/**/*", "lib/*.js", "**/a.js", "a.js"])
def test_ignore_patterns(tmp_path: Path, pattern: str) -> None:
    root = function(tmp_path)
    (root / "link.js").unlink()
    assert "lib/a.js" not in files(unpacked(packed(root, ignore=(pattern,)), tmp_path))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "lib/../../x"])
def test_links_that_lead_outside_are_not_packed(tmp_path: Path, target: str) -> None:
    root = function(tmp_path)
    (root / "bad").symlink_to(target)
    with pytest.raises(InvalidProject, match=r"bad: the link to .* leads outside"):
        packed(root)


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil")],
        [member("/etc/evil")],
        [member("a/../../evil")],
        [member("a"), member("a")],
        [member("a/b"), member("a")],
        [member("dev", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("link", tarfile.SYMTYPE, "/etc")],
        [member("link", tarfile.SYMTYPE, "..")],
        [member("d/link", tarfile.SYMTYPE, "../..")],
        [member("d/x"), member("l", tarfile.SYMTYPE, "d/../../..")],
        [member("link", tarfile.SYMTYPE, "d"), member("link/file")],
        [member("d/e"), member("l", tarfile.SYMTYPE, "d"), member("l/m", tarfile.SYMTYPE, "..")],
        [member("x" * 2000)],
    ],
)
def test_hostile_archives_are_refused(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(InvalidProject):
        unpacked(crafted(*members), tmp_path)
    assert not (tmp_path / "evil").exists()


def test_what_is_not_a_tar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidProject, match="cannot be unpacked"):
        unpacked(b"\x1f\x8bnot a tar at all" * 100, tmp_path)


def test_a_tar_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    data = packed(function(tmp_path))
    with pytest.raises(InvalidProject, match="not complete"):
        unpacked(data[: len(data) - 10240], tmp_path)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(function(tmp_path))
    monkeypatch.setattr(archive, "PACKAGE_BYTES_MAX", 10)
    with pytest.raises(InvalidProject, match="unpacks to more than"):
        unpacked(data, tmp_path)
    with pytest.raises(InvalidProject, match="exclude files with 'ignore'"):
        packed(tmp_path / "fn")
    monkeypatch.setattr(archive, "PACKAGE_FILES_MAX", 2)
    with pytest.raises(InvalidProject, match="more than 2 files"):
        packed(tmp_path / "fn")


PART = st.sampled_from(["..", "a", "b", "."])


@given(st.lists(PART, min_size=1, max_size=6), st.lists(PART, min_size=1, max_size=6))
def test_an_accepted_link_stays_inside(folders: list[str], target: list[str]) -> None:
    path = "/".join([part for part in folders if part not in {"..", "."}] + ["link"])
    try:
        accepted = check_link(path, "/".join(target))
    except InvalidProject:
        return
    depth = path.count("/")
    for part in accepted.split("/"):
        depth += {"..": -1, ".": 0}.get(part, 1)
        assert depth >= 0
