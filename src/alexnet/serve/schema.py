"""What answers consist of, for the OpenAPI document."""

from typing import Any

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class ImageError(BaseModel):
    """Why one of several images has no result."""

    status: int = Field(description="the status that it would have had alone: 413, 415 or 422")
    reason: str


class Entry(BaseModel):
    """What every entry has: the name that the image was sent under, and an error where it has no result."""

    source: str
    error: ImageError | None = None


class Answer(BaseModel):
    """A class and its probability, 0 to 1."""

    label: str
    probability: float


class Prediction(Entry):
    """The most probable classes, falling."""

    label: str | None = None
    probability: float | None = None
    top: list[Answer] | None = None


class Predictions(BaseModel):
    predictions: list[Prediction]


class ImageFeatures(Entry):
    """The activations of the layer, row by row."""

    shape: list[int] | None = None
    values: list[float] | None = None


class LayerFeatures(BaseModel):
    layer: str
    features: list[ImageFeatures]


class StoredImage(BaseModel):
    """An image of the data: its split and position there, its class, its name in the source, its address."""

    split: str
    position: int
    label: str
    name: str
    address: str


class Neighbor(StoredImage):
    """With the Euclidean distance in fc7."""

    distance: float


class ImageNeighbors(Entry):
    nearest: list[Neighbor] | None = None


class Neighbors(BaseModel):
    neighbors: list[ImageNeighbors]


class Explanation(Entry):
    """Three images as addresses of data: what the network reads, and over it the gradient and Grad-CAM."""

    label: str | None = None
    seen: str | None = None
    gradient: str | None = None
    grad_cam: str | None = None


class Explanations(BaseModel):
    explanations: list[Explanation]


class ImageMaps(Entry):
    """The maps as one PNG of tiles, `columns` a row, and the peak of each; of units (no convolution) one square."""

    shape: list[int] | None = None
    columns: int | None = None
    image: str | None = None
    peaks: list[float] | None = None


class LayerMaps(BaseModel):
    layer: str
    maps: list[ImageMaps]


BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
Responses = dict[int | str, dict[str, Any]]

REFUSALS: Responses = {
    400: {"model": Problem, "description": "The request is no HTTP that can be read"},
    408: {"model": Problem, "description": "The body did not arrive in time"},
    413: {"model": Problem, "description": "Too many bytes, or an image of too many pixels"},
    415: {"model": Problem, "description": "Not an image"},
    422: {"model": Problem, "description": "A damaged image, or a parameter that makes no sense"},
    429: {"model": Problem, "description": "Too much is under way: try again"},
    503: {"model": Problem, "description": "No answer in time, or not ready: try again"},
}
LATER: Responses = {202: {"model": Problem, "description": "It is being made: ask again"}}
MISSING: Responses = {404: {"model": Problem, "description": "There is nothing here"}}


def file_of(kind: str) -> Responses:
    """The answer is a file."""
    return {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}}}
