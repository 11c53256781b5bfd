# SPDX-License-Identifier: Apache-2.0
"""Which metrics of several sequences and configurations stand side by side, and which is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ttt3r_ros.evaluation.report.data import Comparison, Published, Result
from ttt3r_ros.evaluation.report.glossary import NONE, Label, shown, unit_of


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure that sequences are compared by; paths are where it is in report.json."""

    text: str
    term: str  # of the glossary; empty: the name says it all
    path: tuple[str, ...]
    best: Callable[[Iterable[float]], float] | None  # None: neither more nor less is better
    extent: tuple[str, ...] = ()  # count of what it is about; empty: all alike
    is_weighted: bool = False  # by the extent, in means over sequences

    @property
    def key(self) -> str:
        """Its name, which tells its unit."""
        return self.path[-1]

    @property
    def label(self) -> Label:
        """How it is called."""
        return Label(self.text, self.term)

    @property
    def unit(self) -> str:
        """The unit it is shown in."""
        return unit_of(self.key)

    def of(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the figure, None if there is none."""
        return _number(metrics, self.path)

    def extent_of(self, metrics: Mapping[str, Any]) -> float:
        """Return of how much it is."""
        return (_number(metrics, self.extent) or 0) if self.extent else 1


def _number(metrics: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = metrics
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    return value if is_number else None


_LEAST_COMPARED = 0.95  # of what others are compared by; with less none is the best


def _pose(text: str, term: str, alignment: str, key: str, group: str = "trajectory") -> Headline:
    path = (group, "alignments", alignment, key)
    return Headline(text, term, path, min, (group, "poses"))


def _depth(
    text: str, term: str, alignment: str, key: str, best: Callable[[Iterable[float]], float]
) -> Headline:
    path = ("depth", "alignments", alignment, key)
    return Headline(text, term, path, best, ("depth", "pixels"), is_weighted=True)


HEADLINES = (
    _pose("ATE, Sim(3)", "ate", "sim3", "ate_rmse_m"),
    _pose("ATE, SE(3)", "ate", "se3", "ate_rmse_m"),
    _pose("ATE, SE(3), online", "online", "se3", "ate_rmse_m", "trajectory_online"),
    _pose("RPE trans, Sim(3)", "rpe", "sim3", "rpe_trans_rmse_m"),
    _pose("RPE rot", "rpe", "none", "rpe_rot_rmse_deg"),
    _depth("AbsRel, as it is", "abs_rel", "metric", "abs_rel", min),
    _depth("AbsRel, scale", "abs_rel", "scale", "abs_rel", min),
    _depth("δ < 1.25, as it is", "delta", "metric", "delta_1_25", max),
    _depth("δ < 1.25, scale", "delta", "scale", "delta_1_25", max),
    Headline("map accuracy", "surface", ("map", "accuracy_m"), min),
    Headline("map completeness", "surface", ("map", "completeness_m"), min),
    Headline("normal consistency", "normals", ("map", "normal_consistency"), max),
    Headline("poses compared", "", ("trajectory", "poses"), None),
    Headline("images", "", ("images",), None),
    Headline("lost", "state", ("images_lost",), None),
    Headline("replaced", "", ("images_replaced",), None),
    Headline("latency, p95", "step", ("runtime", "latency_ms_p95"), min),
    Headline("images per second", "speed", ("runtime", "images_per_second"), max),
)


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A line of the comparison; `kind` is "result", "paper" or "mean"."""

    kind: str
    sequence: str
    name: str  # of the configuration, or of a paper's method
    cells: tuple[str, ...]
    best: tuple[bool, ...] = ()  # of the configurations of this sequence; empty: none is
    folder: str = ""
    failure: str = ""

    @property
    def marked_cells(self) -> list[tuple[str, bool]]:
        """Its cells, each with whether it is the best."""
        none = (False,) * len(self.cells)
        return list(zip(self.cells, self.best or none, strict=True))


def headlines(comparison: Comparison) -> list[Headline]:
    """Return those that any of the results or papers has."""
    every = [result.metrics for result in comparison.results]
    every += [entry.metrics for entry in comparison.published]
    return [line for line in HEADLINES if any(line.of(metrics) is not None for metrics in every)]


def compared_rows(comparison: Comparison) -> list[ComparedRow]:
    """Return the lines: by sequence, then what papers say of it; the means at the end.

    A mean is that over the sequences that have the figure; where they are not all, their number
    stands behind it. Of depth it is that over all pixels, as published.
    """
    lines = headlines(comparison)
    rows: list[ComparedRow] = []
    for sequence in dict.fromkeys(result.sequence for result in comparison.results):
        ours = [result for result in comparison.results if result.sequence == sequence]
        marks = [_marks(line, ours) for line in lines]
        for number, result in enumerate(ours):
            best = tuple(column[number] for column in marks)
            cells = _cells(lines, result.metrics)
            more = (cells, best, result.folder, result.failure)
            rows.append(ComparedRow("result", sequence, result.configuration, *more))
        rows += _papers(lines, comparison.published, sequence)
    return [*rows, *_means(lines, comparison.results), *_papers(lines, comparison.published, "")]


def comparison_table(comparison: Comparison) -> str:
    """Return the lines as a text for a screen."""
    lines = headlines(comparison)
    titles = [line.label.text + (f" [{line.unit}]" if line.unit else "") for line in lines]
    table = [["sequence", "configuration", *titles]]
    for row in compared_rows(comparison):
        cells = row.cells
        if row.failure:
            cells = (f"FAILED: {row.failure}",)
        table.append([row.sequence, row.name, *cells])
    widths = [
        max(len(line[place]) for line in table if len(line) == len(table[0]))
        for place in range(len(table[0]))
    ]
    texts = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=False))
        for line in table
    )
    return "\n".join(text.rstrip() for text in texts)


