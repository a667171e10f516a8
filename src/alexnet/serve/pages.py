"""The web page, its files, and the documentation of the API. All files are read once, and served by name."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from markupsafe import Markup

from alexnet.report.rendering import asset, code_spans, environment
from alexnet.serve.explorer import Explorer
from alexnet.serve.limits import RequestError

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def pages(app: FastAPI, explorer: Explorer) -> APIRouter:
    """Return the routes of the page and of the documentation."""
    router = APIRouter(include_in_schema=False)
    known = {file.name: file.read_bytes() for file in files(__package__).joinpath("page").iterdir() if file.is_file()}
    known["network.svg"] = explorer.drawing.encode()
    known["report.css"] = asset("report.css").encode()  # the page shares the style of the report

    def file(name: str) -> Response:
        if name not in known:
            raise RequestError(404, "not found")
        kind = MEDIA_TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        return Response(known[name], media_type=f"{kind}; charset=utf-8", headers={"Cache-Control": "no-cache"})

    @router.get("/")
    async def page() -> Response:
        return file("index.html")

    @router.get("/page/{name}")
    async def part(name: str) -> Response:
        return file(name)

    @router.get("/docs")
    async def docs() -> Response:
        return Response(documentation(app.openapi()), media_type="text/html; charset=utf-8")

    return router


def documentation(document: dict[str, Any]) -> str:
    """Render an OpenAPI document as HTML: the parameters, bodies and answers of each operation.

    Parameters
    ----------
    document
        An OpenAPI document, as `FastAPI.openapi` returns it.

    Returns
    -------
    str
        The whole page.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(document, path, method, operation))
    template = environment("alexnet.serve").get_template("docs.html")
    info = document["info"]
    return template.render(info=info, description=_paragraphs(info["description"]), groups=groups)


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": path,
        "method": method,
        "summary": operation.get("description", operation["summary"]),
        "bodies": list(operation.get("requestBody", {}).get("content", {})),
        "parameters": [_parameter(parameter) for parameter in operation.get("parameters", [])],
        "responses": [_response(document, status, response) for status, response in operation["responses"].items()],
    }


def _parameter(parameter: dict[str, Any]) -> dict[str, str]:
    schema = parameter["schema"]
    kind = schema.get("type") or " or ".join(one["type"] for one in schema.get("anyOf", [{"type": "value"}]))
    default = f", default {schema['default']}" if "default" in schema else ""
    return {
        "name": parameter["name"],
        "description": parameter.get("description", ""),
        "kind": f"{parameter['in']}, {kind}{default}",
    }


def _response(document: dict[str, Any], status: str, response: dict[str, Any]) -> dict[str, str]:
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema")
    example = ""
    if schema is not None and status == "200":
        example = json.dumps(_example(document, schema), indent=1, ensure_ascii=False)
    description = ", ".join(content) if status == "200" else response["description"]
    return {"status": status, "description": description, "example": example}


def _example(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """A value of this schema, with types in place of its values."""
    if "$ref" in schema:
        return _example(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return _example(document, schema["anyOf"][0])
    if "properties" in schema:
        return {name: _example(document, part) for name, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_example(document, schema["items"])]
    return schema.get("type", "…")


def _paragraphs(text: str) -> Markup:
    """Paragraphs, indented ones as code blocks, and text between backticks as code."""
    parts = []
    for part in text.strip().split("\n\n"):
        is_code = all(line.startswith("    ") for line in part.splitlines())
        lines = "\n".join(line.strip() for line in part.splitlines())
        parts.append(
            Markup("<pre>{}</pre>").format(lines) if is_code else Markup("<p>{}</p>").format(code_spans(lines))
        )
    return Markup("").join(parts)
