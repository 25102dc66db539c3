"""The lines for documents: a state machine, so time is a number here."""

from __future__ import annotations

from cloudlet.docdb.limits import TransactionLimits
from cloudlet.docdb.transactions.base import Key
from cloudlet.docdb.transactions.intents import Intents, Owner, Ticket

LIMITS = TransactionLimits(waiting_max=4, hot_s=10.0, intent_idle_s=3.0, hot_documents_max=2)
A: Key = ("c", b"a")
B: Key = ("c", b"b")
C: Key = ("c", b"c")


class Line:
    """Owners that note what they are told."""

    def __init__(self) -> None:
        self.intents = Intents(LIMITS)
        self.told: list[tuple[Owner, bool]] = []

    def owner(self, *keys: Key, busy: int = 1) -> Owner:
        made = Owner(0.0, busy)
        for key in keys:
            assert self.intents.take(made, key)
        return made

    def join(self, owner: Owner, key: Key, deadline: float = 100.0) -> Ticket | None:
        return self.intents.join(owner, key, deadline, lambda granted: self.told.append((owner, granted)))


def test_an_intent_has_one_holder() -> None:
    line = Line()
    one, two = line.owner(A), line.owner()
    assert not line.intents.take(two, A)
    assert line.intents.take(one, A)
    assert line.intents.holder(A) is one
    line.intents.release(one, 0.0)
    assert line.intents.holder(A) is None
    assert line.intents.held == 0
    assert line.intents.take(two, A)


def test_who_waits_is_served_in_order() -> None:
    line = Line()
    first, second, third = line.owner(A), line.owner(), line.owner()
    line.join(second, A)
    line.join(third, A)
    assert line.intents.waiting == 2
    line.intents.release(first, 1.0)
    assert line.told == [(second, True)]
    assert not line.intents.take(first, A)
    line.intents.release(second, 2.0)
    assert line.told == [(second, True), (third, True)]
    assert line.intents.waiting == 0


def test_who_leaves_is_passed_over() -> None:
    line = Line()
    first, second, third = line.owner(A), line.owner(B), line.owner()
    ticket = line.join(second, A)
    line.join(third, A)
    assert ticket is not None
    line.intents.leave(ticket)
    line.intents.leave(ticket)
    line.intents.release(first, 0.0)
    assert line.told == [(third, True)]
    line.intents.leave(ticket)
    assert second.held == {B}


def test_who_ends_while_waiting_is_told_so() -> None:
    line = Line()
    first, second = line.owner(A), line.owner(B)
    line.join(second, A)
    line.intents.release(second, 0.0)
    assert line.told == [(second, False)]
    assert (line.intents.holder(A), line.intents.holder(B)) == (first, None)


def test_a_circle_is_not_entered() -> None:
    line = Line()
    one, two, three = line.owner(A), line.owner(B), line.owner(C)
    assert line.join(one, B) is not None
    assert line.join(two, C) is not None
    assert line.join(three, A) is None
    outsider = line.owner()
    assert line.join(outsider, A) is not None
    line.intents.release(three, 0.0)
    line.intents.release(two, 0.0)
    assert line.told == [(two, True), (one, True)]


def test_a_line_is_not_endless() -> None:
    line = Line()
    line.owner(A)
    joined = [line.join(line.owner(), A) is not None for _ in range(6)]
    assert joined == [True] * 4 + [False] * 2


def test_a_wait_ends_at_its_deadline() -> None:
    line = Line()
    line.owner(A)
    early, late = line.owner(), line.owner()
    line.join(early, A, deadline=5.0)
    line.join(late, A, deadline=6.0)
    line.intents.sweep(4.9)
    assert line.told == []
    line.intents.sweep(5.0)
    assert line.told == [(early, False)]
    assert line.intents.waiting == 1


def test_a_silent_holder_gives_way_only_to_who_waits() -> None:
    line = Line()
    silent = line.owner(A, B, busy=0)
    line.intents.sweep(50.0)
    assert silent.held == {A, B}
    waiting = line.owner()
    silent.touched_at = 48.0
    line.join(waiting, A)
    line.intents.sweep(50.9)
    assert line.told == []
    silent.busy = 1
    line.intents.sweep(60.0)
    assert line.told == []
    silent.busy = 0
    line.intents.sweep(60.0)
    assert line.told == [(waiting, True)]
    assert silent.held == {B}
    line.intents.release(silent, 61.0)
    assert line.intents.holder(A) is waiting


def test_a_document_stays_hot_for_a_while() -> None:
    line = Line()
    assert not line.intents.is_hot(A, 0.0)
    line.intents.heat(A, 0.0)
    assert line.intents.is_hot(A, 9.9)
    assert not line.intents.is_hot(A, 10.0)
    line.owner(A)
    line.join(line.owner(), A)
    assert line.intents.is_hot(A, 99.0)


def test_only_so_many_documents_are_hot() -> None:
    line = Line()
    for at, key in enumerate((A, B, A, C)):
        line.intents.heat(key, float(at))
    assert [line.intents.is_hot(key, 4.0) for key in (A, B, C)] == [True, False, True]
