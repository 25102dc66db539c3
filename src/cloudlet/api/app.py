"""The admin application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cloudlet.api.errors import error_body
from cloudlet.api.http import JSON
from cloudlet.api.ports import AdminServices
from cloudlet.api.routes import routes
from cloudlet.model.errors import InvalidRequest, NotFound
from cloudlet.model.ids import new_request_id


def admin_app(services: AdminServices) -> Starlette:
    """The ASGI application for the admin socket. It asks for no token: serve it where a file mode or a
    login guards it, never on an open port."""
    return Starlette(routes=routes(services), exception_handlers={HTTPException: _no_route})


async def _no_route(request: Request, error: Exception) -> Response:
    """What the router itself says: no such address, or another method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = f"{request.method} {request.url.path[:80]}"
    answer = NotFound(f"there is no {what}") if status == 404 else InvalidRequest(f"{what} is not possible")
    return Response(error_body(answer, new_request_id()), status, media_type=JSON)
