"""The command line: one thin function a verb, over the public functions that a notebook calls too."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from alexnet import __version__
from alexnet.runtime.errors import AlexNetError, PeerLostError, ReportedElsewhereError, UsageError, check_choice
from alexnet.runtime.progress import notify

# Heavy imports stay inside the verbs: `alexnet --help` answers at once.


def variants(options: argparse.Namespace) -> None:
    """List the networks, or print one layer by layer."""
    from alexnet.network.model import AlexNet
    from alexnet.network.model import variants as all_variants

    if options.variant:
        print(AlexNet(options.variant, options.classes).summary())
        return
    for name, variant in all_variants().items():
        print(f"{name:<24}{variant.description}")


def recipes(options: argparse.Namespace) -> None:
    """List the recipes, or print every value of one."""
    import json

    from alexnet.runs.recipe import recipes as all_recipes

    if options.recipe:
        recipe = all_recipes()[check_choice(options.recipe, all_recipes(), "recipe")]
        print(json.dumps(recipe.to_dict(), indent=1, ensure_ascii=False))
        return
    for name, recipe in all_recipes().items():
        print(f"{name:<16}{recipe.purpose}")


def prepare(options: argparse.Namespace) -> None:
    """Make a prepared dataset of images."""
    from alexnet.data.preparation import parse_share, parse_split
    from alexnet.data.preparation import prepare as prepare_images

    prepare_images(
        options.source,
        options.data,
        size=options.size,
        split=parse_split(options.split) if options.split is not None else None,
        seed=options.seed,
        max_bad=parse_share(options.max_bad),
        workers=options.workers,
    )


def train(options: argparse.Namespace) -> int:
    """Train a network, in this process or in several."""
    _use_large_pages()
    if options.processes is not None and "RANK" not in os.environ:
        from alexnet.parallel.launch import launch

        return launch(options.processes, options.words, options.max_restarts)
    from alexnet.training.train import train as train_network

    changes = {name: value for name, value in vars(options).items() if name in _recipe_fields() and value is not None}
    train_network(
        options.data,
        options.out,
        recipe=options.recipe,
        resume=options.resume,
        device=options.device,
        checkpoint_interval=options.checkpoint_interval,
        parallel=options.parallel or ("data" if options.processes is not None else None),
        passing=options.passing,
        peer_timeout=options.peer_timeout,
        **changes,
    )
    return 0


def plan(options: argparse.Namespace) -> None:
    """How long an epoch takes on so many devices."""
    from alexnet.parallel.plan import plan as plan_steps
    from alexnet.parallel.plan import print_plan

    steps = plan_steps(
        options.devices,
        options.gpu,
        options.link,
        rate=options.rate,
        batch=options.batch_size,
        fc_batch_size=options.fc_batch_size,
        variant=options.variant,
    )
    if options.json:
        import json

        rows = [{**dataclasses.asdict(step), "epoch_seconds": step.epoch(options.images)} for step in steps]
        print(json.dumps(rows, indent=1))
    else:
        print_plan(steps, options.gpu, options.link, options.images, options.rate)


def evaluate(options: argparse.Namespace) -> None:
    """Measure one run, or several averaged."""
    from alexnet.evaluation.evaluate import check_can_write
    from alexnet.evaluation.evaluate import evaluate as evaluate_runs

    if options.predictions:
        check_can_write(options.predictions)
    result = evaluate_runs(
        options.runs,
        options.data,
        split=options.split,
        views=options.views,
        batch_size=options.batch_size,
        precision=options.precision,
        recall=options.recall,
        positive=options.positive,
        search=options.search_coefficients,
        device=options.device,
    )
    if options.predictions:
        result.write_predictions(options.predictions)
    if options.json:
        import json

        print(json.dumps(result.to_dict(), indent=1, ensure_ascii=False))
    else:
        from alexnet.evaluation.printing import print_evaluation

        print_evaluation(result)


def predict(options: argparse.Namespace) -> int:
    """Sort images; exit code 1 when some could not be read."""
    from alexnet.prediction.predict import predict as predict_images

    form = "json" if options.json else "csv" if options.csv else "table"
    unread = predict_images(
        options.run_folder,
        options.images,
        top=options.top,
        views=options.views,
        form=form,
        precision=options.precision,
        device=options.device,
    )
    return 1 if unread else 0


def import_weights(options: argparse.Namespace) -> None:
    """Weights that others trained."""
    from alexnet.weights.importing import import_weights as import_into_run

    import_into_run(options.file, options.out, mean=options.mean, classes=options.classes, variant=options.variant)


def export(options: argparse.Namespace) -> None:
    """A run's weights for other tools."""
    from alexnet.weights.exporting import export as export_run

    folder = export_run(
        options.run_folder,
        options.to,
        options.out,
        preprocessing=options.preprocessing,
        int8=options.int8,
        data=options.data,
        repo=options.repo,
    )
    print(folder)


