"""What a deploy would change, and what editors leave behind."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from cloudlet.functions.archive import is_skipped, pack
from cloudlet.functions.compare import SHOWN_MAX, Source, changes
from cloudlet.model.function import FunctionConfig, Runtime, ScaleRule

PLAIN = FunctionConfig()


def source(
    files: dict[str, str] | None = None, layers: tuple[str, ...] = (), config: FunctionConfig = PLAIN
) -> Source:
    return Source(files, layers, config)


def test_files_are_named_with_what_happens_to_them() -> None:
    former, new = {"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "1", "d": "1"}
    assert changes(source(former), source(new)) == ("+ d", "~ b", "- a")
    assert changes(source(former), source(former)) == ()
    assert changes(source(None), source(new)) == ()


def test_many_files_are_counted() -> None:
    found = changes(source({}), source({f"{n:03}": "1" for n in range(SHOWN_MAX + 5)}))
    assert (len(found), found[-1]) == (SHOWN_MAX + 1, "and 5 more files")


def test_settings_are_named_with_both_values_but_variables_by_name_only() -> None:
    new = FunctionConfig(
        Runtime.PYTHON3, "index.go", 9.5, 512, 4, {"KEY": "secret"}, ScaleRule(1, 5, keep_alive_s=0)
    )
    found = changes(source({}, ("x",)), source({}, ("y",), new))
    assert found == (
        "dependencies",
        "runtime node24 → python3",
        "handler index.main → index.go",
        "timeout 3 s → 9.5 s",
        "memory 256 MB → 512 MB",
        "concurrency 1 → 4",
        "instances 0 to 1000 → 1 to 5",
        "keep alive 60 s → 0 s",
        "variable KEY",
    )
    assert "secret" not in str(found)


@pytest.mark.parametrize("name", [".index.js.swp", ".index.js.swx", "index.js~", ".#index.js", "#a#", "4913"])
def test_what_editors_put_beside_a_file_is_not_packed(tmp_path: Path, name: str) -> None:
    for each in (name, "index.js", "swp.js", ".eslintrc"):
        (tmp_path / each).write_text("1")
    out = io.BytesIO()
    assert is_skipped(name)
    assert pack(tmp_path, out) == 3
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert tar.getnames() == [".eslintrc", "index.js", "swp.js"]
