"""The sections of a report with images: predictions, mistakes, attribution, nearest images, feature maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.evaluation.evaluate import Evaluation
from alexnet.evaluation.predictor import Member
from alexnet.network.features import BATCH_SIZE, layer_features
from alexnet.network.model import AlexNet, towers_of
from alexnet.report import attribution, filters, image_figures, neighbors
from alexnet.report.figure_files import EmbeddedFigure, FigureFiles
from alexnet.report.rendering import EmbeddedImage, embed
from alexnet.report.sections import Section
from alexnet.report.sentences import short_name
from alexnet.runtime.devices import choose_precision
from alexnet.runtime.progress import Progress, progress
from alexnet.search.exact import nearest

PREDICTIONS = 8  # as in the paper's figure 4
MISTAKES = 12
ATTRIBUTIONS = 6
QUERIES = 6
NEIGHBORS = 6  # as in the paper's figure 4
MAX_INDEXED = 2000
"""Training images among which the nearest ones are searched."""


@dataclass(frozen=True)
class PredictionCard:
    """An image, its true class, its file name, and its most probable classes with their probabilities."""

    image: EmbeddedImage
    truth: str
    name: str
    top: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class AttributionCard:
    """The `attribution.OVERLAYS` of an image, its true and its predicted class with the confidence."""

    images: Sequence[tuple[EmbeddedImage, str]]
    truth: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class NeighborRow:
    """A query image with its label, and the nearest images, each with its label and distance."""

    query: EmbeddedImage
    label: str
    found: Sequence[tuple[EmbeddedImage, str, float]]


@dataclass(frozen=True)
class Gallery:
    """Cards, and links to the same as a figure."""

    cards: Sequence[PredictionCard]
    links: Mapping[str, str]


def predictions_section(evaluation: Evaluation, files: FigureFiles) -> Section:
    """Return images of all classes with their most probable classes."""
    chosen = image_figures.spread_over_classes(evaluation.predictions, PREDICTIONS)
    links = files.save("top-five", image_figures.top_five(evaluation, chosen))
    most = min(5, len(evaluation.classes))
    kind = "training" if evaluation.split.name == "train" else "held-out"
    lead = f"Some {kind} images with their {most} most probable classes, the correct one in blue "
    lead += "(figure 4 of the paper)."
    gallery = Gallery(list(_prediction_cards(evaluation, chosen)), links)
    return Section("predictions", "Predictions", lead, "gallery.html", {"gallery": gallery})


def mistakes_section(evaluation: Evaluation, files: FigureFiles) -> Section:
    """Return the most confident mistakes."""
    predictions = evaluation.predictions
    wrong = image_figures.most_confident_mistakes(predictions, MISTAKES)
    if not len(wrong):
        return Section("mistakes", "Mistakes", "All predictions are correct.", "gallery.html", {"gallery": None})
    total = int((~predictions.correct).sum())
    links = files.save("mistakes", image_figures.mistakes(evaluation, MISTAKES))
    lead = f"The {len(wrong)} most confident of {total:,} mistakes. Some may be label errors."
    gallery = Gallery(list(_prediction_cards(evaluation, wrong)), links)
    return Section("mistakes", "Mistakes", lead, "gallery.html", {"gallery": gallery})


def _prediction_cards(evaluation: Evaluation, indices: np.ndarray) -> Iterator[PredictionCard]:
    p, names = evaluation.predictions, evaluation.classes
    for index, pixels in zip(indices.tolist(), evaluation.split.gather(indices), strict=True):
        truth = names[p.labels[index]]
        top = [(names[c], float(s)) for c, s in zip(p.ranked[index], p.ranked_probabilities[index], strict=True)]
        alt = f"{short_name(truth)}, predicted as {short_name(top[0][0])} with confidence {top[0][1]:.0%}"
        yield PredictionCard(embed(pixels, alt), truth, Path(evaluation.split.paths(index)).name, top)


def attribution_section(member: Member, evaluation: Evaluation, files: FigureFiles) -> Section:
    """Return input gradient and Grad-CAM of some images, up to half of them mistakes."""
    predictions, names = evaluation.predictions, evaluation.classes
    wrong = image_figures.most_confident_mistakes(predictions, ATTRIBUTIONS // 2)
    correct = image_figures.most_confident_correct(predictions, ATTRIBUTIONS - len(wrong))
    chosen = np.concatenate([correct, wrong])
    predicted = predictions.ranked[chosen, 0]
    overlays = attribution.attribution_overlays(
        member.network, member.preprocess, evaluation.split.gather(chosen), predicted.tolist()
    )
    titles = [f"predicted: {names[c]}" for c in predicted]
    links = files.save("attribution", attribution.attribution_maps(overlays, titles))
    cards = []
    for row, index in enumerate(chosen):
        truth, answer = names[predictions.labels[index]], names[predicted[row]]
        alts = (
            f"{short_name(truth)}, as the network reads it",
            f"gradient of {short_name(answer)} with respect to the pixels",
            f"Grad-CAM of {short_name(answer)}",
        )
        embedded = [embed(images[row], alt) for images, alt in zip(overlays, alts, strict=True)]
        confidence = float(predictions.ranked_probabilities[index, 0])
        pairs = list(zip(embedded, attribution.OVERLAYS, strict=True))
        cards.append(AttributionCard(pairs, truth, answer, confidence))
    layer = attribution.last_convolution(member.network)
    lead = (
        f"Evidence for the predicted class: the pixels to which its score is most sensitive (gradient), and the "
        f"regions of {layer} that contribute to it (Grad-CAM). Bright frames, stamps or corners suggest that the "
        "network relies on an artifact of the data."
    )
    return Section("attribution", "Attribution", lead, "attribution.html", {"cards": cards, "links": links})


def neighbors_section(
    member: Member, evaluation: Evaluation, dataset: PreparedDataset, files: FigureFiles, precision: str
) -> Section:
    """Return the training images nearest to some test images, by Euclidean distance in the feature layer (fc7)."""
    train, split = dataset.split("train"), evaluation.split
    indexed = np.linspace(0, len(train) - 1, min(MAX_INDEXED, len(train))).round().astype(np.int64)
    queries = image_figures.spread_over_classes(evaluation.predictions, QUERIES)
    if split.name == "train":  # an image is not its own neighbor
        indexed = np.setdiff1d(indexed, queries)
    dtype = choose_precision(precision, member.preprocess.mean.device)
    layer = member.network.feature_layer
    with progress(len(indexed) + len(queries), f"{layer} of images") as bar:
        stored, wanted = (
            np.concatenate(list(layer_features(member.network, member.preprocess, batches, precision=dtype)))
            for batches in (_batches(train, indexed, bar), _batches(split, queries, bar))
        )
    distances, rows = nearest(wanted, stored, NEIGHBORS)
    found = indexed[rows]
    names = np.array(dataset.classes, dtype=object)
    labels, found_labels = names[split.labels[queries]], names[train.labels[found]]
    images = split.gather(queries)
    found_images = train.gather(found.ravel()).reshape(*found.shape, *images.shape[1:])
    figure = neighbors.nearest_images(images, labels.tolist(), found_images, found_labels.tolist())
    links = files.save("neighbors", figure)
    table = []
    for row, label in enumerate(labels):
        others = [
            (embed(pixels, f"training image, {short_name(other)}"), other, float(distance))
            for pixels, other, distance in zip(found_images[row], found_labels[row], distances[row], strict=True)
        ]
        table.append(NeighborRow(embed(images[row], f"{split.name} image, {short_name(label)}"), label, others))
    agreement = float((found_labels == labels[:, None]).mean())
    among = f"{len(indexed):,} training images"
    among += f" of {len(train):,}" if len(indexed) < len(train) else ""
    lead = (
        f"On the left a {split.name} image, then the training images nearest to it by Euclidean distance in the "
        f"{wanted.shape[1]:,} activations of {layer} (figure 4 of the paper). Searched among {among}; "
        f"{agreement:.0%} of the images shown have the label of the query."
    )
    return Section("neighbors", "Nearest images", lead, "neighbors.html", {"rows": table, "links": links})


def _batches(split: Split, indices: np.ndarray, bar: Progress) -> Iterator[np.ndarray]:
    """The images of `indices`, one batch at a time."""
    for part, batch in split.batches(indices, BATCH_SIZE):
        yield batch
        bar.advance(len(part))


def features_section(member: Member, evaluation: Evaluation | None, files: FigureFiles) -> Section:
    """Return the first-layer kernels and, with an evaluation, the feature maps of every layer for one image."""
    network, towers = member.network, towers_of(member.network)
    caption = "Gray is zero; each kernel is scaled to its largest weight."
    caption += " First tower above, second tower below." if towers > 1 else ""
    kernels = files.embed(
        "first-layer-kernels",
        filters.first_layer_kernels(network),
        alt=f"First-layer kernels of {towers} tower{'s' * (towers > 1)}, as small color images",
        caption=caption,
    )
    lead = "The first-layer kernels (figure 3 of the paper)."
    truth, maps = None, []
    if evaluation is not None:
        lead = "The first-layer kernels (figure 3 of the paper), and the feature maps of every layer for one image."
        index = int(image_figures.spread_over_classes(evaluation.predictions, 1)[0])
        image = evaluation.split.gather(np.array([index]))
        inputs = member.preprocess.center(torch.from_numpy(image).to(member.preprocess.mean.device))
        truth = evaluation.classes[evaluation.predictions.labels[index]]
        shown = network.weighted_layers()[:-1]
        maps = [(layer, _layer_figure(network, inputs, layer, truth, files)) for layer in shown]
    values = {"kernels": kernels, "truth": truth, "maps": maps}
    return Section("features", "Kernels and feature maps", lead, "features.html", values)


def _layer_figure(network: AlexNet, inputs: torch.Tensor, layer: str, truth: str, files: FigureFiles) -> EmbeddedFigure:
    is_map = not network.is_fully_connected(layer)
    kind = "feature maps" if is_map else "units"
    return files.embed(
        f"feature-maps-{layer}",
        filters.feature_maps(network, inputs, layer),
        alt=f"The {kind} of {layer} for an image of {short_name(truth)}; bright is a large activation",
        caption="Black is zero; each feature map is scaled to its largest value." if is_map else "One square per unit.",
        narrow=not is_map,
    )
