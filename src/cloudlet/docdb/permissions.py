"""What a caller may do with a collection: its preset, or its custom rule where there is one.

A preset never answers "no" to a query that an owner condition can narrow: others' documents simply do not
match. A custom rule never narrows: the query has to make sure of it (``docdb.rules.prove``), or it names one
document only, which is then checked. Server-side callers are not limited.

For one request: ``permission = Permission(access, info, now_ms, fetcher(store))``, then ``read``, ``change``,
or ``owned`` and ``check_insert``. All of them raise PermissionDenied. Pipelines and watches ask ``read`` with
the filter of their first ``$match``: its ``conditions`` are the whole query, ``check`` has to be awaited for
every document found, ``show`` leaves out the fields that a field rule hides; a pipeline is refused when there
are such (``hides``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import structlog

from cloudlet.docdb.base import CollectionInfo, Decision, Preset, Row
from cloudlet.docdb.filter.ast import Node
from cloudlet.docdb.filter.match import Matcher
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.filter.reader import joined
from cloudlet.docdb.filter.shapes import bind, shape_of
from cloudlet.docdb.filter.ways import match_field
from cloudlet.docdb.rules.compile import Clause, CollectionRule, FieldClause, Operation, compile_rule
from cloudlet.docdb.rules.explain import RuleDenied
from cloudlet.docdb.rules.goals import ALWAYS, Goal, goal_of, reaches
from cloudlet.docdb.rules.judge import (
    DOCUMENTS_MAX,
    Fetch,
    Judge,
    Unread,
    always,
    can_hold,
    proven,
    steady_test,
)
from cloudlet.docdb.rules.prove import pinned_id, pinned_values
from cloudlet.docdb.rules.reduce import Request
from cloudlet.docdb.rules.written import (
    Path,
    Written,
    filled_in,
    filter_paths,
    has_field,
    is_below,
    overlaps,
    without_field,
)
from cloudlet.docdb.values import Document
from cloudlet.docdb.writes import Writes
from cloudlet.model.access import Access
from cloudlet.model.errors import InvalidParameter, PermissionDenied

T = TypeVar("T")
log = structlog.get_logger(__name__)

OWNER_FIELD: Final = "_openid"


def owner_of(access: Access) -> str:
    """What is written into ``_openid``: the openid, or the uid of users who have none. Empty: nobody."""
    return access.openid or access.uid


def without_own_name(access: Access, document: Document) -> Document:
    """A document made from a client's filter, which may name the client itself without writing it."""
    if access.admin or document.get(OWNER_FIELD) != owner_of(access):
        return document
    return {name: value for name, value in document.items() if name != OWNER_FIELD}


def sees(access: Access, info: CollectionInfo) -> Matcher | None:
    """Who passes may be shown to the caller, if it is found by its id. Of others, and where this is None, a
    ``Permission`` says what holds.
    """
    if access.admin:
        return _always
    if info.rule is not None:
        rule = _compiled(info.rule, info.name)
        return None if rule.fields else steady_test(rule.clauses[Operation.READ], _auth(access))
    if info.preset is Preset.PRIVATE:
        owner = owner_of(access)
        return match_field(OWNER_FIELD, owner) if owner else None
    return None if info.preset is Preset.ADMINONLY else _always


def _always(_document: Document) -> bool:
    return True


async def _no_check(_document: Document) -> None:
    return


class Reading(msgspec.Struct, frozen=True):
    """What a query may read."""

    conditions: tuple[Document, ...]
    """The whole query: the caller's filter, its templates filled in, and what it is narrowed by."""
    check: Callable[[Document], Awaitable[None]] = _no_check
    """To be awaited for each document found; raises PermissionDenied."""
    checks: bool = False
    """Whether ``check`` does anything: only for queries of a single id."""
    hidden: tuple[tuple[Path, Matcher], ...] = ()
    """Fields that a field rule may hide, and who may see them."""

    @property
    def hides(self) -> bool:
        """Whether documents may have fields that this caller does not see."""
        return bool(self.hidden)

    def show(self, document: Document) -> Document:
        """The document without the fields that are hidden from this caller."""
        for path, visible in self.hidden:
            if not visible(document):
                document = without_field(document, path)
        return document


class Changing(msgspec.Struct, frozen=True):
    """What an update or removal may change."""

    conditions: tuple[Document, ...]
    checks: tuple[Callable[[Document], None], ...] = ()
    """Run on every stored document inside the write's turn."""
    reading: Reading = Reading(())
    """How documents that the write returns are shown."""

    def guarded(self, work: Writes[T]) -> Writes[T]:
        """The work, after the checks of the documents it is about to change."""
        if not self.checks:
            return work

        def decide(rows: Sequence[Row]) -> Decision[T]:
            for row in rows:
                for check in self.checks:
                    check(row.document)
            return work(rows)

        return decide


