"""Clients that call and write without pause, and a ledger of what they were promised."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cloudlet.auth.tc3 import Authorization, SignedRequest, canonical_request, sign
from tests.acceptance.player import Answer, NoAnswer, Player
from tests.faults.answers import NotAllowed, Promise, of_function, of_signed

PAUSE_S = 0.02
"""Between two calls of a client, so that the machine is busy, not drowned."""
READ_AT_ONCE = 1000


@dataclass
class Ledger:
    """What was promised about each document of one run, and every answer that should not have been."""

    run: str
    """With this the ids of the run's documents begin."""
    promised: dict[Promise, set[str]] = field(default_factory=lambda: {each: set() for each in Promise})
    faults: list[str] = field(default_factory=list)
    latest: str = ""
    """The document that was acknowledged last."""
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, document: str, promise: Promise) -> None:
        with self._lock:
            self.promised[promise].add(document)
            if promise is Promise.DONE:
                self.latest = document
            self.counts[f"write {promise}"] += 1

    def call(self, promise: Promise) -> None:
        with self._lock:
            self.counts[f"call {promise}"] += 1

    def fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)

    def compare(self, found: set[str]) -> list[str]:
        """What does not agree with the documents that are there now."""
        lost = self.promised[Promise.DONE] - found
        ghosts = self.promised[Promise.NOT_STARTED] & found
        return [
            *(f"acknowledged and lost: {each}" for each in sorted(lost)[:5]),
            *(f"said not to be started, and there: {each}" for each in sorted(ghosts)[:5]),
        ]


class SignedClient:
    """A server-side SDK outside, as far as the platform can see one: signed requests to ``/admin``."""

    def __init__(
        self, url: str, secret_id: str, secret_key: str, wall: Callable[[], float] = time.time
    ) -> None:
        """`wall` is the clock that requests are signed with."""
        self._wall = wall
        self._player = Player(url)
        self._host = urlsplit(url).netloc
        self._secret_id = secret_id
        self._secret_key = secret_key

    def close(self) -> None:
        self._player.close()

    def send(self, action: str, **parameters: object) -> Answer:
        """Raise NoAnswer."""
        body = json.dumps({"action": action, **parameters}, separators=(",", ":")).encode()
        return self._player.post("/admin?env=default", body, self._headers(body))

    def _headers(self, body: bytes) -> dict[str, str]:
        now = int(self._wall())
        day = time.strftime("%Y-%m-%d", time.gmtime(now))
        headers = {"content-type": "application/json", "host": self._host}
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        named = Authorization(
            self._secret_id,
            day,
            tuple(sorted(name.lower() for name in members)),
            ("content-type", "host"),
            "",
        )
        request = SignedRequest("POST", self._host, "/admin", "env=default", headers, members)
        signature = sign(canonical_request(request, named), self._secret_key, now, day)
        headers["x-timestamp"] = str(now)
        headers["authorization"] = (
            f"TC3-HMAC-SHA256 Credential={self._secret_id}/{day}/tcb/tc3_request, "
            f"SignedParams={';'.join(named.signed_params)}, SignedHeaders=content-type;host, "
            f"Signature={signature}"
        )
        return headers

    def ids(self, collection: str, prefix: str) -> set[str]:
        """The ids of every document whose id begins so. Raise NotAllowed, NoAnswer."""
        found: set[str] = set()
        after = prefix
        while True:
            answer = self.send(
                "database.getDocument",
                collectionName=collection,
                queryType="WHERE",
                query=json.dumps({"_id": {"$gt": after, "$lt": f"{prefix}~"}}),
                order=json.dumps({"_id": 1}),
                projection=json.dumps({"_id": 1}),
                limit=READ_AT_ONCE,
            )
            if answer.status != 200 or "data" not in answer.body:
                raise NotAllowed(f"reading back failed: {answer}")
            page = [json.loads(text)["_id"] for text in answer.body["data"]["list"]]
            found.update(page)
            if len(page) < READ_AT_ONCE:
                return found
            after = max(page)


class Traffic:
    """`start` … `stop`. `edge_hit` says that the edge itself is being killed: only then may connections
    break. `clock_set` says that the platform's clock is being set: only then may signatures be refused."""

    def __init__(self, users: list[Player], signed: SignedClient, ledger: Ledger) -> None:
        self.ledger = ledger
        self.edge_hit = self.clock_set = False
        self._users = users
        self._signed = signed
        self._stop = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._clients: list[Future[None]] = []
        self._before = 0

    def start(self, clients: int) -> None:
        """Two of five clients write through a function, one signed, one reads back, one only calls."""
        kinds = (self._write_by_function, self._write_signed, self._read, self._call, self._write_by_function)
        self._before = self.ledger.counts.total()
        self._pool = ThreadPoolExecutor(max(1, clients))
        self._clients = [
            self._pool.submit(self._play, kinds[number % len(kinds)], number) for number in range(clients)
        ]

    def warm(self) -> bool:
        """Whether every client has had an answer, more or less."""
        return self.ledger.counts.total() > self._before + 2 * len(self._clients)

    def stop(self) -> None:
        """Return when every client has its last answer; raise what a client died of."""
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown()
        for client in self._clients:
            client.result()

    def probe(self) -> bool:
        """Whether one call, one write of each kind and one read succeed right now."""
        number = time.monotonic_ns()
        done = [
            self._once(kind, f"probe-{number}", number)
            for kind in (self._call, self._write_by_function, self._write_signed, self._read)
        ]
        return all(promise is Promise.DONE for promise in done)

    def _play(self, kind: Callable[[str, int], Promise], number: int) -> None:
        turn = 0
        while not self._stop.wait(PAUSE_S):
            turn += 1
            self._once(kind, f"{number:02}-{turn:06}", number)

    def _once(self, kind: Callable[[str, int], Promise], name: str, number: int) -> Promise | None:
        document = f"{self.ledger.run}{kind.__name__}-{name}"
        try:
            promise = kind(document, number)
        except NoAnswer as exc:
            promise = Promise.UNKNOWN
            if not self.edge_hit:
                self.ledger.fault(f"silence: {exc}")
        except NotAllowed as exc:
            self.ledger.fault(str(exc))
            return None
        if kind in (self._call, self._read):
            self.ledger.call(promise)
        else:
            self.ledger.write(document, promise)
        return promise

    def _call(self, document: str, number: int) -> Promise:
        answer = self._user(number).call("echo", {"n": document})
        promise = of_function(answer)
        if promise is Promise.DONE and answer.body["n"] != document:
            raise NotAllowed(f"the answer of somebody else: {answer}")
        return promise

    def _write_by_function(self, document: str, number: int) -> Promise:
        return of_function(self._user(number).call("note", {"id": document}))

    def _write_signed(self, document: str, number: int) -> Promise:
        data: list[Any] = [json.dumps({"_id": document})]
        answer = self._signed.send("database.insertDocument", collectionName="notes", data=data)
        return of_signed(answer, self.clock_set)

    def _read(self, _document: str, _number: int) -> Promise:
        """What was acknowledged last is there at once, also right after a restart."""
        written = self.ledger.latest
        query = json.dumps({"_id": written})
        answer = self._signed.send("database.getDocument", collectionName="notes", query=query)
        promise = of_signed(answer, self.clock_set)
        if promise is Promise.DONE and written and not answer.body["data"]["list"]:
            raise NotAllowed(f"acknowledged and not found: {written}")
        return promise

    def _user(self, number: int) -> Player:
        return self._users[number % len(self._users)]
