"""The models of requests and answers in the OpenAPI document."""

from typing import Any

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Why a request was rejected."""

    detail: str


class ImageError(BaseModel):
    """Why an image has no result."""

    status: int = Field(description="HTTP status of the same image sent alone: 413, 415 or 422")
    reason: str


class Entry(BaseModel):
    """The name that the image was sent under, and an error if it has no result."""

    source: str
    error: ImageError | None = None


class ClassProbability(BaseModel):
    """A class and its probability, 0 to 1."""

    label: str
    probability: float


class Prediction(Entry):
    """The decision (class, unsure or unknown), its class, and the most probable classes in descending order."""

    decision: str | None = None
    distance: float | None = Field(default=None, description="distance from the training images, where the rule has it")
    label: str | None = None
    probability: float | None = None
    top: list[ClassProbability] | None = None


class Predictions(BaseModel):
    predictions: list[Prediction]


class ImageFeatures(Entry):
    """The activations of the layer, in row-major order."""

    shape: list[int] | None = None
    values: list[float] | None = None


class LayerFeatures(BaseModel):
    layer: str
    features: list[ImageFeatures]


class StoredImage(BaseModel):
    """An image of the dataset: its split, its position there, its class, its file name in the source, and its URL."""

    split: str
    position: int
    label: str
    name: str
    url: str


class Neighbor(StoredImage):
    """An image of the dataset, and its Euclidean distance in the feature layer."""

    distance: float


class ImageNeighbors(Entry):
    nearest: list[Neighbor] | None = None


class Neighbors(BaseModel):
    neighbors: list[ImageNeighbors]


class Explanation(Entry):
    """Three images as `data:` URLs: the network input, and over it the gradient and Grad-CAM."""

    label: str | None = None
    input: str | None = None
    gradient: str | None = None
    grad_cam: str | None = None


class Explanations(BaseModel):
    explanations: list[Explanation]


class ImageMaps(Entry):
    """The feature maps as one PNG of tiles, `columns` per row, and the peak of each; units are one square."""

    shape: list[int] | None = None
    columns: int | None = None
    image: str | None = None
    peaks: list[float] | None = None


class LayerMaps(BaseModel):
    layer: str
    feature_maps: list[ImageMaps]


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

ERRORS: Responses = {
    400: {"model": Problem, "description": "The request is incomplete"},
    408: {"model": Problem, "description": "The body did not arrive in time"},
    413: {"model": Problem, "description": "Too many bytes, or an image of too many pixels"},
    415: {"model": Problem, "description": "Not an image"},
    422: {"model": Problem, "description": "A damaged image, or an invalid parameter"},
    429: {"model": Problem, "description": "The queue is full: try again"},
    503: {"model": Problem, "description": "The result is not ready in time: try again"},
}
ACCEPTED: Responses = {202: {"model": Problem, "description": "The image is being computed: try again"}}
NOT_FOUND: Responses = {404: {"model": Problem, "description": "Not found"}}


def file_of(kind: str) -> Responses:
    """Describe an answer that is a file of a media type."""
    return {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}}}
