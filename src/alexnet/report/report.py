"""The report of a run: one page that needs nothing beside it, and its figures as files."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import torch

from alexnet import __version__
from alexnet.data.dataset import PreparedDataset, Split
from alexnet.evaluation import metrics
from alexnet.evaluation.ensemble import Member
from alexnet.evaluation.evaluate import Evaluation, evaluate
from alexnet.evaluation.printing import WORDS
from alexnet.network.features import BATCH_SIZE, layer_features
from alexnet.network.model import towers_of
from alexnet.report import (
    attribution,
    curves,
    filters,
    image_figures,
    metric_figures,
    neighbors,
    page,
    sentences,
    style,
)
from alexnet.report.mosaic import mosaic
from alexnet.report.page import Section
from alexnet.runs.recipe import recipes
from alexnet.runs.run import Run
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic
from alexnet.runtime.progress import Progress, progress
from alexnet.runtime.provenance import machine
from alexnet.search.exact import nearest

REPORT = "report.html"
FIGURES = "figures"

SHOWN = 8  # test images, as in the paper's figure 4
MISTAKES = 12
LOOKS = 6
QUERIES = 6
NEIGHBORS = 6  # as in the paper's figure 4
MOST_STORED = 2000  # training images among which neighbors are sought
DIAL_POINTS = 200


def write_report(
    run: str | os.PathLike[str] | Run,
    data: str | os.PathLike[str] | PreparedDataset | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    views: int = 1,
    precision: str = "auto",
    recall: float | None = None,
    positive: str | None = None,
    device: str | None = None,
    evaluation: Evaluation | None = None,
) -> Path:
    """Write `report.html` and its figures in `figures/`, PNG and SVG, to the run folder or `out`; returns the page.

    `data`: the prepared dataset; by default the one that the run was trained on, where it still is. The run may be in
    progress: what is not there yet is left out, and the report says so. `split`, `views`, `precision`, `recall` and
    `positive` are those of `evaluate`; with `evaluation` its result is shown and nothing measured again.

    Raises `AlexNetError` when the folder is no run, the dataset does not fit it, or nothing can be written there.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    folder = opened.path if out is None else Path(out)
    keep_freed_memory()
    report = _Report(opened, folder)
    dataset = report.find_data(evaluation.data if data is None and evaluation is not None else data)
    member = report.find_weights(device)
    if dataset is not None and member is not None and evaluation is None:
        evaluation = report.measure(member, dataset, split, views, precision, recall, positive)
    report.learning()
    if evaluation is not None:
        report.results(evaluation)
        report.answers(evaluation)
    if evaluation is not None and member is not None:
        report.looks(member, evaluation)
    if evaluation is not None and member is not None and dataset is not None:
        report.neighbors(member, evaluation, dataset, precision)
    if member is not None:
        report.inside(member, evaluation)
    report.recipe()
    return report.write(member, evaluation)


