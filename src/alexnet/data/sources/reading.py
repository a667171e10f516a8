"""The reading of a folder or an archive: what the rules note meanwhile, and the source that comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from alexnet.data.sources.file_index import FileIndex
from alexnet.data.sources.items import Item, Items, Origin, Source
from alexnet.data.sources.layout import Layout
from alexnet.data.sources.plan import printable
from alexnet.data.sources.tree import Folder, Parts, Tree
from alexnet.data.sources.walking import Tally
from alexnet.runtime.errors import UsageError


class Reading:
    """A tree, and what the rules note of it.

    Attributes
    ----------
    tree, request
        The files of the source, counted by folder, and the options.
    assumptions, warnings
        Sentences of the plan: how the source was understood, and what is likely not intended.
    left
        The images that are not used, by reason.
    extra
        Images whose class a table says beside those of a layout.
    used
        Names of the tables that say classes or splits.
    unread
        Why tables cannot be read.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree, self.request = tree, tree.request
        self.assumptions: list[str] = []
        self.warnings: list[str] = []
        self.left = Tally()
        self.extra: list[Source] = []
        self.used: set[str] = set()
        self.unread: list[str] = []

    @cached_property
    def index(self) -> FileIndex:
        """All images of the source by path and name."""
        return FileIndex(self.tree.entries())

    def at(self, parts: Parts) -> Folder:
        """The folder of a path."""
        folder = self.tree.top
        for name in parts:
            folder = folder.folders[name]
        return folder

    def above(self, node: Folder) -> list[Folder]:
        """The folders that a folder lies in, from the top."""
        return [self.at(node.parts[:depth]) for depth in range(len(node.parts))]

    @property
    def root(self) -> Parts:
        """The folder of --root."""
        return self.tree.find(self.request.root).parts if self.request.root else ()

    def source_of(self, layout: Layout, splits: Mapping[tuple[str, int], str] | None = None) -> Source:
        """The images of a layout; `splits`, by file and offset, go before those of its folders."""
        self.assumptions += layout.assumptions
        tree = self.tree
        if layout.classes_from != "name" and not any(place.label or place.split for place in layout.places.values()):
            for folder in map(self.at, layout.places):
                if folder.images:
                    self.left.add("in no class folder", folder.first_image, folder.images)
        origins = _origins(layout)
        rest = None
        if splits:
            folders = origins[0].place
            origins = [Origin(split, f"{folders}, by a list") for split in sorted(set(splits.values()) | {"train"})]
            unlisted = sum(self.at(parts).total for parts in layout.places) - len(splits)
            if "train" not in splits.values():
                rest = "train"
            elif unlisted > 0:
                self.left.add("in none of the lists of splits", "images", unlisted)

        def items() -> Iterator[Item]:
            last: tuple[Parts, tuple[str, str | None] | None] | None = None
            for entry in tree.entries():
                folder = entry.parts[:-1]
                if last is None or last[0] != folder or layout.classes_from == "name":
                    last = (folder, layout.assign(entry.parts))
                assigned = last[1]
                if assigned is None:
                    continue
                split = splits.get((entry.file, entry.offset), rest) if splits else assigned[1]
                if split is not None or not splits:
                    yield Item("/".join(entry.parts), assigned[0], split, *entry[1:5])
            for source in self.extra:
                yield from source.items

        for source in self.extra:
            origins += source.origins
            self.assumptions += source.assumptions
            self.warnings += source.warnings

        return self.finished(Source(Items(items), kind=tree.kind, origins=origins))

    def finished(self, source: Source) -> Source:
        """A source with what was noted while it was read."""
        left = [*self.left.list(), *self.tree.walk.tally.list(), *self.tree.unused(self.used), *source.ignored]
        return Source(
            source.items,
            source.descriptions,
            self.tree.kind,
            source.origins,
            [one._replace(first=printable(one.first)) for one in left],
            [*self.tree.assumptions, *self.assumptions, *source.assumptions],
            [*self.warnings, *source.warnings],
        )

    def ambiguous(self, what: str, readings: Sequence[tuple[str, list[str]]]) -> UsageError:
        """The error of a source with several plausible readings: what each is, and the options that choose it."""
        choices = "; ".join(
            f"({number}) {reading}: {self.request.command(*options)}"
            for number, (reading, options) in enumerate(readings, start=1)
        )
        ways = {2: "two", 3: "three"}.get(len(readings), str(len(readings)))
        return UsageError(f"{self.request.path} can be understood in {ways} ways, as {what}. Choose one: {choices}")


def _origins(layout: Layout) -> list[Origin]:
    """Where the images of each split of a layout lie."""
    places = layout.places
    if len(places) > 2 and all(place.label for place in places.values()):
        return [
            Origin(split, f"{split} folders of the classes")
            for split in sorted({str(place.split) for place in places.values()})
        ]
    by_name = layout.classes_from == "name"
    origins = []
    for parts, place in places.items():
        if parts:
            where = "/".join(parts) + ("/, by file names" if by_name else "/")
        else:
            where = "its file names" if by_name else "its folders"
        origins.append(Origin(place.split, printable(where)))
    return origins
