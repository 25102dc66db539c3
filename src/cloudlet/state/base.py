"""The seam of control records.

One process (api) writes, through one writer thread; others open the same store read-only and are told
"changed, sequence n". Reads are small and synchronous; writes are awaited and durable when they return.
A write that cannot be made durable raises StoreUnavailable and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cloudlet.model.app import Credential, Environment
from cloudlet.model.function import Alias, FunctionConfig, Version, VersionKey
from cloudlet.model.identity import User


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of the token issuer. The newest that is not retired signs; all of them verify."""

    kid: str
    private_pem: str
    created_at: float
    retired_at: float | None = None


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token, known by its SHA-256 only. Tokens of one sign-in share a family (= session id)."""

    token_hash: str
    environment: str
    uid: str
    session_id: str
    expires_at: float
    used_at: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the edge and the scheduler need, of one sequence number."""

    sequence: int
    environments: tuple[Environment, ...]
    versions: tuple[Version, ...]
    """Every version that an alias points to."""
    aliases: tuple[Alias, ...]


class EnvironmentRecords(Protocol):
    """Environments, their aliases and credentials. A ``default`` environment exists from the first start."""

    def environments(self) -> list[Environment]: ...

    def resolve_environment(self, name_or_alias: str) -> Environment:
        """Raise EnvironmentNotFound."""
        ...

    async def create_environment(self, name: str) -> Environment:
        """Raise AlreadyExists (also when the name is an alias) or InvalidName."""
        ...

    async def delete_environment(self, name: str) -> None:
        """Delete it with its functions, users and credentials. Raise EnvironmentNotFound, or Conflict for
        ``default``."""
        ...

    async def set_environment_alias(self, alias: str, environment: str) -> None:
        """Point `alias` to `environment`. Raise AlreadyExists when an environment has that name."""
        ...

    async def credential(self, environment: str) -> Credential:
        """The environment's key pair, made when it is first asked for. Raise EnvironmentNotFound."""
        ...

    def find_credential(self, secret_id: str) -> Credential | None: ...


class FunctionRecords(Protocol):
    """Functions, versions and aliases."""

    def functions(self, environment: str) -> list[tuple[Version, Alias]]:
        """The functions of an environment by name, with the version that ``$LATEST`` points to."""
        ...

    def find_function(self, environment: str, function: str) -> Version | None:
        """The version that ``$LATEST`` of the function points to."""
        ...

    def count_functions(self) -> int:
        """Functions of all environments."""
        ...

    def versions(self, environment: str, function: str) -> list[Version]:
        """Newest first; empty when the function does not exist."""
        ...

    def find_version(self, key: VersionKey) -> Version | None: ...

    async def add_version(
        self, key: VersionKey, config: FunctionConfig, code_dir: str, created_at: float
    ) -> Version:
        """Record a version and give it its number. Adding the same key again returns what is there."""
        ...

    async def point_alias(self, key: VersionKey, alias: str, now: float) -> None:
        """Let `alias` of the function name this version. Raise VersionNotFound."""
        ...

    async def delete_function(self, environment: str, function: str) -> list[Version]:
        """Delete aliases and versions; return what was there. Raise FunctionNotFound."""
        ...

    def snapshot(self) -> Snapshot: ...


class UserRecords(Protocol):
    """Users and their refresh tokens."""

    def find_user(self, environment: str, uid: str) -> User | None: ...

    async def user_for_openid(
        self, environment: str, openid: str, appid: str, unionid: str, login_type: str, now: float
    ) -> User:
        """The user with this openid in this environment, made at the first sign-in (uid given then)."""
        ...

    async def create_user(self, user: User) -> User:
        """Raise AlreadyExists."""
        ...

    async def add_refresh_token(self, token: RefreshToken) -> None: ...

    async def use_refresh_token(self, token_hash: str, now: float) -> RefreshToken | None:
        """Mark the token used and return it as it was *before* (``used_at`` set = reuse); None if unknown."""
        ...

    async def revoke_session(self, environment: str, session_id: str, until: float) -> None:
        """Delete every refresh token of the session, and remember it as revoked until its last access token
        has expired."""
        ...

    def revoked_sessions(self, now: float) -> dict[str, float]:
        """Sessions whose access tokens must be refused, with the moment until which to refuse them."""
        ...


class KeyRecords(Protocol):
    """Keys of the token issuer."""

    def signing_keys(self) -> list[SigningKey]:
        """Newest first."""
        ...

    async def add_signing_key(self, key: SigningKey) -> None:
        """Record a key. For a known `kid` only `retired_at` is taken over."""
        ...

    async def delete_signing_key(self, kid: str) -> None:
        """Forget a key that no living token was signed with. Unknown ids are fine."""
        ...


class ControlRecords(EnvironmentRecords, FunctionRecords, UserRecords, KeyRecords, Protocol):
    """The whole store. Implementations: ``memory.MemoryRecords``, ``sqlite.SqliteRecords``."""

    def sequence(self) -> int:
        """Grows by one with every committed change."""
        ...

    def close(self) -> None:
        """Finish queued writes and release the file."""
        ...
