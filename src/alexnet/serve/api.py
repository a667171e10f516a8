"""The HTTP API: what each address takes and gives, and its OpenAPI document."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alexnet import __version__
from alexnet.evaluation.views import VIEWS, check_views, list_views
from alexnet.runtime.errors import UsageError, check_choice
from alexnet.serve import render, schema
from alexnet.serve.counters import Measures
from alexnet.serve.explorer import Exhibits
from alexnet.serve.limits import Refusal
from alexnet.serve.pages import pages
from alexnet.serve.service import Result, Service
from alexnet.serve.tasks import Features, Looks, Probabilities

DESCRIPTION = """
Images are sent as `multipart/form-data`, field `file`, one or several, or one as the bytes of the body:

    curl -F file=@one.jpg -F file=@two.png {address}/v1/predict
    curl --data-binary @one.jpg -H 'Content-Type: image/jpeg' {address}/v1/predict

Each image has its own entry in the answer, in the order sent. One that can't be read has an `error` in place of
its result, and the others have their results; when none can be read, the answer's status is that error's: 413 too many
bytes or pixels, 415 not an image, 422 a damaged one. The server answers 429 when too much is under way, and 503 when
there was no answer in time; both say `Retry-After`.
"""


PUT_OFF = 10.0
"""Seconds after which one who asks for an image that is being made is told to ask again."""
MOST_VALUES = 2_000_000
"""In an answer of `/v1/features`: some 40 MB of JSON."""


def api(service: Service, exhibits: Exhibits) -> FastAPI:
    """The application. It owns the service and the exhibits from their start to their end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        exhibits.start()
        yield
        await asyncio.to_thread(service.close)
        await asyncio.to_thread(exhibits.close)

    app = FastAPI(
        title="AlexNet",
        version=__version__,
        summary=f"{exhibits.title}: images in, classes out",
        description=DESCRIPTION.format(address="http://127.0.0.1:8000"),
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(_images(service, exhibits))
    app.include_router(_things(service, exhibits))
    app.include_router(_server(service))
    app.include_router(pages(app, exhibits))
    _errors(app)
    app.add_middleware(_Measured, measures=service.measures)
    return app


def _images(service: Service, exhibits: Exhibits) -> APIRouter:
    """What is asked about images that are sent."""
    router = APIRouter(tags=["images"], responses=schema.REFUSALS)
    classifier = service.classifier
    layers, labels = classifier.network.layer_names(), classifier.labels
    Layer = Annotated[str, Query(description="as `alexnet variants` names them", json_schema_extra={"enum": layers})]
    Views = Annotated[
        int,
        Query(
            description=list_views(),
            json_schema_extra={"enum": list(VIEWS)},
        ),
    ]

    @router.post("/v1/predict", response_model=schema.Predictions, openapi_extra=schema.BODY)
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=1000, description="how many classes")] = 5,
        views: Views = 1,
    ) -> Response:
        """The most probable classes of each image, as `alexnet predict` says them."""
        check_views(views)
        results = await service.results(request, Probabilities(views))
        entries = _entries(results, lambda shares: _prediction(classifier.top(shares, top)))
        return _json({"predictions": entries})

    @router.post("/v1/features", response_model=schema.LayerFeatures, openapi_extra=schema.BODY)
    async def features(request: Request, layer: Layer = "fc7") -> Response:
        """The activations of a layer; those of fc7 say what is alike (paper, section 6.1)."""
        results = await service.results(request, Features(check_choice(layer, layers, "layer")))
        count = sum(result.size for _, result in results if not isinstance(result, Refusal))
        if count > MOST_VALUES:
            raise Refusal(413, f"{count:,} values, more than {MOST_VALUES:,}: ask about fewer images at once")
        entries = await asyncio.to_thread(
            _entries, results, lambda values: {"shape": list(values.shape), "values": values.ravel().tolist()}
        )
        return await asyncio.to_thread(_json, {"layer": layer, "features": entries})

    @router.post(
        "/v1/neighbors",
        response_model=schema.Neighbors,
        responses=schema.MISSING,
        openapi_extra=schema.BODY,
    )
    async def neighbors(
        request: Request, k: Annotated[int, Query(ge=1, le=100, description="how many")] = 6
    ) -> Response:
        """The training images nearest to each image: Euclidean distance in fc7."""
        index = exhibits.index()
        results = await service.results(request, Features("fc7"))
        entries = await asyncio.to_thread(
            _entries, results, lambda values: {"nearest": exhibits.nearest(index, values, k)}
        )
        return _json({"neighbors": entries})

    @router.post("/v1/explain", response_model=schema.Explanations, openapi_extra=schema.BODY)
    async def explain(
        request: Request,
        label: Annotated[str | None, Query(description="the class to explain (default: the most probable)")] = None,
    ) -> Response:
        """Where the network looks: what speaks for a class, as the gradient and as Grad-CAM."""
        if label is not None and label not in labels:
            raise Refusal(422, f"no class {label!r}")
        results = await service.results(request, Looks(None if label is None else labels.index(label)))

        def entry(result: Any) -> dict[str, Any]:
            number, images = result
            addresses = map(render.jpeg_address, images)
            return {"label": labels[number], **dict(zip(("seen", "gradient", "grad_cam"), addresses, strict=True))}

        return _json({"explanations": await asyncio.to_thread(_entries, results, entry)})

    @router.post("/v1/maps", response_model=schema.LayerMaps, openapi_extra=schema.BODY)
    async def maps(request: Request, layer: Layer = "conv1") -> Response:
        """What a layer makes of each image, to look at."""
        results = await service.results(request, Features(check_choice(layer, layers, "layer")))
        return _json({"layer": layer, "maps": await asyncio.to_thread(_entries, results, render.tiles)})

    return router