def report(options: argparse.Namespace) -> None:
    """Write the report of a run."""
    from alexnet.report.report import write_report

    print(
        write_report(
            options.run_folder,
            options.data,
            options.out,
            split=options.split,
            views=options.views,
            precision=options.precision,
            recall=options.recall,
            positive=options.positive,
            device=options.device,
        )
    )


def search(options: argparse.Namespace) -> int:
    """Nearest images; exit code 1 when some could not be read."""
    from alexnet.search.search import search as search_images

    unread = search_images(
        options.run_folder,
        options.images,
        options.data,
        split=options.split,
        top=options.top,
        method=options.method,
        form="json" if options.json else "table",
        device=options.device,
    )
    return 1 if unread else 0


def serve(options: argparse.Namespace) -> None:
    """Answer requests, and show the page."""
    _use_large_pages()
    try:
        from alexnet.serve import Limits
        from alexnet.serve import serve as serve_run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("alexnet"):
            raise
        raise AlexNetError(f"serving needs {error.name}: pip install 'alexnet[serve]'") from None

    serve_run(
        options.run_folder,
        options.data,
        host=options.host,
        port=options.port,
        precision=options.precision,
        device=options.device,
        limits=Limits(
            bytes=int(options.max_megabytes * 1e6),
            pixels=int(options.max_megapixels * 1e6),
            seconds=options.timeout,
            waiting=options.queue,
        ),
    )


def demo(options: argparse.Namespace) -> None:
    """The whole way on the solar cells."""
    _use_large_pages()
    from alexnet.experiments.demo import demo as run_demo

    run_demo(options.out, seed=options.seed, scratch=options.scratch, image=options.image)


def reproduce(options: argparse.Namespace) -> None:
    """Repeat an experiment and write its results."""
    _use_large_pages()
    from inspect import signature
    from pathlib import Path

    from alexnet.experiments.catalog import RESULTS, experiments, print_list

    if options.list or options.experiment is None:
        print_list(Path(options.results) if options.results else RESULTS)
        return
    experiment = experiments()[check_choice(options.experiment, experiments(), "experiment")]
    seeds = options.seeds or experiment.seeds[: experiment.quick_seeds if options.quick else None]
    words = ["alexnet", "reproduce", experiment.name, "--seeds", *map(str, seeds)]
    words += [word for folder in options.data for word in ("--data", Path(folder).name)]
    words += [word for name in options.only for word in ("--only", name)]
    words += ["--variant", options.variant] if options.variant else []
    words += ["--init", Path(options.init).name] if options.init else []
    words += [f"--{name}" for name in ("quick", "full") if getattr(options, name)]
    takes = ("data", "only", "variant", "init", "quick", "full")
    given = {name: value for name in takes if (value := getattr(options, name))}
    function = experiment.function()
    unknown = given.keys() - signature(function).parameters.keys()
    if unknown:
        raise UsageError(f"--{unknown.pop()} is not for {experiment.name}")
    work = Path(options.out or ("quick-out" if options.quick else experiment.folder or f"{experiment.name}-out"))
    # What was tried quickly is no result: it stays where it was made.
    folder = work if options.quick else RESULTS
    results = Path(options.results or folder / experiment.file(options.data))
    print(function(work, results, seeds, " ".join(words), **given))
    print(f"all of it in {results}", file=sys.stderr)


