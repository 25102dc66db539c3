"""Control records in memory: the twin of `SqliteRecords` for tests. Nothing survives the object."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from cloudlet.model.app import Credential, Environment
from cloudlet.model.clock import Clock, SystemClock
from cloudlet.model.errors import (
    AlreadyExists,
    EnvironmentNotFound,
    FunctionNotFound,
    ShuttingDown,
    VersionNotFound,
)
from cloudlet.model.function import Alias, FunctionConfig, Version, VersionKey
from cloudlet.model.identity import User
from cloudlet.model.ids import DEFAULT_ENVIRONMENT, LATEST, check_environment_name, check_function_name
from cloudlet.state.base import RefreshToken, SigningKey, Snapshot
from cloudlet.state.common import completed, new_credential, refuse_default


@dataclass(slots=True)
class _Environment:
    created_at: float
    aliases: set[str] = field(default_factory=set)
    credential: Credential | None = None
    versions: dict[str, dict[str, Version]] = field(default_factory=dict)
    function_aliases: dict[tuple[str, str], Alias] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)


class MemoryRecords:
    """See `state.base.ControlRecords` for the contract of every method."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._environments = {DEFAULT_ENVIRONMENT: _Environment(self._clock.now())}
        self._revoked: dict[str, float] = {}
        self._keys: dict[str, SigningKey] = {}
        self._sequence = 1
        self._closed = False

    def sequence(self) -> int:
        return self._sequence

    def close(self) -> None:
        self._closed = True

    # Environments

    def environments(self) -> list[Environment]:
        return [self._shown(name) for name in sorted(self._environments)]

    def resolve_environment(self, name_or_alias: str) -> Environment:
        if name_or_alias in self._environments:
            return self._shown(name_or_alias)
        for name, held in self._environments.items():
            if name_or_alias in held.aliases:
                return self._shown(name)
        raise EnvironmentNotFound(f"environment {name_or_alias[:80]!r} does not exist")

    async def create_environment(self, name: str) -> Environment:
        check_environment_name(name)
        self._check_open()
        if name in self._environments or any(name in held.aliases for held in self._environments.values()):
            raise AlreadyExists(f"environment {name!r} exists already")
        self._environments[name] = _Environment(self._clock.now())
        self._changed()
        return self._shown(name)

    async def delete_environment(self, name: str) -> None:
        refuse_default(name)
        self._held(name)
        del self._environments[name]
        self._changed()

    async def set_environment_alias(self, alias: str, environment: str) -> None:
        check_environment_name(alias)
        if alias in self._environments:
            raise AlreadyExists(f"{alias!r} is the name of an environment")
        target = self._held(environment)
        for held in self._environments.values():
            held.aliases.discard(alias)
        target.aliases.add(alias)
        self._changed()

    async def credential(self, environment: str) -> Credential:
        held = self._held(environment)
        if held.credential is None:
            held.credential = new_credential(environment, self._clock.now())
            self._changed()
        return held.credential

    def find_credential(self, secret_id: str) -> Credential | None:
        for held in self._environments.values():
            if held.credential is not None and held.credential.secret_id == secret_id:
                return held.credential
        return None

    # Functions

    def functions(self, environment: str) -> list[tuple[Version, Alias]]:
        held = self._environments.get(environment)
        if held is None:
            return []
        return [
            (held.versions[function][alias.digest], alias)
            for (function, name), alias in sorted(held.function_aliases.items())
            if name == LATEST
        ]

    def find_function(self, environment: str, function: str) -> Version | None:
        held = self._environments.get(environment)
        alias = held.function_aliases.get((function, LATEST)) if held else None
        return held.versions[function][alias.digest] if held and alias else None

    def count_functions(self) -> int:
        return sum(
            name == LATEST for held in self._environments.values() for _, name in held.function_aliases
        )

    def versions(self, environment: str, function: str) -> list[Version]:
        held = self._environments.get(environment)
        found = held.versions.get(function, {}) if held else {}
        return sorted(found.values(), key=lambda version: -version.number)

    def find_version(self, key: VersionKey) -> Version | None:
        held = self._environments.get(key.environment)
        return held.versions.get(key.function, {}).get(key.digest) if held else None

    async def add_version(
        self, key: VersionKey, config: FunctionConfig, code_dir: str, created_at: float
    ) -> Version:
        check_function_name(key.function)
        versions = self._held(key.environment).versions.setdefault(key.function, {})
        if key.digest not in versions:
            number = 1 + max((version.number for version in versions.values()), default=0)
            versions[key.digest] = Version(
                key.environment, key.function, key.digest, number, config, code_dir, created_at
            )
            self._changed()
        return versions[key.digest]

    async def point_alias(self, key: VersionKey, alias: str, now: float) -> None:
        self._check_open()
        if self.find_version(key) is None:
            raise VersionNotFound(f"version {key} does not exist")
        held = self._environments[key.environment]
        held.function_aliases[key.function, alias] = Alias(
            key.environment, key.function, alias, key.digest, now
        )
        self._changed()

    async def delete_function(self, environment: str, function: str) -> list[Version]:
        self._check_open()
        there = self.versions(environment, function)
        if not there:
            raise FunctionNotFound(f"function {function[:80]!r} does not exist")
        held = self._environments[environment]
        del held.versions[function]
        for name in [name for name in held.function_aliases if name[0] == function]:
            del held.function_aliases[name]
        self._changed()
        return there

    def snapshot(self) -> Snapshot:
        aliases = [
            alias
            for _, held in sorted(self._environments.items())
            for _, alias in sorted(held.function_aliases.items())
        ]
        keys = {VersionKey(alias.environment, alias.function, alias.digest) for alias in aliases}
        versions = [version for key in keys if (version := self.find_version(key)) is not None]
        versions.sort(key=lambda version: (version.environment, version.function, version.number))
        return Snapshot(self._sequence, tuple(self.environments()), tuple(versions), tuple(aliases))

    # Users

    def find_user(self, environment: str, uid: str) -> User | None:
        held = self._environments.get(environment)
        return held.users.get(uid) if held else None

    async def user_for_openid(
        self, environment: str, openid: str, appid: str, unionid: str, login_type: str, now: float
    ) -> User:
        users = self._held(environment).users
        there = next((user for user in users.values() if openid and user.openid == openid), None)
        user = (
            completed(there, appid, unionid)
            if there
            else User(environment, secrets.token_hex(16), login_type, now, openid, appid, unionid)
        )
        if user != there:
            users[user.uid] = user
            self._changed()
        return user

    async def create_user(self, user: User) -> User:
        users = self._held(user.environment).users
        if user.uid in users or any(user.openid and user.openid == there.openid for there in users.values()):
            raise AlreadyExists(f"user {user.uid!r} exists already")
        users[user.uid] = user
        self._changed()
        return user

    async def add_refresh_token(self, token: RefreshToken) -> None:
        tokens = self._held(token.environment).refresh_tokens
        now = self._clock.now()
        for old in [old.token_hash for old in tokens.values() if old.expires_at <= now]:
            del tokens[old]
        tokens[token.token_hash] = token
        self._changed()

    async def use_refresh_token(self, token_hash: str, now: float) -> RefreshToken | None:
        self._check_open()
        for held in self._environments.values():
            token = held.refresh_tokens.get(token_hash)
            if token is not None:
                if token.used_at is None:
                    held.refresh_tokens[token_hash] = replace(token, used_at=now)
                    self._changed()
                return token
        return None

    async def revoke_session(self, environment: str, session_id: str, until: float) -> None:
        self._check_open()
        held = self._environments.get(environment)
        if held is not None:
            held.refresh_tokens = {
                name: token for name, token in held.refresh_tokens.items() if token.session_id != session_id
            }
        self._revoked = self.revoked_sessions(self._clock.now())
        self._revoked[session_id] = max(until, self._revoked.get(session_id, until))
        self._changed()

    def revoked_sessions(self, now: float) -> dict[str, float]:
        return {session: until for session, until in sorted(self._revoked.items()) if until > now}

    # Keys

    def signing_keys(self) -> list[SigningKey]:
        return sorted(self._keys.values(), key=lambda key: (-key.created_at, key.kid))

    async def add_signing_key(self, key: SigningKey) -> None:
        self._check_open()
        there = self._keys.get(key.kid)
        self._keys[key.kid] = replace(there, retired_at=key.retired_at) if there else key
        self._changed()

    async def delete_signing_key(self, kid: str) -> None:
        self._check_open()
        if self._keys.pop(kid, None) is not None:
            self._changed()

    def _held(self, name: str) -> _Environment:
        self._check_open()
        if name not in self._environments:
            raise EnvironmentNotFound(f"environment {name[:80]!r} does not exist")
        return self._environments[name]

    def _shown(self, name: str) -> Environment:
        held = self._environments[name]
        return Environment(name, held.created_at, tuple(sorted(held.aliases)))

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown

    def _changed(self) -> None:
        self._sequence += 1