def _cells(lines: Sequence[Headline], metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(shown(line.key, line.of(metrics)) for line in lines)


def _best(line: Headline, values: Sequence[float | None]) -> list[bool]:
    """Return which of the values are the best, as far as can be seen.

    None is where there is but one, or where they are all shown alike.
    """
    texts = [shown(line.key, value) for value in values]
    known = [value for value in values if value is not None]
    differ = len({*texts} - {NONE}) > 1
    best = shown(line.key, line.best(known)) if line.best and differ else None
    return [text == best for text in texts]


def _marks(line: Headline, results: Sequence[Result]) -> list[bool]:
    """Return which results of a sequence are the best, of those about as much as any other.

    Whoever has lost the difficult images has small errors on the others.
    """
    extents = [line.extent_of(result.metrics) for result in results]
    enough = [extent >= _LEAST_COMPARED * max(extents) for extent in extents]
    pairs = zip(results, enough, strict=True)
    return _best(
        line, [line.of(result.metrics) if is_enough else None for result, is_enough in pairs]
    )


def _papers(
    lines: Sequence[Headline], published: Sequence[Published], sequence: str
) -> list[ComparedRow]:
    return [
        ComparedRow("paper", sequence or "mean", entry.name, _cells(lines, entry.metrics))
        for entry in published
        if entry.sequence == sequence
    ]


def _means(lines: Sequence[Headline], results: Sequence[Result]) -> list[ComparedRow]:
    """Return a row for each configuration; none if there is but one sequence."""
    count = len({result.sequence for result in results})
    if count < 2 or not lines:
        return []
    names = list(dict.fromkeys(result.configuration for result in results))
    columns = []
    for line in lines:
        texts, means, over = [], [], []
        for name in names:
            known = {
                result.sequence: (value, line.extent_of(result.metrics) if line.is_weighted else 1)
                for result in results
                if result.configuration == name and (value := line.of(result.metrics)) is not None
            }
            total = sum(weight for _, weight in known.values())
            mean = sum(v * weight for v, weight in known.values()) / total if total else None
            some = f" ({len(known)})" if len(known) not in (0, count) else ""
            texts.append(shown(line.key, mean) + some)
            means.append(mean)
            over.append(frozenset(known))
        # Means over unlike sequences are not compared.
        alike = len({*over} - {frozenset()}) == 1
        columns.append(
            zip(texts, _best(line, means if alike else [None] * len(names)), strict=True)
        )
    rows = [tuple(zip(*row, strict=True)) for row in zip(*columns, strict=True)]
    return [
        ComparedRow("mean", "mean", name, texts, best)
        for name, (texts, best) in zip(names, rows, strict=True)
    ]
