"""What api does with whole environments of documents: imports, exports, backups, and forgetting them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from cloudlet.api.ports import Database
from cloudlet.docdb.backup.seal import SecretFile
from cloudlet.docdb.backup.service import Backups, Plan
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.transfer.export import Exporter
from cloudlet.docdb.transfer.imports import Imports
from cloudlet.model.clock import Clock
from cloudlet.settings import Paths, Settings


def make_database(settings: Settings, paths: Paths, stores: Stores, clock: Clock) -> Database:
    """Wired as the settings say. Removes the copies that a former process left."""
    root = Path(settings.backup_directory).expanduser() if settings.backup_directory else paths.backups
    key_file = settings.backup_key_file
    exporter = Exporter(paths.cache / "exports", clock)
    exporter.clean()
    return Database(
        stores,
        Imports(stores, paths.imports, clock),
        exporter,
        Backups(
            stores,
            root,
            paths.cache / "backups",
            clock,
            Plan(settings.backup_interval_s, settings.backup_keep, settings.backup_log_interval_s),
            SecretFile(Path(key_file).expanduser()) if key_file else lambda: None,
        ),
    )


def dropper(database: Database, documents: DocumentService) -> Callable[[str], Awaitable[None]]:
    """What removes the documents of a deleted environment; its backups stay, under another name."""

    async def drop(environment: str) -> None:
        await database.imports.forget(environment)
        documents.watches.end_environment(environment)
        await database.stores.remove(environment)
        await database.backups.forget(environment)

    return drop
