"""`alexnet import`: weights of other tools to a run folder."""

from __future__ import annotations

import argparse

HELP = "weights of other tools -> run folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    from alexnet.weights.formats import format_list

    parser.description = (
        "Read a trained AlexNet, with the preprocessing that belongs to its weights, and create a run folder. Formats, "
        f"recognized by their content: {format_list()}. No code in a file is executed."
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
        help="class names in the order of the outputs: one per line, JSON, or a CSV table (default: those of ImageNet "
        "for 1000 outputs)",
    )
    parser.add_argument("--variant", metavar="NAME", help="network variant of a state dict that names none")
    parser.add_argument(
        "--key",
        metavar="KEY",
        help="which state dict of a checkpoint to read, such as model_ema (default: the first that is not an average)",
    )


def run(options: argparse.Namespace) -> None:
    """Import weights."""
    from alexnet.weights.importing import import_weights

    import_weights(
        options.file,
        options.out,
        mean=options.mean,
        classes=options.classes,
        variant=options.variant,
        key=options.key,
    )
