"""What an operator's tools ask: is it alive, should it get traffic, what are its figures.

With access control the figures are for this machine and for those who may administrate every room of every tenant,
and so are the reasons why there should be no traffic. That it lives anybody may know.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collab.auth.permissions import ADMIN
from collab.errors import CollabError, PermissionDenied
from collab.replica import Replica
from collab.server.access import Access
from collab.server.proxies import is_local
from collab.server.responses import Json
from collab.server.worker import Figures


class Ops:
    """`/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, replica: Replica, figures: Figures, access: Access) -> None:
        self._replica, self._access = replica, access
        self._figures = figures

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
        ]

    async def healthz(self, request: Request) -> Response:
        return Json({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        replica, access = self._replica, self._access
        troubles, worries = replica.troubles, replica.worries
        # What all replicas read in one place none of them reads better than another.
        (worries if replica.store.is_shared else troubles).extend(access.troubles)
        status = "unready" if troubles else "degraded" if worries else "ready"
        answer: dict[str, object] = {"status": status}
        try:
            await self._check(request)
        except CollabError:
            pass  # it is told less, not refused
        else:
            answer["reasons"] = troubles or worries
        return Json(answer, status_code=503 if troubles else 200)

    async def metrics(self, request: Request) -> Response:
        await self._check(request)
        return Response(await self._figures.gather(), media_type=CONTENT_TYPE_LATEST)

    async def _check(self, request: Request) -> None:
        """Raises Unauthenticated or PermissionDenied for who may not see into the process."""
        authority = self._access.authority
        if authority.is_open or is_local(request):
            return
        principal = await authority.authenticate(self._access.credential(request))
        if principal.tenant or not authority.operations(principal, "") & ADMIN:
            raise PermissionDenied("this is for who administrates the server")
