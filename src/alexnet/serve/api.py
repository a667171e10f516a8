"""The HTTP API: its routes, its errors, and its OpenAPI document."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alexnet import __version__
from alexnet.evaluation.views import VIEWS, list_views
from alexnet.prediction.classifier import Prediction
from alexnet.runtime.errors import UsageError, check_choice
from alexnet.serve import render, schema
from alexnet.serve.access import SECURITY_HEADERS
from alexnet.serve.counters import ServerMetrics
from alexnet.serve.explorer import Explorer
from alexnet.serve.limits import RequestError
from alexnet.serve.pages import pages
from alexnet.serve.service import Result, Service
from alexnet.serve.tasks import Answers, Attribution, Features

DESCRIPTION = """
Send images as `multipart/form-data` with field `file`, one or several, or a single image as the body of the request:

    curl -F file=@one.jpg -F file=@two.png {address}/v1/predict
    curl --data-binary @one.jpg -H 'Content-Type: image/jpeg' {address}/v1/predict

The answer has one entry per image, in the order sent. An image that cannot be read has an `error` instead of a result;
the other images are processed. If no image can be read, the status of the answer is that of the first error: 413 (too
many bytes or pixels), 415 (not an image) or 422 (damaged). The server answers 429 if its queue is full and 503 if the
result is not ready in time; both have a `Retry-After` header.
"""


OPTIMIZATION_WAIT = 10.0
"""Seconds until a request for an image that is still being optimized is answered with 202."""
MAX_VALUES = 2_000_000
"""Most values in an answer of `/v1/features`, about 40 MB of JSON."""

_CACHED = {"Cache-Control": "max-age=3600"}
_log = logging.getLogger("uvicorn.error")


def api(service: Service, explorer: Explorer) -> FastAPI:
    """Create the application; it starts the explorer, and closes the service and the explorer at its end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        explorer.start()
        yield
        await asyncio.to_thread(service.close)
        await asyncio.to_thread(explorer.close)

    app = FastAPI(
        title="AlexNet",
        version=__version__,
        summary=f"Image classification: {explorer.title}",
        description=DESCRIPTION.format(address="http://127.0.0.1:8000"),
        docs_url=None,  # FastAPI's own pages load scripts from other servers
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(_image_routes(service, explorer))
    app.include_router(_network_routes(explorer))
    app.include_router(_server_routes(service))
    app.include_router(pages(app, explorer))
    _add_error_handlers(app)
    app.add_middleware(_Middleware, metrics=service.metrics)
    return app


def _image_routes(service: Service, explorer: Explorer) -> APIRouter:
    """Routes that take images."""
    router = APIRouter(tags=["images"], responses=schema.ERRORS)
    classifier = service.classifier
    network, labels = classifier.network, classifier.labels
    layers = network.layer_names()
    Layer = Annotated[str, Query(description="name of a layer", json_schema_extra={"enum": layers})]
    Views = Annotated[
        int | None,
        Query(
            description=f"{list_views()} (default: that of the decision rule, else 1)",
            json_schema_extra={"enum": list(VIEWS)},
        ),
    ]

    @router.post("/v1/predict", response_model=schema.Predictions, openapi_extra=schema.BODY)
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=1000, description="number of classes")] = 5,
        views: Views = None,
        raw: Annotated[bool, Query(description="ignore the decision rule of the run")] = False,
    ) -> Response:
        """The decision on each image, and its most probable classes."""
        results = await service.results(request, Answers(classifier.choose_views(views, raw=raw), raw))
        entries = _entries(results, lambda answer: _prediction(classifier.prediction("", answer, top)))
        return _json({"predictions": entries})

    @router.post("/v1/features", response_model=schema.LayerFeatures, openapi_extra=schema.BODY)
    async def features(request: Request, layer: Layer = network.feature_layer) -> Response:
        """The activations of a layer. Distances in the default layer measure similarity (section 6.1 of the paper)."""
        results = await service.results(request, Features(check_choice(layer, layers, "layer")))
        count = sum(result.size for _, result in results if not isinstance(result, RequestError))
        if count > MAX_VALUES:
            raise RequestError(
                413, f"the answer has {count:,} values, more than the limit of {MAX_VALUES:,}: send fewer images"
            )
        entries = await asyncio.to_thread(
            _entries, results, lambda values: {"shape": list(values.shape), "values": values.ravel().tolist()}
        )
        return await asyncio.to_thread(_json, {"layer": layer, "features": entries})

    @router.post(
        "/v1/neighbors",
        response_model=schema.Neighbors,
        responses=schema.NOT_FOUND,
        openapi_extra=schema.BODY,
    )
    async def neighbors(
        request: Request, k: Annotated[int, Query(ge=1, le=100, description="number of neighbors")] = 6
    ) -> Response:
        """The training images nearest to each image, by Euclidean distance in the feature layer (fc7)."""
        index = explorer.index()
        results = await service.results(request, Features())
        entries = await asyncio.to_thread(
            _entries, results, lambda values: {"nearest": explorer.nearest(index, values, k)}
        )
        return _json({"neighbors": entries})

    @router.post("/v1/explain", response_model=schema.Explanations, openapi_extra=schema.BODY)
    async def explain(
        request: Request,
        label: Annotated[str | None, Query(description="class to explain (default: the most probable)")] = None,
    ) -> Response:
        """Attribution of a class to the pixels of each image: input gradient and Grad-CAM."""
        if label is not None and label not in labels:
            raise RequestError(422, f"unknown class {label!r}")
        results = await service.results(request, Attribution(None if label is None else labels.index(label)))

        def entry(result: Any) -> dict[str, Any]:
            number, images = result
            urls = map(render.jpeg_url, images)
            return {"label": labels[number], **dict(zip(("input", "gradient", "grad_cam"), urls, strict=True))}

        return _json({"explanations": await asyncio.to_thread(_entries, results, entry)})

    @router.post("/v1/feature-maps", response_model=schema.LayerMaps, openapi_extra=schema.BODY)
    async def feature_maps(request: Request, layer: Layer = network.first_convolution) -> Response:
        """The feature maps of a layer for each image, as a PNG of tiles."""
        results = await service.results(request, Features(check_choice(layer, layers, "layer")))
        return _json({"layer": layer, "feature_maps": await asyncio.to_thread(_entries, results, render.tiles)})

    return router


