"""One running platform per test module, and the words tests use about answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.installation import Installation
from tests.acceptance.player import Answer, Player


class Platform:
    """A running installation with a project deployed, and players by openid."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._players: dict[str, Player] = {}

    def player(self, openid: str = "user-a") -> Player:
        """A signed-in user; the same object for the same openid."""
        if openid not in self._players:
            token = self.installation.token(openid)
            self._players[openid] = Player(self.installation.url, token, openid)
        return self._players[openid]

    def call(self, function: str, data: object, openid: str = "user-a") -> Answer:
        return self.player(openid).call(function, data)

    def close(self) -> None:
        for player in self._players.values():
            player.close()


@contextmanager
def running(data: Path, project: Path, *deploy_options: str) -> Iterator[Platform]:
    """Start, deploy, hand over, and stop; nothing may be left behind."""
    installation = Installation(data)
    platform = Platform(installation)
    try:
        installation.start()
        installation.deploy(project, *deploy_options)
        yield platform
    finally:
        platform.close()
        left = installation.stop()
    assert left == []
