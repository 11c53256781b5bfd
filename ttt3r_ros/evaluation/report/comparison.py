# SPDX-License-Identifier: Apache-2.0
"""Which metrics of several sequences and configurations stand side by side, and which is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ttt3r_ros.evaluation.report.data import Comparison, Published, Result
from ttt3r_ros.evaluation.report.glossary import Label, unit_of
from ttt3r_ros.evaluation.report.numbers import NONE, shown


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure that sequences are compared by."""

    label: Label
    path: tuple[str, ...]  # where it is in report.json
    best: Callable[[Iterable[float]], float] | None  # None: neither more nor less is better
    weight: tuple[str, ...] = ()  # of a sequence in means, where in report.json; empty: all alike
    compared: tuple[str, ...] = ()  # count of what it is about, where in report.json

    @property
    def key(self) -> str:
        """Its name, which tells its unit."""
        return self.path[-1]

    @property
    def unit(self) -> str:
        """The unit it is shown in."""
        return unit_of(self.key)

    def of(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the figure, None if there is none."""
        return _number(metrics, self.path)

    def compared_of(self, metrics: Mapping[str, Any]) -> float:
        """Return of how much it is."""
        return (_number(metrics, self.compared) or 0) if self.compared else 1

    def weight_of(self, metrics: Mapping[str, Any]) -> float:
        """Return how heavy a sequence is in means."""
        return (_number(metrics, self.weight) or 0) if self.weight else 1


def _number(metrics: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = metrics
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


_POSES, _PIXELS = ("trajectory", "poses"), ("depth", "pixels")
_LEAST_COMPARED = 0.95  # of what others are compared by; with less none is the best


def _pose(text: str, term: str, alignment: str, key: str) -> Headline:
    path = ("trajectory", "alignments", alignment, key)
    return Headline(Label(text, term), path, min, compared=_POSES)


def _depth(
    text: str, term: str, alignment: str, key: str, best: Callable[[Iterable[float]], float]
) -> Headline:
    path = ("depth", "alignments", alignment, key)
    return Headline(Label(text, term), path, best, weight=_PIXELS, compared=_PIXELS)


HEADLINES = (
    _pose("ATE, Sim(3)", "ate", "sim3", "ate_rmse_m"),
    _pose("ATE, SE(3)", "ate", "se3", "ate_rmse_m"),
    _pose("RPE trans, Sim(3)", "rpe", "sim3", "rpe_trans_rmse_m"),
    _pose("RPE rot", "rpe", "none", "rpe_rot_rmse_deg"),
    _depth("AbsRel, as it is", "abs_rel", "metric", "abs_rel", min),
    _depth("AbsRel, scale", "abs_rel", "scale", "abs_rel", min),
    _depth("δ < 1.25, as it is", "delta", "metric", "delta_1_25", max),
    _depth("δ < 1.25, scale", "delta", "scale", "delta_1_25", max),
    Headline(Label("map accuracy", "surface"), ("map", "accuracy_m"), min),
    Headline(Label("map completeness", "surface"), ("map", "completeness_m"), min),
    Headline(Label("normal consistency", "normals"), ("map", "normal_consistency"), max),
    Headline(Label("poses compared"), _POSES, None),
    Headline(Label("images"), ("images",), None),
    Headline(Label("lost", "state"), ("images_lost",), None),
    Headline(Label("replaced"), ("images_replaced",), None),
    Headline(Label("latency, p95", "step"), ("runtime", "latency_ms_p95"), min),
    Headline(Label("images per second", "speed"), ("runtime", "images_per_second"), max),
)


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A line of the comparison; `kind` is "result", "paper" or "mean"."""

    kind: str
    sequence: str
    name: str  # of the configuration, or of a paper's method
    cells: tuple[str, ...]
    best: tuple[bool, ...]  # of the configurations of this sequence
    folder: str = ""
    failure: str = ""


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
        values = [_values(lines, result.metrics) for result in ours]
        best_of = _best(lines, _alike_in_extent(lines, ours, values))
        for result, own, best in zip(ours, values, best_of, strict=True):
            cells = tuple(shown(line.key, value) for line, value in zip(lines, own, strict=True))
            rows.append(
                ComparedRow(
                    "result",
                    sequence,
                    result.configuration,
                    cells,
                    best,
                    result.folder,
                    result.failure,
                )
            )
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


def _values(lines: Sequence[Headline], metrics: Mapping[str, Any]) -> list[float | None]:
    return [line.of(metrics) for line in lines]


def _best(
    lines: Sequence[Headline], values: Sequence[Sequence[float | None]]
) -> list[tuple[bool, ...]]:
    """Return for each row which of its metrics are the best, as far as can be seen.

    None is where there is but one, or where they are all shown alike.
    """
    columns = []
    for number, line in enumerate(lines):
        texts = [shown(line.key, row[number]) for row in values]
        known = [value for row in values if (value := row[number]) is not None]
        alike = len({text for text in texts if text != NONE}) < 2
        best = shown(line.key, line.best(known)) if line.best and not alike else None
        columns.append([text == best for text in texts])
    return [tuple(column[row] for column in columns) for row in range(len(values))]


def _alike_in_extent(
    lines: Sequence[Headline],
    results: Sequence[Result],
    values: Sequence[Sequence[float | None]],
) -> list[list[float | None]]:
    """Return the values without those of much less than others are about.

    Whoever has lost the difficult images has small errors on the others.
    """
    kept = [list(row) for row in values]
    for place, line in enumerate(lines):
        extents = [line.compared_of(result.metrics) for result in results]
        for row, extent in zip(kept, extents, strict=True):
            if extent < _LEAST_COMPARED * max(extents):
                row[place] = None
    return kept


def _papers(
    lines: Sequence[Headline], published: Sequence[Published], sequence: str
) -> Iterator[ComparedRow]:
    for entry in published:
        if entry.sequence == sequence:
            values = _values(lines, entry.metrics)
            cells = tuple(shown(line.key, v) for line, v in zip(lines, values, strict=True))
            yield ComparedRow("paper", sequence or "mean", entry.name, cells, (False,) * len(lines))


def _weighted_mean(values: Sequence[tuple[float, float]]) -> float | None:
    """Return the mean of values with weights, None without any."""
    total = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / total if total else None


def _means(lines: Sequence[Headline], results: Sequence[Result]) -> list[ComparedRow]:
    """Return a row for each configuration; none if there is but one sequence."""
    count = len({result.sequence for result in results})
    if count < 2 or not lines:
        return []
    names = list(dict.fromkeys(result.configuration for result in results))
    columns = []
    for line in lines:
        known = [
            {
                result.sequence: (value, line.weight_of(result.metrics))
                for result in results
                if result.configuration == name and (value := line.of(result.metrics)) is not None
            }
            for name in names
        ]
        means = [_weighted_mean([*values.values()]) for values in known]
        texts = [
            shown(line.key, mean) + ("" if len(values) in (0, count) else f" ({len(values)})")
            for mean, values in zip(means, known, strict=True)
        ]
        # Means over unlike sequences are not compared.
        alike = len({frozenset(values) for values in known if values}) == 1
        best = _best([line], [[mean if alike else None] for mean in means])
        columns.append([(text, mark) for text, (mark,) in zip(texts, best, strict=True)])
    rows = zip(*columns, strict=True)
    return [
        ComparedRow("mean", "mean", name, tuple(t for t, _ in row), tuple(m for _, m in row))
        for name, row in zip(names, rows, strict=True)
    ]
