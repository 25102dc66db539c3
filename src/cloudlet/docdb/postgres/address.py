"""Where a PostgreSQL server is: a URL that may hold a password and therefore is never shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from cloudlet.model.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Address:
    """A checked URL. Its text and ``repr`` leave out user, password and options."""

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raises InvalidParameter for what is not a URL of a PostgreSQL database."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            raise InvalidParameter("the database address has no readable host and port") from None
        if parts.scheme not in {"postgresql", "postgres"}:
            raise InvalidParameter(
                "the database address must look like postgresql://user:password@host:5432/database"
            )
        if not parts.path.strip("/"):
            raise InvalidParameter("the database address names no database: end it with /NAME")
        if not (parts.hostname or "host" in dict(parse_qsl(parts.query))) and port is None:
            raise InvalidParameter("the database address names no host: write postgresql://host/database")

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.hostname or dict(parse_qsl(parts.query)).get("host", "")
        port = f":{parts.port}" if parts.port else ""
        return f"postgresql://{host}{port}/{unquote(parts.path.strip('/'))}"