@dataclass
class _Report:
    """A report in the making: its sections so far, and what it has to do without."""

    run: Run
    folder: Path
    sections: list[Section] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    weights: str = ""

    # What there is.

    def find_data(self, data: str | os.PathLike[str] | PreparedDataset | None) -> PreparedDataset | None:
        """The dataset named, or the one that the run was trained on where it can be opened."""
        if isinstance(data, PreparedDataset):
            return data
        if data is not None:
            return self.run.find_data(data)
        try:
            return self.run.find_data()
        except AlexNetError as error:
            self.left_out.append(f"Everything with images: {error}")
            return None

    def find_weights(self, device: str | None) -> Member | None:
        """The weights that the recipe keeps, or those that a training in progress has saved so far."""
        there = self.run.weights_there_are()
        if not there:
            self.left_out.append("Everything that needs the network: the training has saved no weights yet.")
            return None
        self.weights = there[0]
        return Member(self.run, *self.run.load(choose_device(device), there[0]))

    def measure(
        self,
        member: Member,
        dataset: PreparedDataset,
        split: str | None,
        views: int,
        precision: str,
        recall: float | None,
        positive: str | None,
    ) -> Evaluation | None:
        """What the network says of every image of the split; None where there is no split to measure."""
        if split is None and dataset.measured_on is None:
            self.left_out.append("All results: the dataset has no images in test or val; choose with `--split`.")
            return None
        return evaluate(
            member, dataset, split=split, views=views, precision=precision, recall=recall, positive=positive
        )

    # The sections.

    def learning(self) -> None:
        """Curves over the epochs, and the findings of the training."""
        steps, epochs = self.run.metrics("step"), self.run.metrics("epoch")
        if not steps:
            self.left_out.append("The learning curves: no step of the training is recorded.")
        parts = []
        if steps:
            last = epochs[-1]["train_loss"] if epochs else steps[-1]["loss"]
            note = sentences.drops(self.run)
            parts.append(
                self.draw(
                    "losses", curves.losses(self.run), f"The loss falls from {steps[0]['loss']:.3g} to {last:.3g}", note
                )
            )
        if epochs:
            names = ", ".join(epochs[-1]["layers"])
            words = f"Mean absolute weights of {names} over the epochs"
            note = "As the 2012 code printed it."
            parts.append(self.draw("layer-weights", curves.layer_weights(self.run), words, note))
            end = f"{epochs[-1]['train_error']:.1%} of the training images"
            if "validation_error" in epochs[-1]:
                end += f" and {epochs[-1]['validation_error']:.1%} of the validation images"
            words = f"Wrong answers after {len(epochs)} epochs: {end}"
            parts.append(self.draw("errors", curves.errors(self.run), words, sentences.validation(epochs)))
            words = f"Mean absolute updates of {names} over the epochs"
            note = "A layer that lies far below its weights hardly learns."
            parts.append(self.draw("layer-updates", curves.layer_updates(self.run), words, note))
        elif steps:
            self.left_out.append("Errors and layers over the epochs: the first epoch has not ended.")
        html = f'<div class="pair">{"".join(parts)}</div>' + _health(self.run)
        lead = "The loss of every step and the mean of every epoch; what was noticed on the way."
        self.sections.append(Section("learning", "How it learned", lead, html))

    def results(self, evaluation: Evaluation) -> None:
        """Confusion, classes, thresholds, calibration."""
        counts = evaluation.confusion
        right, n = int(np.trace(counts)), int(counts.sum())
        worst = sentences.worst_confusion(evaluation)
        parts = [
            self.draw(
                *("confusion", metric_figures.confusion_matrix(evaluation)),
                f"Of {n:,} images {right:,} are on the diagonal: answered right. {worst}",
                worst,
            ),
            self.draw(
                *("classes", metric_figures.per_class(evaluation)),
                f"Recall and precision of each class: {sentences.least_found(evaluation)}",
                "Bars are the range in which chance alone may have moved the share found.",
            ),
        ]
        bins = metrics.calibration(evaluation.predictions)
        words = "; ".join(f"{b.confidence:.0%} sure, {b.accuracy:.0%} right" for b in bins if b.accuracy is not None)
        note = f"On the line it is right as often as it says. {sentences.calibration(evaluation)}"
        parts.append(self.draw("calibration", metric_figures.reliability(evaluation), f"Reliability: {words}", note))
        if evaluation.positive is not None:
            name = evaluation.classes[evaluation.positive]
            score, is_positive = metrics.scores(evaluation.predictions, evaluation.positive)
            if is_positive.any() and not is_positive.all():
                chosen = " ".join(sentences.threshold(point) for point in metric_figures.chosen_thresholds(evaluation))
                words = f"finding “{name}” over all thresholds. {chosen}"
                area = metrics.roc_auc(score, is_positive)
                parts += [
                    self.draw("roc", metric_figures.roc(evaluation), f"ROC curve, area {area:.3f}, {words}", chosen),
                    self.draw(
                        *("precision-recall", metric_figures.precision_recall(evaluation)),
                        f"Precision and recall, {words}",
                        "Thresholds chosen on these very images do a little worse on others.",
                    ),
                ]
        html = f'<div class="pair">{"".join(parts)}{_dial(evaluation)}</div>' + page.folded(
            "Every class in numbers", _class_table(evaluation)
        )
        how = f"{WORDS[evaluation.views]}; {evaluation.arithmetic}"
        lead = f"{n:,} images of the split “{evaluation.split.name}”; {how}."
        self.sections.append(Section("results", "How good it is", lead, html))

    def answers(self, evaluation: Evaluation) -> None:
        """Test images with the five most probable labels; and only the mistakes, the surest first."""
        chosen = image_figures.spread_over_classes(evaluation.predictions, SHOWN)
        links = self.save("top-five", image_figures.top_five(evaluation, chosen))
        html = page.gallery(_answer_cards(evaluation, chosen)) + _files("The eight as a figure", links)
        most = min(5, len(evaluation.classes))
        seen = "already" if evaluation.split.name == "train" else "never"
        lead = f"Images it has {seen} learned from, and its {most} most probable labels, the right one in blue "
        lead += "(figure 4 of the paper)."
        self.sections.append(Section("answers", "What it says", lead, html))
        wrong = image_figures.surest_mistakes(evaluation.predictions, MISTAKES)
        total = int((evaluation.predictions.ranked[:, 0] != evaluation.predictions.labels).sum())
        if len(wrong):
            links = self.save("mistakes", image_figures.mistakes(evaluation, MISTAKES))
            html = page.gallery(_answer_cards(evaluation, wrong)) + _files("These as a figure", links)
            lead = f"The {len(wrong)} surest of {total:,} mistakes, the surest first. Some may be labels to correct."
        else:
            html, lead = "", "Not one answer was wrong."
        self.sections.append(Section("mistakes", "Where it is wrong", lead, html))

    def looks(self, member: Member, evaluation: Evaluation) -> None:
        """Gradient and Grad-CAM over some images, half of them mistakes."""
        predictions, split = evaluation.predictions, evaluation.split
        wrong = image_figures.surest_mistakes(predictions, LOOKS // 2)
        right = image_figures.surest_right(predictions, LOOKS - len(wrong))
        chosen = np.concatenate([right, wrong])
        said = predictions.ranked[chosen, 0]
        raw = split.gather(chosen)
        views = attribution.looks(member.network, member.preprocess, raw, said.tolist())
        titles = [f"said {evaluation.classes[c]}" for c in said]
        links = self.save("where-it-looks", attribution.where_it_looks(views, titles))
        cards = []
        for row, index in enumerate(chosen):
            truth, answer = evaluation.classes[predictions.labels[index]], evaluation.classes[said[row]]
            words = f"called {answer} ({predictions.ranked_probabilities[index, 0]:.0%})"
            described = (
                f"{truth}, {words}",
                f"pixels that move the answer {answer}",
                f"regions that speak for {answer}",
            )
            images = [page.image(view[row], text) for view, text in zip(views, described, strict=True)]
            cards.append(page.look_card(list(zip(images, attribution.LOOKS, strict=True)), truth, words))
        html = f'<ul class="looks">{"".join(cards)}</ul>{_files("All as a figure", links)}'
        layer = attribution.last_convolution(member.network)
        lead = (
            f"What speaks for the answer given: the pixels that move it most (gradient), and the regions of {layer} "
            "(Grad-CAM). Bright on a frame, a stamp or a corner means that it has learned the wrong thing."
        )
        self.sections.append(Section("looks", "Where it looks", lead, html))

    def neighbors(self, member: Member, evaluation: Evaluation, dataset: PreparedDataset, precision: str) -> None:
        """The training images nearest to some test images in fc7."""
        train, split = dataset.split("train"), evaluation.split
        stored = np.linspace(0, len(train) - 1, min(MOST_STORED, len(train))).round().astype(np.int64)
        asked = image_figures.spread_over_classes(evaluation.predictions, QUERIES)
        if split.name == "train":  # an image is not its own neighbor
            stored = np.setdiff1d(stored, asked)
        dtype = choose_precision(precision, member.preprocess.mean.device)
        with progress(len(stored) + len(asked), "fc7 of training images") as bar:
            known, wanted = (
                np.concatenate(list(layer_features(member.network, member.preprocess, batches, precision=dtype)))
                for batches in (_batches(train, stored, bar), _batches(split, asked, bar))
            )
        distances, rows = nearest(wanted, known, NEIGHBORS)
        found = stored[rows]
        names = np.array(dataset.classes, dtype=object)
        labels, found_labels = names[split.labels[asked]], names[train.labels[found]]
        raw = split.gather(asked)
        near = train.gather(found.ravel()).reshape(*found.shape, *raw.shape[1:])
        links = self.save("neighbors", neighbors.neighbors(raw, labels.tolist(), near, found_labels.tolist()))
        html = []
        for row, label in enumerate(labels):
            others = [
                (page.image(pixels, f"training image, {other}"), other, float(distance))
                for pixels, other, distance in zip(near[row], found_labels[row], distances[row], strict=True)
            ]
            html.append(page.neighbor_row((page.image(raw[row], f"{split.name} image, {label}"), label), others))
        agreeing = float((found_labels == labels[:, None]).mean())
        among = f"{len(stored):,} training images"
        among += f" of {len(train):,}" if len(stored) < len(train) else ""
        lead = (
            f"Left a {split.name} image, then the training images nearest to it in the 4,096 activations of fc7, "
            f"with their Euclidean distances (figure 4 of the paper). Sought among {among}; "
            f"{agreeing:.0%} of those shown have the same label."
        )
        body = f'<div class="rows">{"".join(html)}</div>{_files("All as a figure", links)}'
        self.sections.append(Section("neighbors", "What it finds alike", lead, body))

    def inside(self, member: Member, evaluation: Evaluation | None) -> None:
        """First-layer kernels, and the maps of every layer for one image."""
        network, towers = member.network, towers_of(member.network)
        note = "Gray is zero, each kernel scaled to its largest weight."
        note += " The two towers of the paper: first above, second below." if towers > 1 else ""
        words = f"{'Two towers' if towers > 1 else 'One tower'} of first-layer kernels: "
        words += "edges, gratings and blobs, or noise where little was learned"
        drawing = filters.first_layer_kernels(network)
        parts = [self.draw("kernels", drawing, words, note)]
        lead = "The kernels that read the pixels (figure 3 of the paper)."
        if evaluation is not None:
            index = int(image_figures.spread_over_classes(evaluation.predictions, 1)[0])
            raw = evaluation.split.gather(np.array([index]))
            inputs = member.preprocess.center(torch.from_numpy(raw).to(member.preprocess.mean.device))
            truth = evaluation.classes[evaluation.predictions.labels[index]]
            parts.append(f"<h3>What each layer makes of one image ({escape(truth)})</h3>")
            for number, layer in enumerate(_layers_with_weights(member)):
                drawing = filters.feature_maps(network, inputs, layer)
                kind = "narrow" if layer.startswith("fc") else ""
                words = (
                    f"The maps of {layer} for an image of {truth}: bright where a kernel has found what it looks for"
                )
                html = self.draw(
                    f"maps-{layer}",
                    drawing,
                    words,
                    "Black is zero, each map scaled to its largest value." if not kind else "Every square is a unit.",
                    kind,
                )
                parts.append(page.folded(layer, html, is_open=number == 0))
            lead += " And the maps that every layer draws of an image."
        self.sections.append(Section("inside", "What it has become", lead, "".join(parts)))

    def recipe(self) -> None:
        """Every value of the training."""
        recipe = self.run.config.recipe
        usual = recipes().get(recipe.name)
        rows = list(sentences.recipe_rows(recipe, usual))
        head = ("value", "here", f"recipe {recipe.name}", "what it is")
        changed = [
            f"`{name}` is {here} (usually {there})" for name, here, there, _ in rows if there not in ("", "auto", here)
        ]
        words = [f"Recipe {recipe.name}: {recipe.purpose}"]
        words += [f"Changed from it: {', '.join(changed)}."] if changed else []
        html = page.sentences(words) + "<br>" + page.folded("Every value", page.table(head, rows))
        self.sections.append(Section("recipe", "The recipe", "", html))

    # The files.

    def draw(self, name: str, figure: style.Figure, description: str, note: str, kind: str = "") -> str:
        """A figure as files and as a part of the page."""
        links = self.save(name, figure)
        drawing = (self.folder / links["SVG"]).read_bytes()
        return page.figure(style.inline(drawing, name, description), note, links, kind)

    def save(self, name: str, figure: style.Figure) -> dict[str, str]:
        """Write a figure as PNG and SVG; their addresses as the page links them."""
        contents = {"SVG": style.svg(figure)}
        figure.set_layout_engine("none")  # it is laid out: no need to do it again for the second file
        contents["PNG"] = style.png(figure)
        links = {form: f"{FIGURES}/{name}.{form.lower()}" for form in contents}
        with _writing(self.folder):
            (self.folder / FIGURES).mkdir(parents=True, exist_ok=True)
            for form, content in contents.items():
                write_atomic(self.folder / links[form], content)
        return links

    def write(self, member: Member | None, evaluation: Evaluation | None) -> Path:
        """The page, with what is most important first."""
        config = self.run.config
        epochs = self.run.metrics("epoch")
        done = epochs[-1]["epoch"] if epochs else 0
        in_progress = done < config.recipe.epochs
        state = f"in progress: {done} of {config.recipe.epochs} epochs" if in_progress else f"{done} epochs"
        counts = config.dataset.get("counts", {})
        learned = f", {counts['train']:,} images to learn from" if "train" in counts else ""
        under = f"Recipe {config.recipe.name}, network {config.recipe.variant}, {len(config.classes):,} classes"
        under += f"{learned}; {state}."
        progress_so_far = []
        if in_progress:
            weights = f"; shown are its {self.weights} weights so far" if self.weights else ""
            progress_so_far = [f"The training has done {done} of {config.recipe.epochs} epochs{weights}."]
        glance = page.tiles(sentences.numbers(self.run, evaluation)) + page.sentences(
            [*progress_so_far, *sentences.in_short(self.run, evaluation)]
        )
        if self.left_out:
            glance += f"<h3>Not in this report</h3>{page.sentences(self.left_out)}"
        sections = [Section("glance", "At a glance", "", glance), *self.sections]
        today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        origin = escape(str(self.run.path))
        footer = f"Written {today} by alexnet {__version__} on {escape(machine())}, from {origin}. "
        footer += f"The figures are in {FIGURES}/ beside this page."
        name = self.run.path.absolute().name
        over = f"AlexNet · {name} · what it has learned"
        html = page.page(
            f"{name} · AlexNet", over, sentences.question(config.classes), under, _banner(member), sections, footer
        )
        path = self.folder / REPORT
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, html.encode("utf-8", errors="replace"))
        return path


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AlexNetError(f"{folder}: the report can't be written: {error.strerror or error}") from error