class Permission:
    """What one caller may do with one collection, for one request."""

    def __init__(self, access: Access, info: CollectionInfo, now_ms: int, fetch: Fetch) -> None:
        self._access = access
        self._info = info
        self._now_ms = now_ms
        self._rule: CollectionRule | None = None
        if info.rule is not None and not access.admin:
            self._rule = _compiled(info.rule, info.name)
            self._judge = Judge(info.name, fetch)

    async def read(self, filter: Document, paths: Iterable[str] = ()) -> Reading:
        """What a query may find. ``paths``: fields it looks at besides (order, distinct values)."""
        if self._access.admin:
            return Reading((filter,))
        filter = filled_in(filter, self._access)
        if self._rule is None:
            return Reading(_joint(self._read_conditions(), filter))
        return await self._judge.settle(lambda: self._reading(filter, paths, Operation.READ))

    async def change(
        self,
        filter: Document,
        written: Written | None,
        *,
        upsert: bool = False,
        returns: bool = False,
        paths: Iterable[str] = (),
    ) -> Changing:
        """What an update (None: a removal) may change. ``returns``: it also reads the document."""
        if self._access.admin:
            return Changing((filter,))
        filter = filled_in(filter, self._access)
        if self._rule is None:
            self._check_may_write()
        if written is not None and any(path[0] == OWNER_FIELD for path in written.paths):
            raise PermissionDenied("a client cannot write the field _openid")
        if self._rule is None:
            return Changing(_joint(self._own(), filter))
        return await self._judge.settle(lambda: self._changing(filter, written, upsert, returns, paths))

    def owned(self, document: Document) -> Document:
        """The document as it may be inserted: a client's carries its owner."""
        if self._access.admin:
            return document
        if OWNER_FIELD in document:
            raise PermissionDenied("a client cannot write the field _openid")
        if self._rule is not None:
            owner = owner_of(self._access)
            return {**document, OWNER_FIELD: owner} if owner else document
        self._check_may_write()
        return {**document, OWNER_FIELD: owner_of(self._access)}

    def check_insert(self, document: Document, data: Document) -> None:
        """Raises PermissionDenied unless the complete document may be inserted, and Unread: call it inside
        ``settled``. ``data`` is what the caller wrote of it.
        """
        if self._rule is None:
            return
        request = self._request(data)
        create = self._rule.clauses[Operation.CREATE]
        self._require(create, request, document, "create", written=True)
        for limited in self._rule.fields:
            if limited.write is not None and has_field(document, limited.path):
                self._require(limited.write, request, document, "create", written=True)

    async def settled(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of a write, repeated while its checks need another document to be read first."""
        if self._rule is None:
            return await attempt()
        for _ in range(DOCUMENTS_MAX + 1):
            try:
                return await attempt()
            except Unread as need:
                await self._judge.read_for(need)
        return await attempt()

    async def decided(self, decide: Callable[[], T]) -> T:
        """As ``settled``, for what does not wait."""
        return decide() if self._rule is None else await self._judge.settle(decide)

    # Presets.

    def _read_conditions(self) -> tuple[Document, ...]:
        if self._info.preset in (Preset.READONLY, Preset.ADMINWRITE):
            return ()
        if self._info.preset is Preset.ADMINONLY:
            raise PermissionDenied("this collection can only be read by the server")
        return self._own()

    def _check_may_write(self) -> None:
        if self._info.preset in (Preset.ADMINWRITE, Preset.ADMINONLY):
            raise PermissionDenied("this collection can only be written by the server")
        if not owner_of(self._access):
            raise PermissionDenied("writing needs a user; sign in first")

    def _own(self) -> tuple[Document, ...]:
        owner = owner_of(self._access)
        # Nobody owns nothing: without this, documents without an owner would belong to callers without name.
        return ({OWNER_FIELD: owner},) if owner else ({"$nor": [{}]},)

    # Custom rules.

    def _request(self, data: Mapping[str, Any] | None = None) -> Request:
        return Request(_auth(self._access), self._now_ms, data)

    def _reading(self, filter: Document, paths: Iterable[str], operation: Operation) -> Reading:
        node = _tree(filter)
        query = goal_of(node)
        rule, request = self._custom, self._request()
        clause = rule.clauses[operation]
        check = self._asked(clause, request, query, operation.value)
        self._check_hidden(node, paths, query)
        hidden = self._hidden(request)
        if check is None:
            return Reading((filter,), hidden=hidden)
        stored = check

        async def settled(document: Document) -> None:
            await self._judge.settle(lambda: stored(document))

        return Reading((filter,), settled, True, hidden)

    def _changing(
        self, filter: Document, written: Written | None, upsert: bool, returns: bool, paths: Iterable[str]
    ) -> Changing:
        operation = Operation.DELETE if written is None else Operation.UPDATE
        node = _tree(filter)
        query = goal_of(node)
        rule, request = self._custom, self._request(None if written is None else written.data)
        checks = [self._asked(rule.clauses[operation], request, query, operation.value, upsert)]
        if returns:
            checks.append(self._asked(rule.clauses[Operation.READ], self._request(), query, "read", upsert))
        self._check_hidden(node, paths, query)
        if written is not None:
            for limited in rule.fields:
                checks += self._field_checks(limited, written, request, query)
        hidden = self._hidden(self._request()) if returns else ()
        kept = tuple(check for check in checks if check is not None)
        return Changing((filter,), kept, Reading((), hidden=hidden))

    def _asked(
        self, clause: Clause, request: Request, query: Goal, what: str, upsert: bool = False
    ) -> Callable[[Document], None] | None:
        """Nothing if the query proves the rule, or the check of the one document it names.

        Raises RuleDenied for any other query, and where the rule cannot hold for any document.
        """
        goal = self._judge.goal(clause, request, query)
        if proven(query, goal):
            return None
        open_ = any(path not in pinned_values(query) for path in clause.get_paths)
        if pinned_id(query) is None or not (can_hold(goal) or open_ or upsert):
            raise self._denied(self._judge.refusal(clause, goal, query, what))
        return lambda document: self._require(clause, request, document, what, written=False)

    def _check_hidden(self, node: Node, paths: Iterable[str], query: Goal) -> None:
        """A query may only look at fields that its caller may see: it would tell their values otherwise."""
        if not self._custom.fields:
            return
        request, asked = self._request(), filter_paths(node)
        others = [tuple(path.split(".")) for path in paths]
        for limited in self._custom.fields:
            if limited.read is None:
                continue
            looked = asked is None or any(overlaps(path, limited.path) for path in (*asked, *others))
            if looked:
                goal = self._judge.goal(limited.read, request, query)
                if not proven(query, goal):
                    raise self._denied(self._judge.refusal(limited.read, goal, query, "a query"))

    def _hidden(self, request: Request) -> tuple[tuple[Path, Matcher], ...]:
        found = []
        for limited in self._custom.fields:
            if limited.read is not None:
                goal = self._judge.goal(limited.read, request, ALWAYS)
                if not always(goal):
                    found.append((limited.path, reaches(goal)))
        return tuple(found)

    def _field_checks(
        self, limited: FieldClause, written: Written, request: Request, query: Goal
    ) -> list[Callable[[Document], None] | None]:
        checks: list[Callable[[Document], None] | None] = []
        if limited.write is not None:
            if written.replacement is not None:
                checks.append(self._replacement_check(limited, limited.write, written.replacement, request))
            elif any(overlaps(path, limited.path) for path in written.paths):
                checks.append(self._asked(limited.write, request, query, "update"))
        if limited.read is not None and (
            any(overlaps(path, limited.path) for path in written.reads)
            or any(is_below(path, limited.path) for path in written.paths)
        ):
            # An operator that works with the old value would tell it, and so would the refusal to write
            # into what is no object.
            checks.append(self._asked(limited.read, self._request(), query, "update"))
        return checks

    def _replacement_check(
        self, limited: FieldClause, clause: Clause, replacement: Document, request: Request
    ) -> Callable[[Document], None]:
        def check(document: Document) -> None:
            if has_field(document, limited.path) or has_field(replacement, limited.path):
                self._require(clause, request, document, "update", written=False)

        return check

    def _require(
        self, clause: Clause, request: Request, document: Document, what: str, written: bool
    ) -> None:
        try:
            self._judge.require(clause, request, document, what, written)
        except RuleDenied as denied:
            raise self._denied(denied) from None

    def _denied(self, error: RuleDenied) -> RuleDenied:
        denial = error.denial
        log.info(
            "rule_denied",
            environment=self._access.environment,
            collection=denial.collection,
            operation=denial.operation,
            why=denial.full(),
        )
        return error

    @property
    def _custom(self) -> CollectionRule:
        if self._rule is None:
            raise PermissionDenied
        return self._rule


def _joint(own: tuple[Document, ...], filter: Document) -> tuple[Document, ...]:
    """Both; the filter alone if it names the owner itself."""
    owner = own[0].get(OWNER_FIELD) if own else None
    return (filter,) if owner is not None and filter.get(OWNER_FIELD) == owner else (*own, filter)


def _tree(filter: Document) -> Node:
    """``parse_filter``, the short way for a filter of a known shape."""
    shape = shape_of(filter)
    return parse_filter(filter) if shape is None else joined(bind(shape, filter.values())[0])


def _compiled(rule: str, collection: str) -> CollectionRule:
    try:
        return compile_rule(rule)
    except InvalidParameter as exc:
        # It was checked when it was set: it comes from another version or was restored.
        raise PermissionDenied(f"the rule of {collection} is not valid, set it again: {exc.message}") from exc


def _auth(access: Access) -> dict[str, Any] | None:
    """What rules see of the caller; None for one who is not signed in."""
    if not (access.openid or access.uid):
        return None
    known = {"openid": access.openid, "uid": access.uid, "loginType": access.login_type}
    return {name: value for name, value in known.items() if value}
