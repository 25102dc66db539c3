"""What every tracked file must hold to."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Written in pieces, so that this file does not find itself.
MACHINE = re.compile(r"(?<![\w.~$}>-])/(?:wor" + r"k|far" + r"m)/[\w.]")
REGISTRIES = re.compile(
    "|".join(["registry" + r"\.npm", "py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"mirror"])
)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|!\[[^\]\n]*\]\(([^)\s]+)\)")


@functools.cache
def files() -> tuple[Path, ...]:
    """Files that are tracked or would be."""
    listed = subprocess.run(
        # The checkout may belong to another user than the one who runs this.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = {name for name in listed.stdout.decode().split("\0") if name}
    return tuple(path for name in sorted(names) if (path := ROOT / name).is_file())


def offending(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in files():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if pattern.search(line)]
    return found


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere; addresses of other sites are not looked at."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = []
    for groups in LINK.findall(text):
        link = groups[0] or groups[1]
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            found.append(f"{page.relative_to(ROOT)}: {link}")
    return found


def test_links_lead_somewhere() -> None:
    assert [link for page in files() if page.suffix == ".md" for link in broken(page)] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert offending(MACHINE) == []


def test_no_file_names_a_package_registry() -> None:
    assert offending(REGISTRIES) == []


def test_the_patterns_find_what_they_look_for() -> None:
    assert MACHINE.search("cd /wor" + "k/main") and not MACHINE.search("a/wor" + "k/main")
    assert REGISTRIES.search("https://registry" + ".npmjs.org/x")


def test_no_file_is_large() -> None:
    assert [str(path) for path in files() if path.stat().st_size > 500_000] == []
