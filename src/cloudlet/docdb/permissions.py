"""The four presets: what a client may do, and the owner condition that is added to its queries.

A preset never answers "no" to a query that an owner condition can narrow: others' documents simply do not
match. Server-side callers are not limited.
"""

from __future__ import annotations

from typing import Final

from cloudlet.docdb.base import Preset
from cloudlet.docdb.update import Update
from cloudlet.docdb.values import Document
from cloudlet.model.access import Access
from cloudlet.model.errors import PermissionDenied

OWNER_FIELD: Final = "_openid"


def owner_of(access: Access) -> str:
    """What is written into ``_openid``: the openid, or the uid of users who have none. Empty: nobody."""
    return access.openid or access.uid


def read_conditions(access: Access, preset: Preset) -> tuple[Document, ...]:
    """Conditions that a client's reads must be narrowed by. Raises PermissionDenied where it may not read."""
    if access.admin or preset in (Preset.READONLY, Preset.ADMINWRITE):
        return ()
    if preset is Preset.ADMINONLY:
        raise PermissionDenied("this collection can only be read by the server")
    return _own(access)


def write_conditions(access: Access, preset: Preset) -> tuple[Document, ...]:
    """Conditions that a client's updates and removals must be narrowed by. Raises PermissionDenied."""
    if access.admin:
        return ()
    _check_may_write(access, preset)
    return _own(access)


def owned_document(access: Access, preset: Preset, document: Document) -> Document:
    """The document as it may be inserted: a client's carries its owner. Raises PermissionDenied."""
    if access.admin:
        return document
    _check_may_write(access, preset)
    if OWNER_FIELD in document:
        raise PermissionDenied("a client cannot write the field _openid")
    return {**document, OWNER_FIELD: owner_of(access)}


def without_own_name(access: Access, document: Document) -> Document:
    """A document made from a client's filter, which may name the client itself without writing it."""
    if access.admin or document.get(OWNER_FIELD) != owner_of(access):
        return document
    return {name: value for name, value in document.items() if name != OWNER_FIELD}


def check_replacement(access: Access, replacement: Document) -> None:
    """Raises PermissionDenied if a client's whole document names an owner."""
    if not access.admin and OWNER_FIELD in replacement:
        raise PermissionDenied("a client cannot write the field _openid")


def check_update(access: Access, update: Update) -> None:
    """Raises PermissionDenied if a client's update touches the owner."""
    if not access.admin and OWNER_FIELD in update.fields:
        raise PermissionDenied("a client cannot write the field _openid")


def _check_may_write(access: Access, preset: Preset) -> None:
    if preset in (Preset.ADMINWRITE, Preset.ADMINONLY):
        raise PermissionDenied("this collection can only be written by the server")
    if not owner_of(access):
        raise PermissionDenied("writing needs a user; sign in first")


def _own(access: Access) -> tuple[Document, ...]:
    owner = owner_of(access)
    # Nobody owns nothing: without this, documents without an owner would belong to callers without a name.
    return ({OWNER_FIELD: owner},) if owner else ({"$nor": [{}]},)