def _network_routes(explorer: Explorer) -> APIRouter:
    """Routes about the network and its dataset."""
    router = APIRouter(responses=schema.NOT_FOUND | {422: schema.ERRORS[422]})

    @router.get("/v1/network", response_model=dict[str, Any], tags=["network"])
    async def network() -> Response:
        """The run, its network, classes and dataset, and the progress of the scan of the dataset."""
        return _json(explorer.network())

    @router.get("/v1/units/{layer}/{unit}", response_model=dict[str, Any], tags=["network"])
    async def unit(layer: str, unit: Annotated[int, Path(ge=0, le=2**31)]) -> Response:
        """The training images with the largest activations of a unit, among those scanned so far."""
        return _json(explorer.unit(layer, unit))

    @router.get(
        "/v1/units/{layer}/{unit}/optimized",
        response_class=Response,
        responses=schema.file_of("image/jpeg") | schema.ACCEPTED | {429: schema.ERRORS[429]},
        tags=["network"],
    )
    async def optimized(layer: str, unit: Annotated[int, Path(ge=0, le=2**31)]) -> Response:
        """An image optimized to maximize the activation of a unit; 202 while it is being computed."""
        image = asyncio.shield(asyncio.wrap_future(explorer.optimized(layer, unit)))
        try:
            file = await asyncio.wait_for(image, OPTIMIZATION_WAIT)
        except (TimeoutError, asyncio.TimeoutError):
            return _json({"detail": "the image is being optimized; try again"}, 202, {"Retry-After": "1"})
        return Response(file, media_type="image/jpeg", headers=_CACHED)

    @router.get("/v1/kernels", response_class=Response, responses=schema.file_of("image/png"), tags=["network"])
    async def kernels() -> Response:
        """The first-layer kernels (figure 3 of the paper) as a PNG of tiles, 16 per row."""
        return Response(explorer.kernels, media_type="image/png")

    @router.get("/v1/mistakes", response_model=dict[str, Any], tags=["dataset"])
    async def mistakes(count: Annotated[int, Query(ge=1, le=200, description="number of images")] = 24) -> Response:
        """The most confident mistakes on the test split."""
        return _json(explorer.mistakes(count))

    @router.get("/v1/samples", response_model=dict[str, Any], tags=["dataset"])
    async def samples(count: Annotated[int, Query(ge=1, le=100, description="number of images")] = 6) -> Response:
        """Some images of the test split, of all classes."""
        return _json({"images": explorer.samples(count)})

    @router.get(
        "/v1/data/{split}/{position}",
        response_class=Response,
        responses=schema.file_of("image/jpeg"),
        tags=["dataset"],
    )
    async def stored(split: str, position: Annotated[int, Path(ge=0, le=2**62)]) -> Response:
        """A prepared image of the dataset."""
        file = await asyncio.to_thread(explorer.image, split, position)
        return Response(file, media_type="image/jpeg", headers=_CACHED)

    return router


def _server_routes(service: Service) -> APIRouter:
    """Routes about the server."""
    router = APIRouter(tags=["server"])

    @router.get("/healthz", response_model=dict[str, str], responses={503: schema.ERRORS[503]})
    async def healthz() -> Response:
        """Whether the server can process images."""
        if not service.worker.alive:
            raise RequestError(503, "the thread of the network has ended: restart the server")
        return _json({"status": "ok"})

    @router.get("/metrics", response_class=Response, responses=schema.file_of("text/plain"))
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _add_error_handlers(app: FastAPI) -> None:
    """Give every error the form of `schema.Problem`."""

    @app.exception_handler(RequestError)
    async def request_error(_: Request, error: RequestError) -> Response:
        headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
        return _json({"detail": error.reason}, error.status, headers)

    @app.exception_handler(UsageError)
    async def usage_error(_: Request, error: UsageError) -> Response:
        return _json({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _json({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return _json({"detail": str(error.detail)}, error.status_code, dict(error.headers or {}))


class _Middleware:
    """Records every request, adds security headers, and answers an unexpected exception with 500.

    The exception ends here: passed on to uvicorn, it would close the connection and fail the client's next request.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            if status:  # part of the answer is sent already
                raise
            _log.exception("internal error at %s", scope["path"])
            detail = f"internal error ({type(error).__name__}); see the server's log"
            await _json({"detail": detail}, 500)(scope, receive, send_with_headers)
        finally:
            route = scope.get("route")
            self.metrics.record_request(getattr(route, "path", "other"), status or 500, time.perf_counter() - start)


def _prediction(prediction: Prediction) -> dict[str, Any]:
    values = prediction.to_dict()
    del values["source"]
    return values


def _entries(results: list[Result], entry: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"source": name, "error": {"status": result.status, "reason": result.reason}}
        if isinstance(result, RequestError)
        else {"source": name, **entry(result)}
        for name, result in results
    ]


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(content, status, headers, "application/json")
