"""One tree of errors. Each class has a stable ``code``, says whether a retry can help, and its
docstring is the default message.

::

    PlatformError
    ├── InvalidRequest            the caller must change the request
    │   ├── MalformedBody · BodyTooLarge · InvalidName · InvalidParameter · UnknownAction
    │   ├── InvalidFilter · InvalidUpdate · InvalidProjection · InvalidSort · InvalidDocument
    │   └── InvalidProject        a project or one of its settings cannot be read
    ├── Unauthenticated           nobody, or nobody provable, is calling
    │   ├── TokenExpired · SignatureInvalid
    ├── PermissionDenied          somebody is calling who may not
    │   └── EnvironmentMismatch
    ├── NotFound
    │   ├── EnvironmentNotFound · FunctionNotFound · VersionNotFound · InstanceNotFound
    │   └── CollectionNotFound · DocumentNotFound · TransactionNotFound
    ├── Conflict
    │   ├── AlreadyExists · DuplicateKey · RevisionConflict · ChangesPruned
    │   └── DataDirectoryInUse · PortTaken
    ├── LimitExceeded
    │   ├── RateLimited · ConcurrencyExceeded · DepthExceeded · ResultTooLarge · QueryTooCostly
    ├── FunctionError             the function's own code failed; the platform did its part
    │   ├── FunctionFailed · FunctionTimeout · FunctionLoadFailed · FunctionExited · FunctionOutOfMemory
    ├── BuildFailed               dependencies could not be installed or the start check failed
    ├── Unavailable               may be tried again at once: nothing was started
    │   └── NodeUnavailable · EdgeUnavailable · StoreUnavailable · ShuttingDown
    ├── OutcomeUnknown            must not be tried again blindly: it may have happened
    └── Internal                  a fault of ours
"""

from __future__ import annotations

from typing import ClassVar


class PlatformError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal"
    retriable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        super().__init__(self.message)


class InvalidRequest(PlatformError):
    """The request is not valid."""

    code = "invalid_request"


class MalformedBody(InvalidRequest):
    """The body is not valid JSON."""

    code = "malformed_body"


class BodyTooLarge(InvalidRequest):
    """The body is larger than the limit."""

    code = "body_too_large"


class InvalidName(InvalidRequest):
    """The name is not allowed."""

    code = "invalid_name"


class InvalidParameter(InvalidRequest):
    """A parameter is missing or has the wrong type."""

    code = "invalid_parameter"


class UnknownAction(InvalidRequest):
    """The action is not known."""

    code = "unknown_action"


class InvalidFilter(InvalidRequest):
    """The query is not valid."""

    code = "invalid_filter"


class InvalidUpdate(InvalidRequest):
    """The update is not valid."""

    code = "invalid_update"
    number: int | None = None
    """MongoDB's number of this error, where it has one; the message names it too."""


class InvalidProjection(InvalidRequest):
    """The projection is not valid."""

    code = "invalid_projection"


class InvalidSort(InvalidRequest):
    """The order is not valid."""

    code = "invalid_sort"


class InvalidDocument(InvalidRequest):
    """The document cannot be stored."""

    code = "invalid_document"


class InvalidProject(InvalidRequest):
    """The project cannot be read."""

    code = "invalid_project"


class Unauthenticated(PlatformError):
    """Sign in first: the request carries no valid token."""

    code = "unauthenticated"


class TokenExpired(Unauthenticated):
    """The token has expired."""

    code = "token_expired"


class SignatureInvalid(Unauthenticated):
    """The signature is missing or does not match."""

    code = "signature_invalid"


class PermissionDenied(PlatformError):
    """The caller may not do this."""

    code = "permission_denied"


class EnvironmentMismatch(PermissionDenied):
    """The token belongs to another environment."""

    code = "environment_mismatch"


class NotFound(PlatformError):
    """It does not exist."""

    code = "not_found"


class EnvironmentNotFound(NotFound):
    """The environment does not exist."""

    code = "environment_not_found"


class FunctionNotFound(NotFound):
    """The function does not exist."""

    code = "function_not_found"


