# SPDX-License-Identifier: Apache-2.0
"""The metrics of a sequence as tables, which `render` writes.

Every figure of `json` is in one of them: what `glossary` does not know is called by
its own name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ttt3r_ros.evaluation.report.glossary import Label, column_of, label_of, shown, unit_of

ALIGNMENTS = "alignments"
_COMPARED = {"trajectory": "Trajectory", "depth": "Depth", "map": "Map"}
_ONLINE, _LOOPS = "trajectory_online", "loops"
# A mapping that there may not be, and nothing is missing then.
_MORE = {_ONLINE: "Trajectory, as the robot had it", _LOOPS: "Loops"}
_RUN = "runtime"
_NOTE, _DAMAGE, _BEFORE_RESET = "note", "damage", "images_before_reset"
_REASONS = "not_compared"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, or one under several alignments."""

    label: Label
    unit: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of metrics; one column of metrics has no name."""

    title: str
    columns: tuple[Label, ...]
    rows: tuple[Row, ...]


def sequence_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """Return the tables of what was measured.

    Args:
        metrics: the content of report.json. `trajectory`, `depth`, `map`, `loops` and `runtime`
            are mappings of metrics by name; numbers in no mapping belong to the run. Such a
            mapping may hold mappings by a name or distance that all columns of a table have, of
            which `alignments` come first, and lists of mappings whose first figure is the distance.
    """
    tables: list[Table] = []
    for key, title in (_COMPARED | _MORE).items():
        if metrics.get(key):
            tables += _tables_of(title, metrics[key])
    run = {key: value for key, value in metrics.items() if _is_figure(value)}
    return [*tables, *_tables_of("Images and time", {**run, **metrics.get(_RUN, {})})]


def missing(metrics: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing that has to be known, or is not as it should be."""
    lines = [f"Note: {metrics[_NOTE]}."] if metrics.get(_NOTE) else []
    if metrics.get(_DAMAGE):
        lines.append(f"The recording is damaged: {metrics[_DAMAGE]}")
    if count := metrics.get(_BEFORE_RESET):
        lines.append(f"{count} images before a reset are not compared.")
    reasons = metrics.get(_REASONS) or {}
    for key, title in _COMPARED.items():
        if not metrics.get(key):
            reason = f", {reasons[key]}" if reasons.get(key) else ""
            lines.append(f"{title}: not compared{reason}.")
    return lines


def run_metadata(metrics: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return how the metrics came about: by group, then by dotted name."""
    groups: dict[str, dict[str, str]] = {}
    for key, value in metrics.items():
        if key in (*_COMPARED, *_MORE, _RUN, _NOTE, _DAMAGE, _REASONS) or _is_figure(value):
            continue
        if isinstance(value, Mapping):
            groups[key] = {name: _text(entry) for name, entry in flat(value)}
        else:
            groups.setdefault("run", {})[key] = _text(value)
    return {key: rows for key, rows in groups.items() if rows}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in nested mappings by dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _tables_of(title: str, group: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the metrics of a group: under several alignments, single ones, and by distances."""
    columns = {key: _columns(value) for key, value in group.items()}
    single = dict(flat({key: group[key] for key in group if not columns[key]}))
    if aligned := columns.pop(ALIGNMENTS, None):
        yield _matrix(title, aligned)
        title = f"{title}, more"
    if single:
        rows = (Row(label_of(key), unit_of(key), (shown(key, single[key]),)) for key in single)
        yield Table(title, (Label(""),), tuple(rows))
    for key, found in columns.items():
        if found:
            yield _matrix(label_of(key).text, found)


def _columns(value: Any) -> dict[Label, Mapping[str, Any]]:
    """Return the columns of what is a mapping, or a list, of mappings; else nothing."""
    if isinstance(value, (list, tuple)) and all(isinstance(entry, Mapping) for entry in value):
        return dict(map(_by_first, value))
    if isinstance(value, Mapping) and all(isinstance(entry, Mapping) for entry in value.values()):
        return {column_of(name): _unnamed(name, entry) for name, entry in value.items()}
    return {}


def _unnamed(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a column without the one that its name says."""
    return {key: value for key, value in entry.items() if _named(key, value) != name}


def _named(key: str, value: Any) -> str:
    return f"{value:g} {unit_of(key)}" if _is_figure(value) else ""


def _by_first(entry: Mapping[str, Any]) -> tuple[Label, Mapping[str, Any]]:
    """Return the first figure, which names a column, and the others."""
    (key, value), *others = entry.items()
    return Label(_named(key, value)), dict(others)


def _matrix(title: str, columns: Mapping[Label, Mapping[str, Any]]) -> Table:
    """Return a table with a row for each figure that any of the columns has."""
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    rows = (
        Row(
            label_of(key),
            unit_of(key),
            tuple(shown(key, column.get(key)) for column in columns.values()),
        )
        for key in keys
        if any(column.get(key) is not None for column in columns.values())
    )
    return Table(title, tuple(columns), tuple(rows))


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "–" if value is None or value == "" else str(value)
