"""Asking Envoy itself about a configuration, without serving it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from cloudlet.model.errors import EdgeUnavailable

from .bootstrap import Candidate, bootstrap
from .command import binary_path
from .files import to_json
from .options import EdgeOptions

VALIDATE_LIMIT_S = 30.0
_SHOWN_CHARS = 1000


async def validate(options: EdgeOptions, candidate: Candidate) -> None:
    """Return if Envoy would take this content of the files; raise EdgeUnavailable with its reason.

    Takes about 0.1 s, and 1.4 s with 5,000 clusters. Publishing does not wait for it (Envoy refuses a bad
    file and keeps the old one anyway): it is for tests, ``doctor``, and to learn *why* a file was refused.
    """
    with tempfile.TemporaryDirectory(prefix="cloudlet-edge-") as directory:
        path = Path(directory) / "bootstrap.json"
        await asyncio.to_thread(path.write_bytes, to_json(bootstrap(options, candidate)))
        process = await asyncio.create_subprocess_exec(
            str(binary_path()),
            "--mode",
            "validate",
            "--log-level",
            "error",
            "--config-path",
            str(path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(VALIDATE_LIMIT_S):
                _, output = await process.communicate()
        except TimeoutError as exc:
            raise EdgeUnavailable(
                f"checking the edge's configuration took over {VALIDATE_LIMIT_S:g} s"
            ) from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise EdgeUnavailable(f"the edge would refuse this configuration: {_reason(output.decode())}")


def _reason(output: str) -> str:
    """The end of what Envoy printed: before it stands the whole configuration."""
    text = " ".join(output.split())
    return text[-_SHOWN_CHARS:]
