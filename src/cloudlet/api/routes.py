"""The admin interface: every route on one page.

Served on the admin socket, whose file mode (0600) is the permission; nothing here asks for a token. Bodies
and replies are JSON objects (UTF-8) unless the table says otherwise; times are Unix seconds, ``?`` marks what
may be absent. ``{env}`` is an environment or one of its aliases; a person who names none means ``default``.

::

    GET    /status                                                      → Status
    GET    /metrics                                                     → Prometheus's text form
    GET    /environments                                                → {"environments": [Environment]}
    POST   /environments              {"name"}                          → 201 Environment
    DELETE /environments/{env}                                          → {"deleted": name}
    PUT    /environments/{env}/aliases/{alias}                          → Environment
    GET    /environments/{env}/credentials                              → Credentials
    POST   /environments/{env}/tokens {"openid", "appid"?, "unionid"?}  → Token

    GET    /environments/{env}/functions                                → {"functions": [Function]}
    GET    /environments/{env}/functions/{fn}                           → Detail
    DELETE /environments/{env}/functions/{fn}                           → {"deleted": [digest]}
    POST   /environments/{env}/functions/{fn}/invoke
                                      {"event"?, "openid"?}             → {"result", "request_id",
                                                                           "timing": {stage: ms}}
    GET    /environments/{env}/functions/{fn}/versions                  → {"versions": [Version]}, last first
    POST   /environments/{env}/functions/{fn}/rollback
                                      {"to": number?}                   → {"former": Version, "now": Version}
    GET    /environments/{env}/functions/{fn}/logs
           ?limit=100 &request_id= &since=unix seconds
           &level=debug|info|warn|error &text=                          → {"records": [Log]}, oldest first

    PUT    /uploads                   a tar archive (raw, ≤ 512 MB)     → 201 {"upload": id, "bytes": n}
    POST   /deploy                    Deploy                            → one JSON object a line: Event

    GET    /environments/{env}/collections                              → {"collections": [Collection]}
    POST   /environments/{env}/collections {"name", "preset"?}          → 201 Collection
    PUT    /environments/{env}/collections/{name}/preset {"preset"}     → Collection
    PUT    /environments/{env}/collections/{name}/rule {"rule": Rule | null}
                                                                        → Collection
    POST   /environments/{env}/collections/{name}/access
           {"operation", "filter"?, "data"?, "openid"?, "uid"?, "login_type"?}
                                                                        → {"allowed": bool, "why": text}
    DELETE /environments/{env}/collections/{name}                       → {"deleted": name}
    GET    /environments/{env}/collections/{name}/documents
           ?filter=EJSON &skip=0 &limit=20 (at most 1000)               → {"documents": [EJSON object]}
    GET    /environments/{env}/collections/{name}/watch
           ?filter=EJSON &sort=EJSON &limit= &resume=token              → one JSON object a line: Watched
    GET    /environments/{env}/collections/{name}/export
           ?format=json|csv &filter=EJSON &fields=a,b.c
           &relaxed=false &gzip=false                                   → the file (streamed)
    GET    /environments/{env}/collections/{name}/stats                 → Sizes
    POST   /environments/{env}/collections/{name}/explain
           {"filter"?, "sort"?, "skip"?, "limit"?, "openid"?}           → Explained of docdb/base.py
    GET    /environments/{env}/collections/{name}/indexes               → {"indexes": [Index]}
    POST   /environments/{env}/collections/{name}/indexes
           {"fields": [{"path", "direction"?}], "name"?, "unique"?, "sparse"?, "partial"?,
            "expire_after_s"?}                                          → 201 Index
    DELETE /environments/{env}/collections/{name}/indexes/{index:path}  → {"dropped": index}

    POST   /environments/{env}/imports  the file (raw, ≤ 64 GB)
           ?collection= &format=json|csv &mode=insert|upsert
           &stop_on_error=false                                         → 202 Import
    GET    /environments/{env}/imports                                  → {"imports": [Import]}
    GET    /environments/{env}/imports/{id}                             → Import
    DELETE /environments/{env}/imports/{id}                             → Import, cancelled
    POST   /environments/{env}/imports/{id}/resume                      → 202 Import

    GET    /environments/{env}/backups                                  → {"backups": [Backup], "moments":
                                                                           [{"from", "to", "backup"}]}
    POST   /environments/{env}/backups          {"passphrase"?}         → Lines, done: Backup
    POST   /environments/{env}/backups/restore
           {"backup"?, "at"?, "collections"?: {old: new}, "into"?, "replace"?, "passphrase"?}
                                                → Lines, done: {"backup", "at", "replayed",
                                                                "documents": {name: n}}
    POST   /environments/{env}/backups/rehearse {"backup"?, "passphrase"?}
                                                → Lines, done: the same and {"pieces", "read"}
    POST   /environments/{env}/migration        {"to": url | "sqlite"}  → Lines, done: Report of docdb/migrate
    DELETE /environments/{env}/migration        (an unfinished one)     → {"environment"}

Shapes::

    Environment    {"name", "created_at", "aliases": [name]}
    Credentials    {"envId", "secretId", "secretKey", "serviceUrl"}      serviceUrl ends in /admin
    Token          {"access_token", "refresh_token", "token_type": "Bearer", "expires_in", "sub", "env",
                    "openid"}
    Function       {"name", "runtime", "unpatched": bool, "handler", "timeout_s", "memory_mb", "concurrency",
                    "version": digest, "number", "updated_at", "instances": n}
    Detail         Function + {"url", "environment_variables": [name], "running": [Instance],
                    "versions": [Version],
                    "scale": {"instances_min", "instances_max", "keep_alive_s"}}
    Version        {"digest", "number", "created_at", "current": bool, "runtime"}
    Instance       {"instance_id", "environment", "function", "version": digest, "state", "pid",
                    "started_at", "memory_mb", "rung", "timing": {"sandbox_ms", "load_ms", "pooled"}}
    Status         {"version", "pid", "url", "rung", "sequence", "environments": n, "functions": n,
                    "running": [Instance], "pools": {runtime: n}, "node": name | null,
                    "processes": [{"name": node | api | control | envoy, "pid", "ready", "restarts"}]}
                   node, pid (the node's) and rung are null when the node does not answer
    Log            {"t", "instance", "request_id", "level", "text"}
                   level: that one and worse; text: part of the line, case ignored; both among the newest
                   10,000 records that the other conditions leave
    Deploy         DeployRequest of functions/wire.py
    Collection     {"name", "preset", "rule"?}
                   preset: READONLY | PRIVATE | ADMINWRITE | ADMINONLY; it does not count where a rule is
    Rule           {"read"?, "write"?, "create"?, "update"?, "delete"?, "fields"?} (docs/reference/rules.md)
    Import         {"id", "environment", "collection", "format", "mode", "stop_on_error", "created_ms",
                    "bytes", "state": queued | running | done | failed | cancelled, "message", "finished_ms",
                    "offset", "line", "inserted", "replaced", "unchanged", "failed",
                    "problems": [{"line", "message"}], "resumable": bool}
                   problems: the first 100; ended ones are remembered while there are at most 100
    Backup         {"id", "environment", "at", "seq", "bytes", "encrypted", "collections": {name: documents}}
    Sizes          {"name", "documents", "bytes", "indexes": [{"name", "entries"}]}
    Index          {"name", "fields": [{"path", "direction": 1 | -1 | 2d | 2dsphere}], "unique", "sparse",
                    "partial", "expire_after_s", "automatic", "ready"}
    Lines          one JSON object a line: {"event": "progress", …}, {"event": "working"}, at last
                   {"event": "done", …} or {"event": "error", "code", "message"}
    Watched        {"id", "initial": bool, "token", "changes": [{"queueType", "dataType", "docId", "doc",
                    "updatedFields"?, "removedFields"?}]} (docdb/watch/events.py), documents as EJSON;
                   first {"resumed": true} if it goes on after the token; {"error": {"code", "message"}} last
    Event          DeployEvent of functions/wire.py, with "event" naming the kind

Errors: ``{"code", "message", "requestId"}`` with ``code`` of ``model/errors.py`` and the status of
``api/errors.py``: 400 invalid request · 403 denied · 404 not found · 409 conflict · 422 the function or the
build failed · 429 limit · 503 unavailable · 500 rest. A failure inside ``/deploy`` after its first line is
an Event, because the status was sent by then.
"""