# Parts of sections.


def _class_table(evaluation: Evaluation) -> str:
    def percent(share: float | None) -> str:
        return "–" if share is None else f"{share:.1%}"

    head = ["class", "images", "found (recall)", "right when said (precision)"]
    rows = [
        [name, f"{row['n']:,}", percent(row["recall"]), percent(row["precision"])]
        for name, row in evaluation.per_class().items()
    ]
    return page.table(head, rows, numbers=(1, 2, 3))


def _dial(evaluation: Evaluation) -> str:
    if evaluation.positive is None:
        return ""
    score, is_positive = metrics.scores(evaluation.predictions, evaluation.positive)
    rows = metrics.threshold_curve(score, is_positive, points=DIAL_POINTS)
    if len(rows) < 2:
        return ""
    chosen = metric_figures.chosen_thresholds(evaluation)
    wanted = chosen[-1]["threshold"] if chosen else metric_figures.EVEN
    start = int(np.argmin([abs(row["threshold"] - wanted) for row in rows]))
    positives = int(is_positive.sum())
    return page.dial(evaluation.classes[evaluation.positive], rows, positives, len(score) - positives, start)


def _health(run: Run) -> str:
    findings = run.metrics("finding")
    if not findings:
        return '<div class="card alone fine">Nothing wrong was noticed while it trained.</div>' if run.metrics() else ""
    return "".join(
        f'<div class="card alone finding"><p><b>{page.with_code(sentences.sentence(finding["message"]))}</b></p>'
        f"<p>What to do: {page.with_code(finding['remedy'])}. <small>(Step {finding['step']:,}.)</small></p></div>"
        for finding in findings
    )


