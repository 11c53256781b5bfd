# SPDX-License-Identifier: Apache-2.0
"""Reports as Markdown: the tables of the pages, without charts and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from ttt3r_ros.evaluation.report.comparison import compared_rows, headlines
from ttt3r_ros.evaluation.report.data import Comparison, SequenceReport
from ttt3r_ros.evaluation.report.tables import Table, missing, run_metadata, sequence_tables

_SPACE = re.compile(r"[ \t\r\n]+")  # other kinds belong to numbers
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def sequence_text(report: SequenceReport) -> str:
    """Return the report about one sequence."""
    parts = [
        f"# {_plain(report.name)}",
        f"Configuration {_plain(report.configuration)}. Charts and pictures: "
        "[report.html](report.html).",
        *(_plain(line) for line in missing(report.metrics)),
        *(_table(table) for table in sequence_tables(report.metrics)),
        _made(run_metadata(report.metrics)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_text(comparison: Comparison) -> str:
    """Return the report about several sequences and configurations."""
    lines, rows = headlines(comparison), compared_rows(comparison)
    head = ["sequence", "configuration", *(_titled(line.label.text, line.unit) for line in lines)]
    body = []
    for row in rows:
        name = _plain(row.name)
        if row.kind == "paper":
            name = f"*the paper's: {name}*"
        elif row.folder:
            name = f"[{name}]({quote(row.folder)}/report.html)"
        cells = [
            f"**{cell}**" if best else cell
            for cell, best in zip(map(_plain, row.cells), row.best, strict=True)
        ]
        if row.failure:
            cells = [_plain(row.failure), *[""] * (len(lines) - 1)]
        body.append([_plain(row.sequence), name, *cells])
    parts = [
        f"# {_plain(comparison.title)}",
        _plain(comparison.about),
        "The best of a sequence's configurations is **bold**; what a paper says is in *italics*.",
        _grid(head, body),
        _made(run_metadata(comparison.run_metadata)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """Return a text in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", _SPACE.sub(" ", text))


def _titled(name: str, unit: str) -> str:
    return _plain(name) + (f" \\[{_plain(unit)}\\]" if unit else "")


def _table(table: Table) -> str:
    head = [table.title, *(column.text for column in table.columns)]
    rows = [[_titled(row.label.text, row.unit), *map(_plain, row.cells)] for row in table.rows]
    return _grid([_plain(text) for text in head], rows)


def _made(groups: Mapping[str, Mapping[str, str]]) -> str:
    rows = [
        [_plain(f"{group}.{name}"), _plain(value)]
        for group, entries in groups.items()
        for name, value in entries.items()
    ]
    if not rows:
        return ""
    grid = _grid(["made with", ""], rows)
    return f"<details><summary>How it was made</summary>\n\n{grid}\n\n</details>"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, its first column to the left, the others to the right."""
    aligned = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, aligned, *rows))