from __future__ import annotations

from starlette.routing import Route

from cloudlet.api import (
    backups,
    collections,
    deploys,
    environments,
    functions,
    indexes,
    status,
    transfers,
    watches,
)
from cloudlet.api.http import Handler, endpoint
from cloudlet.api.ports import AdminServices

_ENV = "/environments/{env}"
_FN = _ENV + "/functions/{fn}"
_COLLECTION = _ENV + "/collections/{name}"

TABLE: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/status", status.status),
    ("GET", "/metrics", status.metrics),
    ("GET", "/environments", environments.list_environments),
    ("POST", "/environments", environments.create_environment),
    ("DELETE", _ENV, environments.delete_environment),
    ("PUT", _ENV + "/aliases/{alias}", environments.set_alias),
    ("GET", _ENV + "/credentials", environments.credentials),
    ("POST", _ENV + "/tokens", environments.token),
    ("GET", _ENV + "/functions", functions.list_functions),
    ("GET", _FN, functions.detail),
    ("DELETE", _FN, functions.delete_function),
    ("POST", _FN + "/invoke", functions.invoke),
    ("GET", _FN + "/versions", functions.list_versions),
    ("POST", _FN + "/rollback", functions.rollback),
    ("GET", _FN + "/logs", functions.logs),
    ("PUT", "/uploads", deploys.upload),
    ("POST", "/deploy", deploys.deploy),
    ("GET", _ENV + "/collections", collections.list_collections),
    ("POST", _ENV + "/collections", collections.create_collection),
    ("PUT", _COLLECTION + "/preset", collections.set_preset),
    ("PUT", _COLLECTION + "/rule", collections.set_rule),
    ("POST", _COLLECTION + "/access", collections.ask_access),
    ("DELETE", _COLLECTION, collections.delete_collection),
    ("GET", _COLLECTION + "/documents", collections.list_documents),
    ("GET", _COLLECTION + "/watch", watches.watch),
    ("GET", _COLLECTION + "/export", transfers.export),
    ("GET", _COLLECTION + "/stats", indexes.stats),
    ("POST", _COLLECTION + "/explain", indexes.explain),
    ("GET", _COLLECTION + "/indexes", indexes.list_indexes),
    ("POST", _COLLECTION + "/indexes", indexes.create_index),
    ("DELETE", _COLLECTION + "/indexes/{index:path}", indexes.drop_index),
    ("POST", _ENV + "/imports", transfers.start_import),
    ("GET", _ENV + "/imports", transfers.list_imports),
    ("GET", _ENV + "/imports/{id}", transfers.get_import),
    ("DELETE", _ENV + "/imports/{id}", transfers.cancel_import),
    ("POST", _ENV + "/imports/{id}/resume", transfers.resume_import),
    ("GET", _ENV + "/backups", backups.list_backups),
    ("POST", _ENV + "/backups", backups.make_backup),
    ("POST", _ENV + "/backups/restore", backups.restore),
    ("POST", _ENV + "/backups/rehearse", backups.rehearse),
    ("POST", _ENV + "/migration", backups.migrate),
    ("DELETE", _ENV + "/migration", backups.abandon_migration),
)


def routes(services: AdminServices) -> list[Route]:
    """The table, bound to its services."""
    return [Route(path, endpoint(services, handler), methods=[method]) for method, path, handler in TABLE]
