"""Dependency layers: what an installer made for one set of wishes, kept and shared.

``<directory>/<key>/tree`` is put into versions by hard links, ``receipt.json`` beside it says how it came
about. A layer appears by renaming, so what is there is whole; leftovers of a killed process start with a dot
and are removed at the next start.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from .limits import LAYERS_MAX
from .threads import in_thread
from .tree import check_size, link_tree, make_read_only, remove_tree, sync_tree


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What a function's dependencies need."""

    key: str
    """Digest over everything that decides the result."""
    source: Path
    """The function's folder."""
    inputs: tuple[str, ...]
    """Files of `source` that the installer reads; empty: all of them, because dependencies are local."""
    install: Callable[[Path], Awaitable[Installed]]
    """Install in the given folder, which holds the inputs. Raise BuildFailed."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installer left in its folder."""

    log: str
    notes: tuple[str, ...] = ()
    """What the person should know."""
    hints: tuple[str, ...] = ()
    """What may explain it when the function fails to load."""
    leftovers: tuple[str, ...] = ()
    """Paths that are no part of the layer (copies of the inputs, the installer's own files)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is there."""

    key: str
    tree: Path
    notes: tuple[str, ...]
    hints: tuple[str, ...]


class Layers:
    """The cache of layers. One process uses a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, plan: LayerPlan) -> Layer:
        """The layer of `plan`, installed when it is not there; equal plans wait for one another.

        Raise BuildFailed.
        """
        lock = self._locks.get(plan.key)
        if lock is None:
            lock = self._locks[plan.key] = asyncio.Lock()
        async with lock:
            home = self._directory / plan.key
            if (home / "receipt.json").is_file():
                return await in_thread(_used, home)
            return await self._make(plan, home)

    def clean(self) -> None:
        """Remove leftovers, and the least recently used layers beyond LAYERS_MAX (versions keep theirs)."""
        if not self._directory.is_dir():
            return
        whole: list[tuple[float, Path]] = []
        for home in self._directory.iterdir():
            receipt = home / "receipt.json"
            if home.name.startswith(".") or not receipt.is_file():
                remove_tree(home)
            else:
                whole.append((receipt.stat().st_mtime, home))
        for _, home in sorted(whole)[: max(0, len(whole) - LAYERS_MAX)]:
            remove_tree(home)

    async def _make(self, plan: LayerPlan, home: Path) -> Layer:
        work = self._directory / f".{secrets.token_hex(8)}"
        tree = work / "tree"
        try:
            await in_thread(_copy_inputs, plan, tree)
            installed = await plan.install(tree)
            await in_thread(_finish, work, tree, installed)
            work.rename(home)
        finally:
            await in_thread(remove_tree, work)
        return Layer(plan.key, home / "tree", installed.notes, installed.hints)


def place(layer: Layer, directory: Path) -> None:
    """Put the layer's files beside the function's own, which win."""
    link_tree(layer.tree, directory)


def _used(home: Path) -> Layer:
    receipt = home / "receipt.json"
    os.utime(receipt)
    content = json.loads(receipt.read_text("utf-8"))
    return Layer(home.name, home / "tree", tuple(content["notes"]), tuple(content["hints"]))


def _copy_inputs(plan: LayerPlan, tree: Path) -> None:
    tree.parent.mkdir(parents=True)
    if not plan.inputs:
        shutil.copytree(plan.source, tree, symlinks=True)
        return
    tree.mkdir()
    for name in plan.inputs:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.source / name, tree / name)


def _finish(work: Path, tree: Path, installed: Installed) -> None:
    for name in installed.leftovers:
        remove_tree(tree / name)
    check_size(tree, "the function with its dependencies")
    make_read_only(tree)
    receipt = {"notes": installed.notes, "hints": installed.hints, "log": installed.log}
    (work / "receipt.json").write_text(json.dumps(receipt, ensure_ascii=False), "utf-8")
    sync_tree(work)
