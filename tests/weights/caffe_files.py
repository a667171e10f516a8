"""Caffe's files, written byte by byte from the published caffe.proto."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

OLD_TYPES = {"Convolution": 4, "Dropout": 6, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18, "Softmax": 20}

# name, type, what is below, settings
Row = tuple[str, str, dict[str, float]]
NORM = {"local_size": 5, "alpha": 0.0001, "beta": 0.75}


def rows(pool_first: bool, classes: int) -> list[Row]:
    """deploy.prototxt of bvlc_alexnet, or with `pool_first` of bvlc_reference_caffenet."""

    def conv(number: int, **settings: float) -> list[Row]:
        return [(f"conv{number}", "Convolution", settings), (f"relu{number}", "ReLU", {})]

    def reduced(number: int) -> list[Row]:
        norm: Row = (f"norm{number}", "LRN", dict(NORM))
        pool: Row = (f"pool{number}", "Pooling", {"kernel_size": 3, "stride": 2})
        return [pool, norm] if pool_first else [norm, pool]

    return [
        *conv(1, num_output=96, kernel_size=11, stride=4),
        *reduced(1),
        *conv(2, num_output=256, pad=2, kernel_size=5, group=2),
        *reduced(2),
        *conv(3, num_output=384, pad=1, kernel_size=3),
        *conv(4, num_output=384, pad=1, kernel_size=3, group=2),
        *conv(5, num_output=256, pad=1, kernel_size=3, group=2),
        ("pool5", "Pooling", {"kernel_size": 3, "stride": 2}),
        *[("fc6", "InnerProduct", {"num_output": 4096}), ("relu6", "ReLU", {}), ("drop6", "Dropout", {})],
        *[("fc7", "InnerProduct", {"num_output": 4096}), ("relu7", "ReLU", {}), ("drop7", "Dropout", {})],
        ("fc8", "InnerProduct", {"num_output": classes}),
    ]


def arrays(seed: int, classes: int) -> dict[str, list[np.ndarray]]:
    """Random weights and biases of every layer, of the size that keeps activations alive."""
    rng = np.random.default_rng(seed)
    shapes = {
        **{"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3)},
        **{"conv4": (384, 192, 3, 3), "conv5": (256, 192, 3, 3)},
        **{"fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (classes, 4096)},
    }
    block = rng.standard_normal(99_991, dtype=np.float32)  # repeated: the tests are not about chance
    result = {}
    for name, shape in shapes.items():
        weight = np.resize(block, shape)
        weight *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        result[name] = [weight, rng.standard_normal(shape[0], dtype=np.float32) / 10]
    return result


def prototxt(network: Sequence[Row]) -> str:
    """The same network as text, which some engines require beside the weights."""
    parameters = {"Convolution": "convolution_param", "InnerProduct": "inner_product_param", "LRN": "lrn_param"}
    parameters |= {"Pooling": "pooling_param"}
    lines = ['name: "network"', 'input: "data"', "input_shape { dim: 1 dim: 3 dim: 227 dim: 227 }"]
    below = "data"
    for name, kind, settings in network:
        top = below if kind in ("ReLU", "Dropout") else name
        inside = " ".join(f"{key}: {value}" for key, value in settings.items())
        inside = f"{parameters[kind]} {{ {inside} }}" if kind in parameters else ""
        lines.append(f'layer {{ name: "{name}" type: "{kind}" bottom: "{below}" top: "{top}" {inside} }}')
        below = top
    return "\n".join(lines)


def caffemodel(network: Sequence[Row], weights: Mapping[str, Sequence[np.ndarray]], old: bool) -> bytes:
    """A NetParameter with `layers` (V1LayerParameter, 4-D blobs) when `old`, else with `layer` (LayerParameter)."""
    parts = [text(1, "network")]
    for name, kind, settings in network:
        blobs = [blob(array, old) for array in weights.get(name, ())]
        norm = b""
        if kind == "LRN":
            norm = varint_field(1, int(settings["local_size"])) + float_field(2, settings["alpha"])
            norm = message(18 if old else 118, norm + float_field(3, settings["beta"]))
        if old:
            layer = text(4, name) + varint_field(5, OLD_TYPES[kind]) + b"".join(message(6, one) for one in blobs)
        else:
            layer = text(1, name) + text(2, kind) + b"".join(message(7, one) for one in blobs)
        parts.append(message(2 if old else 100, layer + norm))
    return b"".join(parts)


def blob(array: np.ndarray, old: bool) -> bytes:
    """A BlobProto: with num, channels, height and width when `old`, else with a shape."""
    if old:
        sides = [1] * (4 - array.ndim) + list(array.shape)
        head = b"".join(varint_field(number, side) for number, side in enumerate(sides, 1))
    else:
        head = message(7, message(1, b"".join(varint(side) for side in array.shape)))
    return head + message(5, array.astype("<f4").tobytes())


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def varint_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def float_field(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def text(number: int, value: str) -> bytes:
    return message(number, value.encode())