class VersionNotFound(NotFound):
    """The version does not exist."""

    code = "version_not_found"


class InstanceNotFound(NotFound):
    """The instance does not exist."""

    code = "instance_not_found"


class CollectionNotFound(NotFound):
    """The collection does not exist."""

    code = "collection_not_found"


class DocumentNotFound(NotFound):
    """The document does not exist."""

    code = "document_not_found"


class TransactionNotFound(NotFound):
    """The transaction does not exist: it has ended, its time was up, or the service was restarted."""

    code = "transaction_not_found"


class Conflict(PlatformError):
    """It conflicts with what is there."""

    code = "conflict"


class AlreadyExists(Conflict):
    """It exists already."""

    code = "already_exists"


class DuplicateKey(Conflict):
    """A document with this key exists already."""

    code = "duplicate_key"


class RevisionConflict(Conflict):
    """The document was changed in the meantime."""

    code = "revision_conflict"
    retriable = True


class ChangesPruned(Conflict):
    """The change log no longer reaches back to the asked position; begin anew."""

    code = "changes_pruned"
    retriable = True


class DataDirectoryInUse(Conflict):
    """Another cloudlet is using this data directory."""

    code = "data_directory_in_use"


class PortTaken(Conflict):
    """Another program is listening on this port."""

    code = "port_taken"


class LimitExceeded(PlatformError):
    """A limit was reached."""

    code = "limit_exceeded"


class RateLimited(LimitExceeded):
    """Too many requests; slow down."""

    code = "rate_limited"
    retriable = True


class ConcurrencyExceeded(LimitExceeded):
    """Too many calls of this function are running or waiting."""

    code = "concurrency_exceeded"
    retriable = True


class DepthExceeded(LimitExceeded):
    """Functions call each other too deeply."""

    code = "depth_exceeded"


class ResultTooLarge(LimitExceeded):
    """The result is larger than the limit."""

    code = "result_too_large"


class QueryTooCostly(LimitExceeded):
    """The query took more time, memory or rows than it may."""

    code = "query_too_costly"


class FunctionError(PlatformError):
    """The function failed."""

    code = "function_error"


class FunctionFailed(FunctionError):
    """The function threw an error."""

    code = "function_failed"


class FunctionTimeout(FunctionError):
    """The function ran longer than its timeout."""

    code = "function_timeout"


class FunctionLoadFailed(FunctionError):
    """The function's code could not be loaded."""

    code = "function_load_failed"


class FunctionExited(FunctionError):
    """The function's process ended before it answered."""

    code = "function_exited"


class FunctionOutOfMemory(FunctionError):
    """The function used more memory than it may."""

    code = "function_out_of_memory"


class BuildFailed(PlatformError):
    """The function could not be built."""

    code = "build_failed"


class Unavailable(PlatformError):
    """The service is not available right now; nothing was started, try again."""

    code = "unavailable"
    retriable = True


class NodeUnavailable(Unavailable):
    """The node does not answer; nothing was started, try again."""

    code = "node_unavailable"


class EdgeUnavailable(Unavailable):
    """The edge does not answer or refused its configuration."""

    code = "edge_unavailable"


class StoreUnavailable(Unavailable):
    """The store cannot write right now (disk full or read-only); nothing was changed."""

    code = "store_unavailable"


class ShuttingDown(Unavailable):
    """The platform is shutting down; nothing was started, try again."""

    code = "shutting_down"


class OutcomeUnknown(PlatformError):
    """The write may or may not have happened; read before trying again."""

    code = "outcome_unknown"


class Internal(PlatformError):
    """Something went wrong on our side."""

    code = "internal"


def error_class(code: str) -> type[PlatformError]:
    """The class with this code; Internal for codes that are not known (a newer peer)."""
    return _BY_CODE.get(code, Internal)


def _walk(root: type[PlatformError]) -> dict[str, type[PlatformError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _walk(child)
    return found


_BY_CODE = {code: found for code, found in _walk(PlatformError).items() if code != "internal"} | {
    Internal.code: Internal
}
