"""Backups of an environment's documents, and its move to another engine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from starlette.requests import Request

from cloudlet.api.http import Answer, body_of, environment_of
from cloudlet.api.ports import AdminServices
from cloudlet.api.told import Tell, told
from cloudlet.api.transfers import database_of
from cloudlet.docdb.backup.manifest import Manifest
from cloudlet.docdb.backup.seal import Secret
from cloudlet.docdb.backup.service import Restore
from cloudlet.docdb.migrate.run import Progress
from cloudlet.model.errors import Conflict, InvalidParameter

_BODY_BYTES_MAX = 1024 * 1024


class _Make(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    passphrase: str | None = None


class _Restore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    backup: str | None = None
    at: float | None = None
    collections: dict[str, str] = {}
    into: str | None = None
    replace: bool = False
    passphrase: str | None = None


class _Rehearse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    backup: str | None = None
    passphrase: str | None = None


class _Migrate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    to: str


async def list_backups(services: AdminServices, request: Request) -> Answer:
    backups = database_of(services).backups
    manifests, moments = await backups.listed(environment_of(services, request))
    return 200, {
        "backups": [_shown(each) for each in manifests],
        "moments": [
            {"from": each.from_ms / 1000, "to": each.to_ms / 1000, "backup": each.backup} for each in moments
        ],
    }


async def make_backup(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    secret = _secret((await body_of(request, _Make, _BODY_BYTES_MAX)).passphrase)
    backups = database_of(services).backups

    async def work(_tell: Tell) -> dict[str, Any]:
        return _shown(await backups.make(environment, secret))

    return told(work)


async def restore(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    asked = await body_of(request, _Restore, _BODY_BYTES_MAX)
    into = None if asked.into is None else services.records.resolve_environment(asked.into).name
    at_ms = None if asked.at is None else int(asked.at * 1000)
    wanted = Restore(asked.backup, at_ms, asked.collections, into, asked.replace)
    secret, backups = _secret(asked.passphrase), database_of(services).backups

    async def work(tell: Tell) -> dict[str, Any]:
        done = asdict(await backups.restore(environment, wanted, tell, secret))
        return {**done, "at": done.pop("at_ms") / 1000}

    return told(work)


async def rehearse(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    asked = await body_of(request, _Rehearse, _BODY_BYTES_MAX)
    secret, backups = _secret(asked.passphrase), database_of(services).backups

    async def work(tell: Tell) -> dict[str, Any]:
        done = asdict(await backups.rehearse(environment, asked.backup, tell, secret))
        return {**done, "at": done.pop("at_ms") / 1000}

    return told(work)


async def migrate(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    to = (await body_of(request, _Migrate, _BODY_BYTES_MAX)).to
    if not to:
        raise InvalidParameter("name where to: a postgresql:// address, or sqlite")
    stores = database_of(services).stores

    async def work(tell: Tell) -> dict[str, Any]:
        def tell_progress(progress: Progress) -> None:
            tell(asdict(progress))

        return asdict(await stores.migrate(environment, to, tell_progress))

    return told(work)


async def abandon_migration(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    try:
        await database_of(services).stores.abandon_migration(environment)
    except Conflict as exc:
        raise Conflict(f"there is nothing to abandon: {exc.message}") from exc
    return 200, {"environment": environment}


def _secret(passphrase: str | None) -> Secret | None:
    return None if passphrase is None else Secret(passphrase.encode())


def _shown(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "environment": manifest.environment,
        "at": manifest.at_ms / 1000,
        "seq": manifest.seq,
        "bytes": manifest.size_bytes,
        "encrypted": manifest.encrypted,
        "collections": {name: each.documents for name, each in sorted(manifest.collections.items())},
    }