def bench(options: argparse.Namespace) -> None:
    """Time what bounds the work on this machine."""
    _use_large_pages()
    from pathlib import Path

    from alexnet.bench.run import bench as measure

    words = ["alexnet", "bench", *(word for name in options.only for word in ("--only", name))]
    words += ["--images", "IMAGES"] * (options.images is not None)
    words += ["--batch-size", str(options.batch_size)] * (options.batch_size is not None)
    report = measure(
        options.only,
        batch_size=options.batch_size,
        rounds=options.rounds,
        images=Path(options.images) if options.images else None,
        results=Path(options.results) if options.results else None,
        command=" ".join([*words, "--rounds", str(options.rounds)]),
    )
    if options.json:
        import json

        print(json.dumps(report, indent=1))


def _use_large_pages() -> None:
    """Large pages for the large tensors of a step; read when torch first allocates."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _recipe_fields() -> dict[str, dataclasses.Field[Any]]:
    """The values of a recipe that the command line can override."""
    from alexnet.runs.recipe import Recipe

    return {field.name: field for field in dataclasses.fields(Recipe) if "help" in field.metadata}


def _add_parallel_options(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group(
        "several processes",
        "with the same result as one; started by --processes, or on many machines by `torchrun ... -m alexnet train`",
    )
    group.add_argument(
        "--parallel",
        choices=("data", "towers", "one-weird-trick"),
        help="shares of each batch; the paper's two towers; or shares for convolutions and units for the rest "
        "(default: data where there are --processes)",
    )
    group.add_argument("--processes", type=int, metavar="N", help="start so many on this machine")
    group.add_argument(
        "--max-restarts", type=int, default=3, metavar="N", help="after failures of one, all start again (default: 3)"
    )
    group.add_argument(
        "--passing",
        choices=("at-once", "in-turn", "in-shares"),
        default="in-shares",
        help="one-weird-trick: how activations reach the fully connected layers (default: in-shares)",
    )
    group.add_argument(
        "--peer-timeout",
        type=float,
        default=300.0,
        metavar="S",
        help="how long one process waits for another before all end (default: 300)",
    )


def _add_recipe_options(verb: argparse.ArgumentParser) -> None:
    """An option for every value of a recipe, with what it is for from the recipe itself."""
    group = verb.add_argument_group("values of the recipe", "each overrides what the recipe has")
    for name, field in _recipe_fields().items():
        kind = str(field.type).removesuffix(" | None")
        how: dict[str, Any] = {"type": {"int": int, "float": float}.get(kind, str)}
        if kind == "bool":
            how = {"action": argparse.BooleanOptionalAction}
        elif field.metadata["choices"]:
            how["choices"] = field.metadata["choices"]
        else:
            how["metavar"] = {"int": "N", "float": "X"}.get(kind, "NAME")
        group.add_argument(f"--{name.replace('_', '-')}", default=None, help=field.metadata["help"], **how)


class _Parser(argparse.ArgumentParser):
    """One whose errors are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        self.exit(UsageError.exit_code, f"{self.prog}: {message}; see {self.prog} --help\n")


