"""Control records in one SQLite file."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from cloudlet.model.app import Credential, Environment
from cloudlet.model.clock import Clock, SystemClock
from cloudlet.model.errors import (
    AlreadyExists,
    EnvironmentNotFound,
    FunctionNotFound,
    StoreUnavailable,
    VersionNotFound,
)
from cloudlet.model.function import Alias, FunctionConfig, Version, VersionKey
from cloudlet.model.identity import User
from cloudlet.model.ids import DEFAULT_ENVIRONMENT, LATEST, check_environment_name, check_function_name
from cloudlet.state.base import RefreshToken, SigningKey, Snapshot
from cloudlet.state.common import completed, new_credential, refuse_default
from cloudlet.state.database import Database, Row, Transaction


class SqliteRecords:
    """The records of `path`; see `state.base.ControlRecords` for the contract of every method.

    Opening makes the file (mode 0600), migrates it and makes the default environment. It raises
    StoreUnavailable when the file cannot be used and InvalidRequest when a newer cloudlet made it.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._decoded: dict[Row, Version] = {}
        """Versions of the last snapshot."""
        self._database = Database(path)
        if not self._database.rows("environment", DEFAULT_ENVIRONMENT):
            self._database.prepare(
                lambda t: t.run("add_environment_if_absent", DEFAULT_ENVIRONMENT, self._clock.now())
            )

    @classmethod
    def open_readonly(cls, path: Path, clock: Clock | None = None) -> SqliteRecords:
        """The same records for a process that only reads: writes raise StoreUnavailable. Raise
        StoreUnavailable while the writer has not made the file ready."""
        records = cls.__new__(cls)
        records._clock = clock or SystemClock()
        records._decoded = {}
        if not path.exists():
            raise StoreUnavailable(f"{path} is not there yet: its writer has not started")
        records._database = Database(path, readonly=True)
        return records

    def sequence(self) -> int:
        return int(self._database.rows("sequence")[0][0])

    def close(self) -> None:
        self._database.close()

    # Environments

    def environments(self) -> list[Environment]:
        with self._database.one_moment():
            aliases = self._database.rows("environment_aliases")
            rows = self._database.rows("environments")
        return [
            Environment(name, created, tuple(a for a, of in aliases if of == name)) for name, created in rows
        ]

    def resolve_environment(self, name_or_alias: str) -> Environment:
        with self._database.one_moment():
            rows = self._database.rows("environment", name_or_alias)
            rows = rows or self._database.rows("environment_of_alias", name_or_alias)
            if not rows:
                raise EnvironmentNotFound(f"environment {name_or_alias[:80]!r} does not exist")
            name, created_at = rows[0]
            return Environment(name, created_at, self._aliases_of(name))

    async def create_environment(self, name: str) -> Environment:
        check_environment_name(name)
        now = self._clock.now()

        def job(t: Transaction) -> None:
            if t.rows("environment", name) or t.rows("environment_of_alias", name):
                raise AlreadyExists(f"environment {name!r} exists already")
            t.run("add_environment", name, now)

        await self._database.write(job)
        return Environment(name, now)

    async def delete_environment(self, name: str) -> None:
        refuse_default(name)

        def job(t: Transaction) -> None:
            _require_environment(t, name)
            t.run("delete_environment", name)

        await self._database.write(job)

    async def set_environment_alias(self, alias: str, environment: str) -> None:
        check_environment_name(alias)

        def job(t: Transaction) -> None:
            if t.rows("environment", alias):
                raise AlreadyExists(f"{alias!r} is the name of an environment")
            _require_environment(t, environment)
            t.run("set_environment_alias", alias, environment)

        await self._database.write(job)

    async def credential(self, environment: str) -> Credential:
        found = self._database.rows("credential", environment)
        if found:
            return Credential(*found[0])
        now = self._clock.now()

        def job(t: Transaction) -> Credential:
            _require_environment(t, environment)
            there = t.rows("credential", environment)
            if there:
                return Credential(*there[0])
            made = new_credential(environment, now)
            t.run("add_credential", made.environment, made.secret_id, made.secret_key, made.created_at)
            return made

        return await self._database.write(job)

    def find_credential(self, secret_id: str) -> Credential | None:
        rows = self._database.rows("credential_by_id", secret_id)
        return Credential(*rows[0]) if rows else None

    def _aliases_of(self, environment: str) -> tuple[str, ...]:
        return tuple(alias for (alias,) in self._database.rows("aliases_of_environment", environment))

    # Functions

    def functions(self, environment: str) -> list[tuple[Version, Alias]]:
        return [
            (_version(row[:7]), Alias(row[0], row[1], row[7], row[2], row[8]))
            for row in self._database.rows("functions", environment, LATEST)
        ]

    def versions(self, environment: str, function: str) -> list[Version]:
        return [_version(row) for row in self._database.rows("versions", environment, function)]

    def find_version(self, key: VersionKey) -> Version | None:
        rows = self._database.rows("version", key.environment, key.function, key.digest)
        return _version(rows[0]) if rows else None

    async def add_version(
        self, key: VersionKey, config: FunctionConfig, code_dir: str, created_at: float
    ) -> Version:
        check_function_name(key.function)
        text = msgspec.json.encode(config).decode()

        def job(t: Transaction) -> Version:
            _require_environment(t, key.environment)
            there = t.rows("version", key.environment, key.function, key.digest)
            if there:
                return _version(there[0])
            number = t.rows("next_version_number", key.environment, key.function)[0][0]
            t.run(
                "add_version", key.environment, key.function, key.digest, number, text, code_dir, created_at
            )
            return Version(key.environment, key.function, key.digest, number, config, code_dir, created_at)

        return await self._database.write(job)

    async def point_alias(self, key: VersionKey, alias: str, now: float) -> None:
        def job(t: Transaction) -> None:
            if not t.rows("version", key.environment, key.function, key.digest):
                raise VersionNotFound(f"version {key} does not exist")
            t.run("point_alias", key.environment, key.function, alias, key.digest, now)

        await self._database.write(job)

    async def delete_function(self, environment: str, function: str) -> list[Version]:
        def job(t: Transaction) -> list[Version]:
            there = [_version(row) for row in t.rows("versions", environment, function)]
            if not there:
                raise FunctionNotFound(f"function {function[:80]!r} does not exist")
            t.run("delete_function", environment, function)
            return there

        return await self._database.write(job)

    def find_function(self, environment: str, function: str) -> Version | None:
        rows = self._database.rows("function", environment, function, LATEST)
        return _version(rows[0]) if rows else None

    def count_functions(self) -> int:
        return int(self._database.rows("count_functions", LATEST)[0][0])

    def snapshot(self) -> Snapshot:
        with self._database.one_moment():
            rows = self._database.rows("aliased_versions")
            # A version never changes, and decoding ten thousand of them again takes half the time of this.
            self._decoded = {row: self._decoded.get(row) or _version(row) for row in rows}
            return Snapshot(
                sequence=self.sequence(),
                environments=tuple(self.environments()),
                versions=tuple(self._decoded.values()),
                aliases=tuple(Alias(*row) for row in self._database.rows("aliases")),
            )

    # Users

    def find_user(self, environment: str, uid: str) -> User | None:
        rows = self._database.rows("user", environment, uid)
        return User(*rows[0]) if rows else None

    async def user_for_openid(
        self, environment: str, openid: str, appid: str, unionid: str, login_type: str, now: float
    ) -> User:
        new = User(environment, secrets.token_hex(16), login_type, now, openid, appid, unionid)

        def job(t: Transaction) -> User:
            _require_environment(t, environment)
            rows = t.rows("user_by_openid", environment, openid)
            if not rows:
                _add_user(t, new)
                return new
            there = User(*rows[0])
            full = completed(there, appid, unionid)
            if full != there:
                t.run("complete_user", full.appid, full.unionid, environment, full.uid)
            return full

        return await self._database.write(job)

    async def create_user(self, user: User) -> User:
        def job(t: Transaction) -> User:
            _require_environment(t, user.environment)
            if t.rows("user", user.environment, user.uid) or t.rows(
                "user_by_openid", user.environment, user.openid
            ):
                raise AlreadyExists(f"user {user.uid!r} exists already")
            _add_user(t, user)
            return user

        return await self._database.write(job)

    async def add_refresh_token(self, token: RefreshToken) -> None:
        now = self._clock.now()

        def job(t: Transaction) -> None:
            _require_environment(t, token.environment)
            t.run("purge_refresh_tokens", now)
            t.run(
                "add_refresh_token",
                token.token_hash,
                token.environment,
                token.uid,
                token.session_id,
                token.expires_at,
                token.used_at,
            )

        await self._database.write(job)

    async def use_refresh_token(self, token_hash: str, now: float) -> RefreshToken | None:
        def job(t: Transaction) -> RefreshToken | None:
            rows = t.rows("refresh_token", token_hash)
            if not rows:
                return None
            t.run("mark_refresh_token", now, token_hash)
            return RefreshToken(*rows[0])

        return await self._database.write(job)

    async def revoke_session(self, environment: str, session_id: str, until: float) -> None:
        now = self._clock.now()

        def job(t: Transaction) -> None:
            t.run("delete_session", environment, session_id)
            t.run("purge_revoked_sessions", now)
            t.run("revoke_session", session_id, until)

        await self._database.write(job)

    def revoked_sessions(self, now: float) -> dict[str, float]:
        return dict(self._database.rows("revoked_sessions", now))

    # Keys

    def signing_keys(self) -> list[SigningKey]:
        return [SigningKey(*row) for row in self._database.rows("signing_keys")]

    async def add_signing_key(self, key: SigningKey) -> None:
        await self._database.write(
            lambda t: t.run("put_signing_key", key.kid, key.private_pem, key.created_at, key.retired_at)
        )

    async def delete_signing_key(self, kid: str) -> None:
        await self._database.write(lambda t: t.run("delete_signing_key", kid))


def _require_environment(t: Transaction, name: str) -> None:
    if not t.rows("environment", name):
        raise EnvironmentNotFound(f"environment {name[:80]!r} does not exist")


def _add_user(t: Transaction, user: User) -> None:
    t.run(
        "add_user",
        user.environment,
        user.uid,
        user.login_type,
        user.created_at,
        user.openid,
        user.appid,
        user.unionid,
    )


def _version(row: Row) -> Version:
    environment, function, digest, number, config, code_dir, created_at = row
    return Version(
        environment,
        function,
        digest,
        number,
        msgspec.json.decode(config, type=FunctionConfig),
        code_dir,
        created_at,
    )
