"""From an upload to the immutable code of a version.

``<code>/<environment>/<function>/<digest>/`` appears by renaming a finished folder, so a version that is
there is whole, also after a kill or a power cut. ``<digest>.json`` beside it is the receipt: what was asked,
what was installed. Code of versions that the records do not know goes at a start, an hour after it was last
used.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cloudlet.model.errors import InvalidProject, StoreUnavailable
from cloudlet.model.function import FunctionConfig, Version, VersionKey
from cloudlet.settings import Paths

from .archive import unpack
from .compare import Source
from .layers import LayerPlan, Layers, place
from .npm import Npm
from .pip import Pip
from .process import CommandRunner, run_command
from .threads import in_thread
from .toolchain import Toolchain
from .tree import check_size, file_digests, make_read_only, remove_tree, sync_tree, tree_digest
from .wire import FunctionUpload

DIGEST_CHARS = 16
STAGING = ".staging"
"""Not an environment: their names start with a letter or digit."""
ORPHAN_S = 3600.0
"""How long code of a deleted version is kept for instances that may still be reading it."""


@dataclass(frozen=True, slots=True)
class Staged:
    """An upload that is unpacked and understood, and not built yet."""

    directory: Path
    digest: str
    upload: FunctionUpload
    plans: tuple[LayerPlan, ...]
    source: Source


class _Receipt(msgspec.Struct, frozen=True):
    """What is read again of a receipt."""

    files: dict[str, str] | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """Code that is in its place."""

    key: VersionKey
    code_dir: Path
    notes: tuple[str, ...]
    """What the person should know about the dependencies."""
    hints: tuple[str, ...]
    """What may explain it when the function fails to load."""


class Builder:
    """Builds versions below ``Paths.code`` with layers below ``Paths.cache``. One process uses them."""

    def __init__(self, paths: Paths, toolchain: Toolchain, run: CommandRunner = run_command) -> None:
        self._code = paths.code
        self._layers = Layers(paths.cache / "deps")
        self._npm = Npm(toolchain, paths.cache / "npm", run)
        self._pip = Pip(toolchain, paths.cache / "pip", run)

    def clean(self, known: Collection[VersionKey] | None = None) -> None:
        """Remove what killed processes left, and code of versions that are not `known` (None: keep all).

        Once, before the first build.
        """
        remove_tree(self._code / STAGING)
        self._layers.clean()
        for key in self.versions() if known is not None else ():
            code = self._code / key.environment / key.function / key.digest
            # Wall time, because that is what files carry.
            if key not in (known or ()) and code.stat().st_mtime < time.time() - ORPHAN_S:
                _receipt(code).unlink(missing_ok=True)
                remove_tree(code)

    def versions(self) -> list[VersionKey]:
        """Everything that has code here, known to the records or not."""
        return [
            VersionKey(code.parent.parent.name, code.parent.name, code.name)
            for code in self._code.glob("[!.]*/*/*/")
        ]

    async def stage(self, archive: Path, upload: FunctionUpload) -> Staged:
        """Unpack and find the digest; nothing is installed. `discard` or `build` what is returned.

        Raise InvalidProject, BuildFailed, or StoreUnavailable when the disk does not take it.
        """
        directory = self._code / STAGING / secrets.token_hex(8)
        try:
            return await in_thread(self._stage, archive, directory, upload)
        except BaseException:
            await in_thread(remove_tree, directory)
            raise

    async def build(self, key: VersionKey, staged: Staged, built_at: float) -> Built:
        """Install what is missing and put the version in its place; at once when it is there already.

        `staged` is used up. Raise BuildFailed or StoreUnavailable; nothing stays then.
        """
        code_dir = self._code / key.environment / key.function / key.digest
        notes: list[str] = []
        hints: list[str] = []
        try:
            for plan in staged.plans:
                layer = await self._layers.get(plan)
                notes.extend(layer.notes)
                hints.extend(layer.hints)
                if not code_dir.is_dir():
                    await in_thread(place, layer, staged.directory)
            if not code_dir.is_dir():
                await in_thread(_settle, staged.directory, code_dir)
            await in_thread(_write_receipt, code_dir, staged, tuple(notes), built_at)
        except OSError as exc:
            raise StoreUnavailable(f"the code of {key} cannot be stored: {exc.strerror}") from exc
        finally:
            await self.discard(staged)
        return Built(key, code_dir, tuple(notes), tuple(hints))

    def has(self, key: VersionKey) -> bool:
        """Whether the code of a version is in its place."""
        return _receipt(self._code / key.environment / key.function / key.digest).is_file()

    def source(self, version: Version) -> Source:
        """What a version was made of, as far as its receipt says."""
        code_dir = self._code / version.environment / version.function / version.digest
        try:
            receipt = msgspec.json.decode(_receipt(code_dir).read_bytes(), type=_Receipt)
        except (OSError, msgspec.DecodeError):
            receipt = _Receipt()
        return Source(receipt.files, receipt.layers, version.config)

    async def discard(self, staged: Staged) -> None:
        await in_thread(remove_tree, staged.directory)

    async def forget(self, key: VersionKey) -> None:
        """The version was deleted: its code goes at a later start, when nothing reads it any more."""
        code_dir = self._code / key.environment / key.function / key.digest
        if code_dir.is_dir():
            os.utime(code_dir)

    def _stage(self, archive: Path, directory: Path, upload: FunctionUpload) -> Staged:
        try:
            directory.mkdir(parents=True)
            unpack(archive, directory)
            if not any(directory.iterdir()):
                raise InvalidProject(f"function {upload.name}: the upload is empty")
            plans = self._plans(directory, upload)
            layers = tuple(plan.key for plan in plans)
            digest = version_digest(tree_digest(directory), layers, upload)
            source = Source(file_digests(directory), layers, upload.config)
        except OSError as exc:
            raise StoreUnavailable(f"the upload of {upload.name} cannot be stored: {exc.strerror}") from exc
        return Staged(directory, digest, upload, plans, source)

    def _plans(self, directory: Path, upload: FunctionUpload) -> tuple[LayerPlan, ...]:
        if not upload.install:
            return ()
        runtime = upload.config.runtime
        installer = self._pip if runtime.language == "python" else self._npm
        plan = installer.plan(directory, runtime, upload.scripts)
        return (plan,) if plan else ()


def version_digest(tree: str, layers: tuple[str, ...], upload: FunctionUpload) -> str:
    """The name of a version: equal code, dependencies and settings give the same."""
    parts = {
        "tree": tree,
        "layers": layers,
        "config": _plain_config(upload.config),
        "triggers": msgspec.to_builtins(upload.triggers),
        "permissions": upload.permissions,
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


def _plain_config(config: FunctionConfig) -> object:
    return msgspec.to_builtins(config)


def _settle(staged: Path, code_dir: Path) -> None:
    """Finished, read-only and durable before it gets its name."""
    check_size(staged, "the function with its dependencies")
    make_read_only(staged)
    sync_tree(staged)
    code_dir.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(code_dir)


def _receipt(code_dir: Path) -> Path:
    return code_dir.with_name(f"{code_dir.name}.json")


def _write_receipt(code_dir: Path, staged: Staged, notes: tuple[str, ...], built_at: float) -> None:
    receipt = _receipt(code_dir)
    content = {
        "digest": staged.digest,
        "built_at": built_at,
        "files": staged.source.files,
        "layers": staged.source.layers,
        "triggers": msgspec.to_builtins(staged.upload.triggers),
        "permissions": staged.upload.permissions,
        "notes": (*staged.upload.notes, *notes),
    }
    partial = receipt.with_name(f".{receipt.name}")
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
    partial.rename(receipt)