def command_line_parser() -> argparse.ArgumentParser:
    """What reads the words of every verb."""
    parser = _Parser(
        prog="alexnet",
        description="AlexNet, whole: from a folder of images to a trained, measured classifier.",
        epilog="example: alexnet prepare photographs/ data && alexnet train data --out run && "
        "alexnet evaluate run --data data",
    )
    parser.add_argument("--version", action="version", version=f"alexnet {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser("variants", help="the networks there are, each a table of layers")
    verb.add_argument("variant", nargs="?", metavar="NAME", help="print this one layer by layer")
    verb.add_argument("--classes", type=int, default=1000, help="number of classes (default: 1000)")
    verb.set_defaults(run=variants)

    verb = verbs.add_parser("recipes", help="the trainings there are, with what each is for")
    verb.add_argument("recipe", nargs="?", metavar="NAME", help="print every value of this one")
    verb.set_defaults(run=recipes)

    _add_prepare(verbs)
    verb = verbs.add_parser(
        "train",
        help="prepared images → a trained network",
        description="Train a network on a prepared dataset. Ctrl-C stops cleanly; --resume goes on.",
        epilog="example: alexnet train data --out run --epochs 20",
    )
    verb.add_argument("data", metavar="DATA", help="a folder that `alexnet prepare` made")
    verb.add_argument("--out", required=True, metavar="RUN", help="the run folder to make")
    verb.add_argument("--recipe", default="auto", metavar="NAME", help="a name of `alexnet recipes` (default: auto)")
    verb.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    verb.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, … (default: the best there is)")
    verb.add_argument(
        "--checkpoint-interval", type=float, default=120.0, metavar="S", help="how often to save (default: 120)"
    )
    _add_parallel_options(verb)
    _add_recipe_options(verb)
    verb.set_defaults(run=train)
    _add_plan(verbs)
    _add_evaluate(verbs)
    _add_predict(verbs)
    _add_import(verbs)
    _add_export(verbs)
    _add_report(verbs)
    _add_search(verbs)
    _add_serve(verbs)
    _add_demo(verbs)
    _add_bench(verbs)
    return parser


def _add_plan(verbs: Any) -> None:
    verb = verbs.add_parser(
        "plan",
        help="how long an epoch takes on many devices, by layout",
        description="Compute time, memory and bytes of each --parallel layout on 1, 2, 4, … devices, from operations, "
        "bytes and the rate of one device.",
        epilog="example: alexnet plan --devices 8 --gpu a100 --link nvlink3 --rate 9000",
    )
    verb.add_argument("--devices", type=int, required=True, metavar="N", help="how many at most")
    verb.add_argument(
        "--gpu", default="h100", metavar="NAME", help="gtx580, k20, v100, a100, rtx4090, l4, h100, h200 (default: h100)"
    )
    verb.add_argument(
        "--link",
        default="nvlink4",
        metavar="NAME",
        help="pcie2 … pcie5, nvlink3, nvlink4, 1gbe, 10gbe, 25gbe, 100gbe, hdr, ndr (default: nvlink4)",
    )
    verb.add_argument("--rate", type=float, metavar="X", help="images a second that one of them trains, measured")
    verb.add_argument("--batch-size", type=int, default=128, metavar="N", help="images a device (default: 128)")
    verb.add_argument("--fc-batch-size", type=int, metavar="N", help="images a step of the fully connected layers")
    verb.add_argument("--images", type=int, default=1_281_167, metavar="N", help="of an epoch (default: ImageNet's)")
    verb.add_argument("--variant", default="paper", metavar="NAME", help="the network (default: paper)")
    verb.add_argument("--json", action="store_true", help="as JSON on stdout")
    verb.set_defaults(run=plan)


def _add_prepare(verbs: Any) -> None:
    verb = verbs.add_parser(
        "prepare",
        help="images → a prepared dataset",
        description="Scale images to one size, ready for training. Interrupted, the same command goes on.",
        epilog="example: alexnet prepare photographs/ data --split val=0.1,test=0.1",
    )
    verb.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with one folder a class (in train/, val/, test/ where it has them), a zip or tar of it, a "
        "folder of ImageNet's tar files, a CSV of path,label[,split], Hugging Face parquet or Arrow files, or hf:NAME",
    )
    verb.add_argument("data", metavar="DATA", help="the folder to make")
    verb.add_argument("--size", type=int, default=256, metavar="N", help="side of the images (default: 256)")
    verb.add_argument(
        "--split",
        metavar="SHARES",
        help="val=0.2,test=0.1: shares to keep from training, class by class (default: the source's own, else val=0.2)",
    )
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="what the split is drawn with (default: 0)")
    verb.add_argument(
        "--max-bad", default="1%", metavar="SHARE", help="images that may be unreadable (default: 1%%, or 0.01)"
    )
    verb.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    verb.set_defaults(run=prepare)


