"""The page and what it is made of, and the API's documentation. All is read once, and known by name."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Response

from alexnet.report.rendering import asset, code_spans
from alexnet.serve.explorer import Exhibits
from alexnet.serve.limits import Refusal

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def pages(app: FastAPI, exhibits: Exhibits) -> APIRouter:
    """The addresses that are no part of the API."""
    router = APIRouter(include_in_schema=False)
    known = {file.name: file.read_bytes() for file in files(__package__).joinpath("page").iterdir() if file.is_file()}
    known["network.svg"] = exhibits.drawing.encode()
    known["report.css"] = asset("alexnet.report", "report.css").encode()  # the page shares the style of the report

    def file(name: str) -> Response:
        if name not in known:
            raise Refusal(404, "there is nothing here")
        kind = KINDS.get(name.rpartition(".")[2], "application/octet-stream")
        return Response(known[name], media_type=f"{kind}; charset=utf-8", headers={"Cache-Control": "no-cache"})

    @router.get("/")
    async def page() -> Response:
        return file("index.html")

    @router.get("/page/{name}")
    async def part(name: str) -> Response:
        return file(name)

    @router.get("/docs")
    async def docs() -> Response:
        document = documentation(app.openapi(), known["docs.html"].decode())
        return Response(document, media_type="text/html; charset=utf-8")

    return router


def documentation(document: dict[str, Any], frame: str) -> str:
    """An OpenAPI document for people, as HTML within `frame`: what goes in and comes out of each operation."""
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(document, path, method, operation))
    info = document["info"]
    values = {
        "title": escape(info["title"]),
        "summary": escape(info["summary"]),
        "version": escape(info["version"]),
        "description": _paragraphs(info["description"]),
        "operations": "".join(
            f"<section><h2>{escape(name)}</h2>{''.join(parts)}</section>" for name, parts in groups.items()
        ),
    }
    for name, value in values.items():
        frame = frame.replace(f"${name}", value)
    return frame


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = "".join(_parameter(parameter) for parameter in operation.get("parameters", []))
    body = operation.get("requestBody", {}).get("content", {})
    takes = f"<p>Takes {', '.join(f'<code>{escape(kind)}</code>' for kind in body)}.</p>" if body else ""
    responses = "".join(_response(document, status, response) for status, response in operation["responses"].items())
    return (
        f'<details class="card"><summary><b class="{method}">{method.upper()}</b> <code>{escape(path)}</code> '
        f"<span>{escape(operation.get('description', operation['summary']))}</span></summary>{takes}"
        + (f"<table><tbody>{parameters}</tbody></table>" if parameters else "")
        + f"<table><tbody>{responses}</tbody></table></details>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    default = f", default {schema['default']}" if "default" in schema else ""
    kind = schema.get("type") or " or ".join(one["type"] for one in schema.get("anyOf", [{"type": "value"}]))
    words = parameter.get("description", "")
    return (
        f"<tr><th><code>{escape(parameter['name'])}</code></th>"
        f"<td>{escape(words)} <small>{parameter['in']}, {escape(kind + str(default))}</small></td></tr>"
    )


def _response(document: dict[str, Any], status: str, response: dict[str, Any]) -> str:
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema")
    example = ""
    if schema is not None and status == "200":
        text = json.dumps(_example(document, schema), indent=1, ensure_ascii=False)
        example = f"<pre>{escape(text)}</pre>"
    words = ", ".join(kind for kind in content) if status == "200" else response["description"]
    return f"<tr><th>{escape(status)}</th><td>{escape(words)}{example}</td></tr>"


def _example(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """What a value of this schema looks like, with the kinds of its parts in place of values."""
    if "$ref" in schema:
        return _example(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return _example(document, schema["anyOf"][0])
    if "properties" in schema:
        return {name: _example(document, part) for name, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_example(document, schema["items"])]
    return schema.get("type", "…")


def _paragraphs(text: str) -> str:
    parts = []
    for part in text.strip().split("\n\n"):
        code = all(line.startswith("    ") for line in part.splitlines())
        lines = "\n".join(line.strip() for line in part.splitlines())
        parts.append(f"<pre>{escape(lines)}</pre>" if code else f"<p>{code_spans(lines)}</p>")
    return "".join(parts)
