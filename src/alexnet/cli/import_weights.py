"""`alexnet import`: weights of other tools to a run folder."""

from __future__ import annotations

import argparse

HELP = "weights of other tools -> run folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Read a trained AlexNet of torchvision (.pth), Caffe (bvlc_alexnet, bvlc_reference_caffenet), Toronto "
        "(bvlc_alexnet.npy), ONNX, a cuda-convnet checkpoint of 2012, or an export of this package, with the "
        "preprocessing that belongs to the weights. No code in a file is executed."
    )
    parser.epilog = "example: alexnet import bvlc_alexnet.caffemodel --mean imagenet_mean.binaryproto --out run"
    parser.add_argument(
        "file", metavar="FILE", help="a file, a folder made by `alexnet export`, hf:OWNER/NAME, or torchvision"
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to create")
    parser.add_argument(
        "--mean",
        metavar="FILE",
        help="mean image of Caffe (.binaryproto or .npy) or batches.meta of cuda-convnet (default: the mean color of "
        "ImageNet)",
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="class names, one per line in the order of the outputs (default: those of ImageNet for 1000 outputs)",
    )
    parser.add_argument("--variant", metavar="NAME", help="network variant of a .safetensors file that names none")


def run(options: argparse.Namespace) -> None:
    """Import weights."""
    from alexnet.weights.importing import import_weights

    import_weights(options.file, options.out, mean=options.mean, classes=options.classes, variant=options.variant)