def _add_demo(verbs: Any) -> None:
    verb = verbs.add_parser(
        "demo",
        help="all of it on real photographs of solar cells, in a quarter of an hour",
        description="Prepare, train, measure, use and show on the solar cells of elpv-dataset. Run again, it goes on.",
        epilog="example: alexnet demo --out demo-out",
    )
    verb.add_argument("--out", default="demo-out", metavar="FOLDER", help="where to (default: demo-out)")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="the number all that is random comes from")
    verb.add_argument(
        "--scratch",
        action="store_true",
        help="train without the starter features too, in twice the time (else the table has what was measured before)",
    )
    verb.add_argument("--image", metavar="FILE", help="draw the tables to this SVG file too")
    verb.set_defaults(run=demo)

    verb = verbs.add_parser(
        "reproduce",
        help="repeat an experiment of the paper and write its results",
        description="Run an experiment of the paper, or of its author's code, on real images; write its numbers and "
        "its figure. What was done before is not done again, and what was stopped goes on. Without a name: the list.",
        epilog="example: alexnet reproduce figure-1 --data cifar-10.zip",
    )
    verb.add_argument("experiment", nargs="?", metavar="EXPERIMENT", help="which one; --list names them")
    verb.add_argument("--list", action="store_true", help="all experiments, published and measured side by side")
    verb.add_argument("--seeds", type=int, nargs="+", metavar="N", help="(default: the experiment's own)")
    verb.add_argument("--out", metavar="FOLDER", help="where the runs go (default: a folder EXPERIMENT-out)")
    verb.add_argument("--data", action="append", default=[], metavar="SOURCE", help="images (may be given again)")
    verb.add_argument("--quick", action="store_true", help="in about a minute, to see that it works: no result")
    verb.add_argument("--full", action="store_true", help="as long as published, where the default is shorter")
    verb.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="transfer, ablation: trials whose name begins so, as in solar/100/starter or tanh (may be given again)",
    )
    verb.add_argument(
        "--variant",
        metavar="NAME",
        help="imagenet: the network, paper or released-2012, and -half, -no-norm or -six-conv of it (default: paper)",
    )
    verb.add_argument("--init", metavar="WEIGHTS", help="transfer: what to start from beside the starter, as in train")
    verb.add_argument("--results", metavar="FILE", help="the JSON to write (default: docs/results/EXPERIMENT.json)")
    verb.set_defaults(run=reproduce)


def _add_bench(verbs: Any) -> None:
    verb = verbs.add_parser(
        "bench",
        help="how fast this machine does it, and against whom",
        description="Time training, normalization, loading, preparing and inference in turn with named peers. "
        "All of it takes some ten minutes; comparisons go to stderr as they are known.",
        epilog="example: alexnet bench --only train-step --batch-size 64 --json",
    )
    verb.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="train-step, fed, memory, lrn, loader, prepare, views, inference or startup (may be given again)",
    )
    verb.add_argument("--batch-size", type=int, metavar="N", help="instead of each bench's own (128 for training)")
    verb.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each side is timed (default: 3)")
    verb.add_argument("--images", metavar="FOLDER", help="JPEG photographs to prepare and load (default: made ones)")
    verb.add_argument("--results", metavar="FOLDER", help="also write bench-<machine>.json there")
    verb.add_argument("--json", action="store_true", help="everything, as JSON on stdout")
    verb.set_defaults(run=bench)


def _add_evaluate(verbs: Any) -> None:
    verb = verbs.add_parser(
        "evaluate",
        help="how good a trained network is",
        description="Measure a run on prepared images, or several runs whose probabilities are averaged.",
        epilog="example: alexnet evaluate run --data data --recall 0.95 --positive defective",
    )
    verb.add_argument("runs", nargs="+", metavar="RUN", help="a run folder; several are averaged")
    verb.add_argument("--data", required=True, metavar="DATA", help="a folder that `alexnet prepare` made")
    _add_split_option(verb)
    _add_network_options(verb, views=10)
    verb.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    verb.add_argument("--json", action="store_true", help="everything, as JSON on stdout")
    verb.add_argument("--predictions", metavar="FILE.csv", help="also write each image's prediction")
    _add_threshold_options(verb)
    verb.add_argument(
        "--search-coefficients",
        action="store_true",
        help="weight the runs by what is best on val; where val is measured, on the other half of it",
    )
    verb.set_defaults(run=evaluate)


def _add_predict(verbs: Any) -> None:
    verb = verbs.add_parser(
        "predict",
        help="what is on these images",
        description="Print the most probable classes of each image. A file that can't be read is named on stderr, "
        "the rest is done, and the exit code is 1.",
        epilog="example: alexnet predict run photographs/ --csv > sorted.csv",
    )
    verb.add_argument("run_folder", metavar="RUN", help="a run folder")
    verb.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file, a folder (searched through), or - for one on stdin"
    )
    verb.add_argument("--top", type=int, default=5, metavar="K", help="how many classes (default: 5)")
    _add_network_options(verb, views=1)
    forms = verb.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="a JSON list, one image a line")
    forms.add_argument("--csv", action="store_true", help="a CSV with a header")
    verb.set_defaults(run=predict)


