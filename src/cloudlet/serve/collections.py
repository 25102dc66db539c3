"""What a deploy asks of the document database."""

from __future__ import annotations

from cloudlet.docdb.base import CreateIndex, Preset
from cloudlet.docdb.service import DocumentService


class DocumentCollections:
    """`functions.ports.Collections`, on the document service."""

    def __init__(self, documents: DocumentService) -> None:
        self._documents = documents

    async def names(self, environment: str) -> frozenset[str]:
        return frozenset(found.name for found in await self._documents.list_collections(environment))

    async def create(self, environment: str, name: str) -> None:
        await self._documents.create_collection(environment, name, Preset.PRIVATE)

    async def indexes(self, environment: str, collection: str) -> frozenset[str]:
        info = await self._documents.collection_info(environment, collection)
        return frozenset(index.name for index in info.indexes)

    async def create_index(self, environment: str, index: CreateIndex) -> None:
        await self._documents.define_index(environment, index)