def _answer_cards(evaluation: Evaluation, indices: np.ndarray) -> Iterator[str]:
    p, names = evaluation.predictions, evaluation.classes
    for index, pixels in zip(indices.tolist(), evaluation.split.gather(indices), strict=True):
        truth = names[p.labels[index]]
        answers = [(names[c], float(s)) for c, s in zip(p.ranked[index], p.ranked_probabilities[index], strict=True)]
        description = f"{truth}; the network says {answers[0][0]}, {answers[0][1]:.0%}"
        yield page.answer_card(
            page.image(pixels, description), truth, Path(evaluation.split.paths(index)).name, answers
        )


def _batches(split: Split, indices: np.ndarray, bar: Progress) -> Iterator[np.ndarray]:
    """The images of `indices`, a batch at a time."""
    for part, batch in split.batches(indices, BATCH_SIZE):
        yield batch
        bar.advance(len(part))


def _layers_with_weights(member: Member) -> list[str]:
    """The layers whose maps are shown: every convolution and the fully connected ones before the last."""
    network = member.network
    return [name for name in network.layer_names() if name.startswith(("conv", "fc"))]


def _files(words: str, links: dict[str, str]) -> str:
    addresses = " · ".join(f'<a href="{address}">{form}</a>' for form, address in links.items())
    return f'<p class="lead files">{words}: {addresses}</p>'


def _banner(member: Member | None) -> str:
    """The first-layer kernels, behind the title."""
    if member is None:
        return ""
    tiles = filters.kernel_tiles(member.network)
    image = mosaic(tiles[: len(tiles) // 24 * 24], columns=24, gap=1)
    return page.image(image, "", "PNG").replace("<img ", '<img class="banner" ')