def _add_import(verbs: Any) -> None:
    verb = verbs.add_parser(
        "import",
        help="weights that others trained → a run folder",
        description="Read a trained AlexNet of torchvision (.pth), Caffe (bvlc_alexnet, bvlc_reference_caffenet), "
        "Toronto (bvlc_alexnet.npy), ONNX, cuda-convnet's checkpoints of 2012, or our own; `alexnet predict` takes "
        "the run at once, with the preprocessing that belongs to the weights. No code in a file runs.",
        epilog="example: alexnet import bvlc_alexnet.caffemodel --mean imagenet_mean.binaryproto --out run",
    )
    verb.add_argument(
        "file", metavar="FILE", help="a file, a folder that `alexnet export` wrote, hf:OWNER/NAME, or torchvision"
    )
    verb.add_argument("--out", required=True, metavar="RUN", help="the run folder to make")
    verb.add_argument(
        "--mean",
        metavar="FILE",
        help="Caffe's mean (.binaryproto or .npy) or cuda-convnet's batches.meta (default: ImageNet's mean color)",
    )
    verb.add_argument(
        "--classes", metavar="FILE", help="a class a line, in the order of the outputs (default: ImageNet's for 1000)"
    )
    verb.add_argument("--variant", metavar="NAME", help="which network a .safetensors is that does not say")
    verb.set_defaults(run=import_weights)


def _add_export(verbs: Any) -> None:
    verb = verbs.add_parser(
        "export",
        help="a run's weights for other tools",
        description="Write a new folder with the weights, their model card and how to read them, and print its name.",
        epilog="example: alexnet export run --to onnx --int8",
    )
    verb.add_argument("run_folder", metavar="RUN", help="a run folder")
    verb.add_argument(
        "--to",
        required=True,
        choices=["onnx", "safetensors", "torch-export", "hub"],
        help="ONNX; our layout in one file; torch.export's .pt2; or a folder for the Hugging Face hub",
    )
    verb.add_argument("--out", metavar="FOLDER", help="the folder to make (default: RUN-FORMAT)")
    verb.add_argument(
        "--preprocessing",
        choices=["inside", "beside"],
        default="inside",
        help="onnx, torch-export: read stored images of 8 bits, or what the network reads (default: inside)",
    )
    verb.add_argument("--int8", action="store_true", help="onnx: weights of 8 bits, a quarter of the size")
    verb.add_argument(
        "--data", metavar="DATA", help="int8: prepared images to measure its cost on (default: the training's)"
    )
    verb.add_argument("--repo", metavar="OWNER/NAME", help="hub: upload it there too")
    verb.set_defaults(run=export)


def _add_report(verbs: Any) -> None:
    verb = verbs.add_parser(
        "report",
        help="what a run has learned, as a page with figures",
        description="Write report.html, one page that needs nothing beside it, and its figures as PNG and SVG. The run "
        "may be in progress: what is not there yet is left out. Needs matplotlib: pip install 'alexnet[report]'.",
        epilog="example: alexnet report run --data data --recall 0.95",
    )
    verb.add_argument("run_folder", metavar="RUN", help="a run folder")
    verb.add_argument(
        "--data", metavar="DATA", help="a folder that `alexnet prepare` made (default: the one it was trained on)"
    )
    verb.add_argument("--out", metavar="FOLDER", help="where to write (default: the run folder)")
    _add_split_option(verb)
    _add_network_options(verb, views=1, precision="auto")
    _add_threshold_options(verb)
    verb.set_defaults(run=report)


