"""The tables of AlexNet's neighbors: LeNet-5 before it, VGG and ResNet after it. This module does not import torch."""

from __future__ import annotations

from alexnet.network.rows import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    FullyConnected,
    GlobalPool,
    Grayscale,
    Layer,
    Pool,
    RadialBasis,
    Residual,
)

_OUTPUT = FullyConnected("logits", None)

LENET5_CONNECTIONS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
"""For each of the 16 kernels of conv2 (C3) the feature maps of pool1 (S2) that it reads.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998), table I.
"""


def lenet5_1998() -> tuple[Layer, ...]:
    """LeNet-5 as published (LeCun et al. 1998, section II.B): C1, S2, C3, S4, C5, F6 and the output layer.

    The codes of the output layer are drawn at random, which the paper names as an alternative to its drawings of the
    digits.
    """

    def squashed(number: int) -> Activation:
        return Activation(f"tanh{number}", kind="scaled-tanh")

    def subsampled(number: int) -> tuple[Layer, ...]:
        pool = Pool(f"pool{number}", size=2, average=True, trainable=True)
        return pool, Activation(f"tanh_pool{number}", kind="scaled-tanh")

    return (
        Grayscale("gray"),
        *(Conv("conv1", 6, 5), squashed(1), *subsampled(1)),
        *(Conv("conv2", 16, 5, connections=LENET5_CONNECTIONS), squashed(2), *subsampled(2)),
        *(Conv("conv3", 120, 5), squashed(3)),
        *(FullyConnected("fc4", 84), squashed(4)),
        RadialBasis("logits"),
    )


def lenet5() -> tuple[Layer, ...]:
    """LeNet-5 as Caffe's examples and most textbooks have it: 20 and 50 kernels, max pooling, one ReLU."""
    return (
        Grayscale("gray"),
        *(Conv("conv1", 20, 5), Pool("pool1", size=2)),
        *(Conv("conv2", 50, 5), Pool("pool2", size=2)),
        *(FullyConnected("fc3", 500), Activation("relu3")),
        _OUTPUT,
    )


def vgg(depths: tuple[int, ...]) -> tuple[Layer, ...]:
    """VGG (arXiv 1409.1556, table 1): five groups of 3×3 convolutions, `depths` of them, and AlexNet's classifier."""
    rows: list[Layer] = []
    for group, (depth, kernels) in enumerate(zip(depths, (64, 128, 256, 512, 512), strict=True), start=1):
        for number in range(1, depth + 1):
            rows += [Conv(f"conv{group}_{number}", kernels, 3, padding=1), Activation(f"relu{group}_{number}")]
        rows.append(Pool(f"pool{group}", size=2))
    return (
        *rows,
        *(FullyConnected("fc6", 4096), Activation("relu6"), Dropout("drop6")),
        *(FullyConnected("fc7", 4096), Activation("relu7"), Dropout("drop7")),
        _OUTPUT,
    )


def resnet(depths: tuple[int, ...], *, bottleneck: bool) -> tuple[Layer, ...]:
    """ResNet (arXiv 1512.03385, table 1): four groups of residual blocks, `depths` of them, and one average."""
    rows: list[Layer] = [
        *(Conv("conv1", 64, 7, stride=2, padding=3, bias=None), BatchNorm("batch1"), Activation("relu1")),
        Pool("pool1", padding=1),
    ]
    block, channels = (_bottleneck, 64) if bottleneck else (_basic, 64)
    for group, (depth, kernels) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=2):
        outputs = 4 * kernels if bottleneck else kernels
        for number in range(1, depth + 1):
            stride = 2 if group > 2 and number == 1 else 1
            shortcut: tuple[Layer, ...] = ()
            if stride > 1 or channels != outputs:
                shortcut = (Conv("conv", outputs, 1, stride=stride, bias=None), BatchNorm("batch"))
            name = f"{group}_{number}"
            rows += [Residual(f"block{name}", block(kernels, stride), shortcut), Activation(f"relu{name}")]
            channels = outputs
    return (*rows, GlobalPool("pool5"), _OUTPUT)


def _normalized(letter: str, kernels: int, size: int, stride: int = 1) -> tuple[Layer, ...]:
    """A convolution without biases and its batch normalization, whose shift would make them superfluous."""
    conv = Conv(f"conv_{letter}", kernels, size, stride=stride, padding=size // 2, bias=None)
    return conv, BatchNorm(f"batch_{letter}")


def _basic(kernels: int, stride: int) -> tuple[Layer, ...]:
    """Two convolutions of 3×3 (figure 5, left)."""
    return (
        *(*_normalized("a", kernels, 3, stride), Activation("relu_a")),
        *_normalized("b", kernels, 3),
    )


def _bottleneck(kernels: int, stride: int) -> tuple[Layer, ...]:
    """1×1 to fewer channels, 3×3, and 1×1 to four times as many (figure 5, right); the stride is in the 3×3."""
    return (
        *(*_normalized("a", kernels, 1), Activation("relu_a")),
        *(*_normalized("b", kernels, 3, stride), Activation("relu_b")),
        *_normalized("c", 4 * kernels, 1),
    )
