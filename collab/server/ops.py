"""What an operator's tools ask: is it alive, should it get traffic, what are its figures."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collab.metrics import Metrics
from collab.replica import Replica
from collab.server.responses import Json


def routes(replica: Replica, metrics: Metrics) -> list[Route]:
    registry = metrics.registry()

    async def healthz(request: Request) -> Response:
        return Json({"status": "ok"})

    async def readyz(request: Request) -> Response:
        troubles = replica.troubles
        return Json(
            {"status": "unready" if troubles else "ready", "reasons": troubles},
            status_code=503 if troubles else 200,
        )

    async def figures(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", figures),
    ]