def _add_search(verbs: Any) -> None:
    verb = verbs.add_parser(
        "search",
        help="the prepared images that a trained network finds most alike",
        description="Print the images nearest to each one given, by Euclidean distance in the activations of fc7. "
        "One that is in the dataset itself comes first, at distance 0. What is computed of the dataset is kept in "
        "RUN/search/. A file that can't be read is named on stderr, the rest is done, and the exit code is 1.",
        epilog="example: alexnet search run strange.jpg --data data --top 10",
    )
    verb.add_argument("run_folder", metavar="RUN", help="a run folder")
    verb.add_argument("images", nargs="+", metavar="IMAGE", help="a file, or a folder (searched through)")
    verb.add_argument("--data", required=True, metavar="DATA", help="a folder that `alexnet prepare` made")
    verb.add_argument("--split", default="train", metavar="NAME", help="the split to search in (default: train)")
    verb.add_argument("--top", type=int, default=5, metavar="K", help="how many images (default: 5)")
    verb.add_argument(
        "--method",
        choices=("auto", "exact", "index", "codes"),
        default="auto",
        help="exact; index: milliseconds for a million images, which may miss one; codes: by the bits that differ in "
        "binary codes of an auto-encoder (default: exact up to 20,000 images, else index). Index and codes need "
        "faiss: pip install 'alexnet[search]'",
    )
    verb.add_argument("--json", action="store_true", help="a JSON list, one image a line")
    verb.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, … (default: the best there is)")
    verb.set_defaults(run=search)


def _add_serve(verbs: Any) -> None:
    verb = verbs.add_parser(
        "serve",
        help="a page to look into a run, and an HTTP API",
        description="Answer requests until Ctrl-C, at the address printed: the page at /, the API's documentation at "
        "/docs. Only this machine can reach it unless --host says otherwise. "
        "Needs FastAPI and uvicorn: pip install 'alexnet[serve]'.",
        epilog="example: alexnet serve run --data data --port 8080",
    )
    verb.add_argument("run_folder", metavar="RUN", help="a run folder")
    verb.add_argument(
        "--data", metavar="DATA", help="the prepared dataset to show (default: the one it was trained on)"
    )
    verb.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    verb.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes a free one (default: 8000)")
    _add_precision_and_device(verb, "float32")
    verb.add_argument("--max-megabytes", type=float, default=20, metavar="N", help="of a request (default: 20)")
    verb.add_argument("--max-megapixels", type=float, default=50, metavar="N", help="of an image (default: 50)")
    verb.add_argument("--timeout", type=float, default=30, metavar="S", help="seconds until an answer (default: 30)")
    verb.add_argument("--queue", type=int, default=256, metavar="N", help="images under way at once (default: 256)")
    verb.set_defaults(run=serve)


def _add_split_option(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--split", metavar="NAME", help="the split to measure on (default: test, else val)")


def _add_threshold_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--positive", metavar="CLASS", help="of two classes, the one to find (default: the rarer)")
    verb.add_argument("--recall", type=float, metavar="R", help="the threshold that finds this share of it, 0 to 1")


def _add_network_options(verb: argparse.ArgumentParser, views: int, precision: str = "float32") -> None:
    """What every verb that runs a trained network takes."""
    verb.add_argument(
        "--views",
        type=int,
        choices=(1, 9, 10),
        default=views,
        help=f"1: the center; 9: three by three; 10: corners, center and mirror images, averaged (default: {views})",
    )
    _add_precision_and_device(verb, precision)


def _add_precision_and_device(verb: argparse.ArgumentParser, precision: str) -> None:
    verb.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "auto"),
        default=precision,
        help=f"bfloat16 is faster on many machines and moves a probability by up to 0.02 (default: {precision})",
    )
    verb.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, … (default: the best there is)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0 done, 1 the work failed, 2 the words were wrong, 130 interrupted."""
    options = command_line_parser().parse_args(arguments)
    options.words = list(sys.argv[1:] if arguments is None else arguments)
    from alexnet.parallel.launch import final

    try:
        return final(int(options.run(options) or 0))
    except ReportedElsewhereError as error:
        return final(error.exit_code)
    except AlexNetError as error:
        if options.debug:
            raise
        print(f"alexnet: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, PeerLostError) else final(error.exit_code)
    except KeyboardInterrupt as interruption:
        notify(f"alexnet: {str(interruption) or 'interrupted'}")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # a file where a folder should be, a folder that may not be written to
        if options.debug or error.filename is None:
            raise
        print(f"alexnet: {error.filename}: {error.strerror}; --debug shows for what", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
