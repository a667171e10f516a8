"""`alexnet export`: the weights of a run for other tools."""

from __future__ import annotations

import argparse

from alexnet.cli.options import DATA_HELP, add_run

HELP = "the weights of a run for other tools"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    from alexnet.weights.formats import EXPORT_FORMATS, PREPROCESSING

    parser.description = "Write a new folder with the weights, their model card and an example, and print its name."
    parser.epilog = "example: alexnet export run --to onnx --int8"
    add_run(parser)
    parser.add_argument(
        "--to",
        required=True,
        choices=tuple(EXPORT_FORMATS),
        help="; ".join(f"{name}: {known.description}" for name, known in EXPORT_FORMATS.items()),
    )
    parser.add_argument("--out", metavar="FOLDER", help="the folder to create (default: RUN-FORMAT)")
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSING,
        default="inside",
        help="onnx, openvino, torch-export. inside: the model takes 8-bit images; beside: the model takes preprocessed "
        "crops (default: inside)",
    )
    parser.add_argument("--int8", action="store_true", help="onnx: 8-bit weights, a quarter of the file size")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help=f"int8: {DATA_HELP}, on which the loss of accuracy is measured (default: the dataset of the training)",
    )
    parser.add_argument("--repo", metavar="OWNER/NAME", help="hub: also upload to this repository")


def run(options: argparse.Namespace) -> None:
    """Export a run and print the folder."""
    from alexnet.weights.exporting import export

    folder = export(
        options.run_folder,
        options.to,
        options.out,
        preprocessing=options.preprocessing,
        int8=options.int8,
        data=options.data,
        repo=options.repo,
    )
    print(folder)
