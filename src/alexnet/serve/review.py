"""The page to go through suspects of wrong labels: `alexnet labels CV --serve`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alexnet.data.corrections import CHANGE, DROP, KEEP, Correction
from alexnet.data.dataset import Split
from alexnet.inspection.label_decisions import LabelDecisions
from alexnet.inspection.labels import DECISIONS, LabelErrors, Suspect
from alexnet.report.rendering import asset
from alexnet.runtime.errors import AlexNetError
from alexnet.serve import render
from alexnet.serve.access import SECURITY_HEADERS, Access, chosen_token, local_hosts
from alexnet.serve.pages import MEDIA_TYPES
from alexnet.serve.server import bound_socket, run_app, url_of

SHOWN_NEIGHBORS = 6
SHARED = ("language.js", "api.js", "elements.js", "page.css")
"""Files of the page of `alexnet serve` that this page uses."""
LARGEST_BODY = 10_000


def serve_review(
    found: LabelErrors,
    *,
    top: int | None = None,
    file: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8001,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; prints its URL, with the token, on stdout when ready.

    Parameters
    ----------
    found : LabelErrors
        The suspects.
    top : int, optional
        Number of suspects, as in `LabelErrors.first`.
    file : str or path, optional
        The file of the decisions; ``labels.csv`` in the folder of the cross-validation by default.
    host : str
        Address to bind.
    port : int
        Port to bind; 0 selects a free port.

    Raises
    ------
    AlexNetError
        If the port cannot be bound, or the file of the decisions cannot be opened.
    """
    with bound_socket(host, port) as listener:
        token = chosen_token()
        decisions = LabelDecisions(Path(file) if file is not None else found.path / DECISIONS)
        try:
            app = review_app(found, decisions, token, top=top)
            hosts = local_hosts(host, listener.getsockname()[1])
            guarded = Access(app, token, hosts=hosts, header_for_writes=True)
            run_app(guarded, listener, url_of(listener, token))
        finally:
            decisions.close()


def review_app(found: LabelErrors, decisions: LabelDecisions, token: str, *, top: int | None = None) -> ASGIApp:
    """The application behind `Access`: its page, images, and the two routes that write."""
    suspects = found.first(top)
    by_position = {suspect.index: suspect for suspect in suspects}
    position_of = {suspect.path: suspect.index for suspect in suspects}
    split, classes = found.dataset.split("train"), found.dataset.classes
    page = files(__package__).joinpath("review_page")
    known = {entry.name: entry.read_bytes() for entry in page.iterdir() if entry.is_file()}
    known |= {name: files(__package__).joinpath("page").joinpath(name).read_bytes() for name in SHARED}
    known["report.css"] = asset("report.css").encode()
    known["index.html"] = known["index.html"].replace(b"{token}", token.encode())
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Headers)

    @app.exception_handler(AlexNetError)
    async def failed(_: Request, error: AlexNetError) -> Response:
        return _json({"detail": str(error)}, 500)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return _json({"detail": str(error.detail)}, error.status_code)

    @app.get("/")
    async def index() -> Response:
        return Response(known["index.html"], media_type="text/html; charset=utf-8")

    @app.get("/page/{name}")
    async def part(name: str) -> Response:
        if name not in known or name == "index.html":
            raise HTTPException(404, "not found")
        return Response(known[name], media_type=f"{MEDIA_TYPES[name.rpartition('.')[2]]}; charset=utf-8")

    @app.get("/v1/images/{position}")
    def image(position: int) -> Response:
        if not 0 <= position < len(split):
            raise HTTPException(404, "no such image")
        return Response(render.jpeg(split[position][0]), media_type="image/jpeg")

    @app.get("/v1/review")
    def review() -> Response:
        """The suspects with what is shown of them, and the decisions so far."""
        made = [(position_of[path], one) for path, one in decisions.made.items() if path in position_of]
        return _json(
            {
                "classes": classes,
                "file": str(decisions.file),
                "expected": found.expected,
                "images": len(found.suspects),
                "suspects": [_shown(suspect, split, classes) for suspect in suspects],
                "decisions": {str(position): {"decision": one.decision, "label": one.label} for position, one in made},
            }
        )

    @app.post("/v1/decisions")
    async def decide(request: Request) -> Response:
        """Record a decision about a suspect: {"position", "decision", "label"}."""
        correction = _correction(await _body(request), by_position, classes)
        await run_in_threadpool(decisions.decide, correction)
        return _json({"decision": correction.decision, "label": correction.label})

    @app.post("/v1/undo")
    async def undo(request: Request) -> Response:
        """Take back the last decision; answers with the position of its image, null if it is none of the suspects."""
        await _body(request)
        path = await run_in_threadpool(decisions.undo)
        if path is None:
            raise HTTPException(409, "there is no decision to undo")
        before = decisions.made.get(path)
        earlier = None if before is None else {"decision": before.decision, "label": before.label}
        return _json({"position": position_of.get(path), "path": path, "decision": earlier})

    return app


def _shown(suspect: Suspect, split: Split, classes: Sequence[str]) -> dict[str, Any]:
    """A suspect as the page shows it."""
    names = ("path", "label", "suggested", "disagreement", "probabilities")
    return {
        "position": suspect.index,
        **{name: getattr(suspect, name) for name in names},
        "neighbors": [
            {"position": near.position, "label": classes[int(split.labels[near.position])]}
            for near in suspect.neighbors[:SHOWN_NEIGHBORS]
        ],
    }


def _correction(body: Mapping[str, Any], suspects: Mapping[int, Suspect], classes: Sequence[str]) -> Correction:
    """The decision of a request; raises `HTTPException` 422 where it is none about a suspect."""
    position, decision = body.get("position"), body.get("decision")
    suspect = suspects.get(position) if isinstance(position, int) else None
    if suspect is None:
        raise HTTPException(422, "position: no suspect with this position")
    if decision not in (KEEP, CHANGE, DROP):
        raise HTTPException(422, f"decision: it is {KEEP}, {CHANGE} or {DROP}")
    label = {KEEP: suspect.label, DROP: ""}.get(decision, body.get("label"))
    if decision != DROP and label not in classes:
        raise HTTPException(422, "label: no such class")
    if decision == CHANGE and label == suspect.label:
        decision = KEEP
    return Correction(suspect.path, suspect.label, decision, label or "")


class _Headers:
    """Adds the security headers to every answer, and forbids caches: the page contains the token."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SECURITY_HEADERS, (b"cache-control", b"no-store")]
            await send(message)

        await self.app(scope, receive, send_with_headers)


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Only that type is accepted: a form of another site cannot send it."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the body must be application/json")
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_BODY:
            raise HTTPException(413, "the body is too large")
    try:
        body = json.loads(content or b"{}")
    except ValueError:
        raise HTTPException(422, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise HTTPException(422, "the body is not a JSON object")
    return body


def _json(value: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), status, media_type="application/json"
    )
