"""The knobs: one tree, read once, and the only reader of the process environment.

Every setting can be given as ``CLOUDLET_<NAME>``; command-line options win over the environment.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from cloudlet.model.sandbox import Rung

_DOCUMENTS_URL = "CLOUDLET_DOCUMENTS_URL"


class Settings(BaseSettings):
    """All settings of one installation. Durations end in ``_s``, sizes in ``_mb`` or ``_bytes``."""

    model_config = SettingsConfigDict(env_prefix="CLOUDLET_", frozen=True, extra="ignore")

    data: Path = Field(default_factory=lambda: Path.home() / ".cloudlet")
    """Data directory: everything that must survive a restart."""
    host: str = "127.0.0.1"
    """Address the edge listens on."""
    port: int = Field(default=8787, ge=0, le=65535)
    """Port the edge listens on; 0 takes a free one."""
    public_url: str = ""
    """How clients reach the edge, when it is not ``http://HOST:PORT``."""
    rung: Rung = Rung.PROCESS
    """How instances are isolated."""
    cell_user_first: int = Field(default=1_900_000_000, ge=1000, le=4_000_000_000)
    """First of the user ids that instances get, one each, when the platform runs as root."""
    cell_user_count: int = Field(default=65_536, ge=1, le=100_000_000)
    """How many user ids they have."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    envoy_concurrency: int = Field(default=1, ge=1, le=64)
    """Worker threads of the edge."""
    instances_max: int = Field(default=200, ge=1)
    """Instances this node runs at most, all functions together."""
    pool_node: int = Field(default=1, ge=0, le=64)
    """Node.js cells kept waiting."""
    pool_python: int = Field(default=1, ge=0, le=64)
    """Python cells kept waiting."""
    concurrent_executions_max: int = Field(default=1000, ge=1)
    """Running and waiting calls of one function at most."""
    trusted_hops: int = Field(default=0, ge=0, le=10)
    """Proxies in front of the edge whose ``x-forwarded-for`` is believed."""
    anonymous_sign_in: bool = True
    """Whether anybody may get an anonymous session."""
    create_collections: bool = False
    """Whether a collection is made (PRIVATE) when it is used for the first time; upstream refuses."""
    explain_empty: bool = False
    """Whether api's log says why a query found nothing."""
    automatic_indexes: bool = True
    """Whether indexes are made for queries that look at many documents and return few."""
    automatic_indexes_off: tuple[str, ...] = ()
    """Where not: environments, and ``ENVIRONMENT/COLLECTION``; given as a JSON list."""
    access_log: bool = False
    """Whether every call is logged, by the edge and by api."""

    documents_url: SecretStr | None = Field(default=None, exclude=True)
    """PostgreSQL database in which new environments keep their documents; unset: one SQLite file each."""
    backup_directory: str = ""
    """Where backups are kept; empty: ``backups`` in the data directory. Better another disk."""
    backup_interval_s: float = Field(default=0.0, ge=0)
    """How often each environment that changed is backed up as a whole; 0: only when asked."""
    backup_keep: int = Field(default=7, ge=1, le=1000)
    """Scheduled backups that are kept of each environment; the older ones are removed."""
    backup_log_interval_s: float = Field(default=0.0, ge=0)
    """How often the changes since are written beside the backups, to restore any moment; 0: never."""
    backup_key_file: str = ""
    """File with the passphrase or key that backups are encrypted with; empty: they are not."""

    def secrets(self) -> dict[str, str]:
        """What must not be seen on a command line, as variables for the process that needs it."""
        url = self.documents_url
        return {} if url is None else {_DOCUMENTS_URL: url.get_secret_value()}

    @classmethod
    def handed_over(cls, text: str) -> Settings:
        """The settings that a process was started with: JSON, and `secrets` in its environment, from which
        they are removed."""
        given = cls.model_validate_json(text)
        url = os.environ.pop(_DOCUMENTS_URL, "")
        return given.model_copy(update={"documents_url": SecretStr(url)}) if url else given

    @property
    def service_url(self) -> str:
        """The public address of the edge, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are, from the data directory."""

    data: Path

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    @property
    def control_db(self) -> Path:
        return self.data / "control.db"

    @property
    def documents(self) -> Path:
        """One SQLite file per environment: ``<environment>.db``."""
        return self.data / "documents"

    @property
    def imports(self) -> Path:
        """Uploaded files and records of imports that are going on."""
        return self.data / "imports"

    @property
    def backups(self) -> Path:
        """``<environment>/``: backups, unless the settings name another place."""
        return self.data / "backups"

    @property
    def code(self) -> Path:
        """``<environment>/<function>/<digest>/``: immutable code of versions."""
        return self.data / "code"

    @property
    def cache(self) -> Path:
        """Dependencies and package downloads; may be deleted while nothing runs."""
        return self.data / "cache"

    @property
    def logs(self) -> Path:
        """``<environment>/<function>.jsonl`` written by the node."""
        return self.data / "logs"

    @property
    def runtimes(self) -> Path:
        """Node.js versions fetched on demand."""
        return self.data / "runtimes"

    @property
    def run(self) -> Path:
        """Sockets and the edge's files; short, because a socket path has at most 107 bytes.

        It depends on the data directory alone, so that every shell finds it. It is made with mode 0700 and
        checked for its owner.
        """
        mark = hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:10]
        owner = self.data.stat().st_uid if self.data.exists() else os.getuid()
        return Path(f"/tmp/cloudlet-{owner}-{mark}")  # noqa: S108

    @property
    def node_socket(self) -> Path:
        """The node: start, quiesce, stop, report (NodeClient)."""
        return self.run / "node.sock"

    @property
    def platform_socket(self) -> Path:
        """The node hands the platform listeners of its instances to the api process here."""
        return self.run / "platform.sock"

    @property
    def control_socket(self) -> Path:
        """Control: changed, publish, prepare, status."""
        return self.run / "control.sock"

    @property
    def activator_socket(self) -> Path:
        """Calls that no instance can take at once. The node holds the listener; its backlog is the queue."""
        return self.run / "activator.sock"

    @property
    def api_socket(self) -> Path:
        """What the edge sends to the api process. The node holds the listener."""
        return self.run / "api.sock"

    @property
    def admin_socket(self) -> Path:
        """The command line's way in, mode 0600. The node holds the listener."""
        return self.run / "admin.sock"

    @property
    def xds_socket(self) -> Path:
        """Endpoint stream from control to the edge."""
        return self.run / "xds.sock"

    @property
    def edge(self) -> Path:
        """The edge's configuration as files anyone can read."""
        return self.run / "edge"

    @property
    def instances(self) -> Path:
        """``<instance>.sock`` and ``<instance>/`` (private temporary directory)."""
        return self.run / "i"