def _things(service: Service, exhibits: Exhibits) -> APIRouter:
    """What is asked about the network and its data."""
    router = APIRouter(responses=schema.MISSING | {422: schema.REFUSALS[422]})

    @router.get("/v1/network", response_model=dict[str, Any], tags=["the network"])
    async def network() -> Response:
        """What this server has: the run, its network and classes, its data, and how far it has looked at them."""
        return _json(exhibits.network())

    @router.get(
        "/v1/units/{layer}/{unit}",
        response_model=dict[str, Any],
        tags=["the network"],
    )
    async def unit(layer: str, unit: Annotated[int, Path(ge=0, le=2**31)]) -> Response:
        """The images of the data that excite a kernel or unit most, as far as the server has looked at them."""
        return _json(exhibits.unit(layer, unit))

    @router.get(
        "/v1/units/{layer}/{unit}/optimized",
        response_class=Response,
        responses=schema.file_of("image/jpeg") | schema.LATER | {429: schema.REFUSALS[429]},
        tags=["the network"],
    )
    async def optimized(layer: str, unit: Annotated[int, Path(ge=0, le=2**31)]) -> Response:
        """An image made to excite a kernel or unit; seconds of work for the first who asks, who may be put off."""
        image = asyncio.shield(asyncio.wrap_future(exhibits.optimized(layer, unit)))
        try:
            file = await asyncio.wait_for(image, PUT_OFF)
        except (TimeoutError, asyncio.TimeoutError):
            return _json({"detail": "it is being made; ask again"}, 202, {"Retry-After": "1"})
        return Response(file, media_type="image/jpeg", headers=_KEPT)

    @router.get("/v1/kernels", response_class=Response, responses=schema.file_of("image/png"), tags=["the network"])
    async def kernels() -> Response:
        """The first-layer kernels (figure 3 of the paper) as tiles, 16 a row."""
        return Response(exhibits.kernels, media_type="image/png")

    @router.get(
        "/v1/mistakes",
        response_model=dict[str, Any],
        tags=["the data"],
    )
    async def mistakes(count: Annotated[int, Query(ge=1, le=200, description="how many")] = 24) -> Response:
        """The images of the test split that the network gets wrong, the surest first."""
        return _json(exhibits.mistakes(count))

    @router.get("/v1/samples", response_model=dict[str, Any], tags=["the data"])
    async def samples(count: Annotated[int, Query(ge=1, le=100, description="how many")] = 6) -> Response:
        """Some images of the test split, of all classes: something to try."""
        return _json({"images": exhibits.samples(count)})

    @router.get(
        "/v1/data/{split}/{position}",
        response_class=Response,
        responses=schema.file_of("image/jpeg"),
        tags=["the data"],
    )
    async def stored(split: str, position: Annotated[int, Path(ge=0, le=2**62)]) -> Response:
        """A prepared image of the data."""
        file = await asyncio.to_thread(exhibits.image, split, position)
        return Response(file, media_type="image/jpeg", headers=_KEPT)

    return router


def _server(service: Service) -> APIRouter:
    """What is asked about the server."""
    router = APIRouter(tags=["the server"])

    @router.get("/healthz", response_model=dict[str, str], responses={503: schema.REFUSALS[503]})
    async def healthz() -> Response:
        """Whether the network answers."""
        if not service.worker.alive:
            raise Refusal(503, "the network's thread has ended: start the server again")
        return _json({"status": "ok"})

    @router.get("/metrics", response_class=Response, responses=schema.file_of("text/plain"))
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(service.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _errors(app: FastAPI) -> None:
    """Every no has the form of a `Problem`."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        headers = {"Retry-After": "1"} if refusal.status in (429, 503) else {}
        return _json({"detail": refusal.reason}, refusal.status, headers)

    @app.exception_handler(UsageError)
    async def misnamed(_: Request, error: UsageError) -> Response:
        return _json({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def misspoken(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _json({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def nothing_here(_: Request, error: HTTPException) -> Response:
        return _json({"detail": str(error.detail)}, error.status_code, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        return _json({"detail": f"a fault of the server ({type(error).__name__}): its log has more"}, 500)


_KEPT = {"Cache-Control": "max-age=3600"}


class _Measured:
    """Around all: how long, how often, and headers that keep a page from elsewhere out."""

    HEADERS = (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (
            b"content-security-policy",
            b"default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; "
            b"base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
        ),
    )

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self.app, self.measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self.HEADERS]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = scope.get("route")
            self.measures.request(getattr(route, "path", "other"), status, time.perf_counter() - start)


def _prediction(top: list[tuple[str, float]]) -> dict[str, Any]:
    label, probability = top[0]
    answers = [{"label": name, "probability": share} for name, share in top]
    return {"label": label, "probability": probability, "top": answers}


def _entries(results: list[Result], entry: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"source": name, "error": {"status": result.status, "reason": result.reason}}
        if isinstance(result, Refusal)
        else {"source": name, **entry(result)}
        for name, result in results
    ]


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(content, status, headers, "application/json")
