# SPDX-License-Identifier: Apache-2.0
"""Reports as pages of HTML, each one file that loads nothing else and runs no script.

Every text that comes from outside goes through `escape`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any
from urllib.parse import quote

import numpy as np

from ttt3r_ros.evaluation.report.comparison import (
    HEADLINES,
    ComparedRow,
    Headline,
    compared_rows,
    headlines,
)
from ttt3r_ros.evaluation.report.data import Comparison, Picture, SequenceReport, View
from ttt3r_ros.evaluation.report.glossary import TERMS
from ttt3r_ros.evaluation.report.numbers import NONE, number, shown
from ttt3r_ros.evaluation.report.pictures import (
    LARGEST_ERROR,
    VIEW_WIDTH,
    colour_depth,
    colour_error,
    depth_colours,
    error_colours,
    jpeg_uri,
    png_uri,
    range_of,
    relative_error,
)
from ttt3r_ros.evaluation.report.plots import Plot, path_plots, time_plots
from ttt3r_ros.evaluation.report.style import HATCH, STYLE
from ttt3r_ros.evaluation.report.tables import Table, missing, run_metadata, sequence_tables

_MAP_WIDTH = 960
_TILES = {"ATE, SE(3)", "ATE, Sim(3)", "AbsRel, as it is", "map accuracy", "images per second"}
# Nothing may be loaded, whatever names and paths contain.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def sequence_page(report: SequenceReport) -> str:
    """Return the page about one sequence."""
    words = _Words()
    parts = [
        f"<h1>{escape(report.name)}</h1>",
        f'<p class="subtitle faint">{escape(report.configuration)}</p>',
        _tiles(report.metrics, words),
        *(f'<p class="note">{escape(line)}</p>' for line in missing(report.metrics)),
        _section("Figures", _tables(sequence_tables(report.metrics), words)),
    ]
    if report.series and len(report.series.stamps_ns):
        parts.append(_section("Path", _charts(path_plots(report.series), words)))
        parts.append(_section("Over time", _charts(time_plots(report.series), words)))
    if report.views:
        first_ns = report.series.stamps_ns[0] if report.series else report.views[0].stamp_ns
        parts.append(_section("Examples of depth", _views(report.views, int(first_ns), words)))
    if report.map_picture is not None:
        parts.append(_section("Map from above", _map(report.map_picture)))
    exact = json.dumps(report.metrics, indent=1, ensure_ascii=False)
    parts.append(
        _section(
            "How it was made",
            _made(run_metadata(report.metrics)),
            f"<details><summary>All metrics, every digit</summary>"
            f'<pre tabindex="0">{escape(exact)}</pre></details>',
        )
    )
    return _page(f"{report.name}, {report.configuration}", parts, words)


def comparison_page(comparison: Comparison) -> str:
    """Return the page about several sequences and configurations."""
    words = _Words()
    parts = [f"<h1>{escape(comparison.title)}</h1>"]
    if comparison.about:
        parts.append(f"<p>{escape(comparison.about)}</p>")
    parts.append(_section("Comparison", _comparison(comparison, words)))
    if comparison.run_metadata:
        parts.append(_section("How it was made", _made(run_metadata(comparison.run_metadata))))
    return _page(comparison.title, parts, words)


class _Words:
    """The glossary's terms that a page uses."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def why(self, term: str) -> str:
        """Return the link to a term's explanation; nothing for no term."""
        if not term:
            return ""
        self._used.add(term)
        name, text = TERMS[term]
        return (
            f' <a class="why" href="#term-{term}" title="{escape(text)}" '
            f'aria-label="What is {escape(name)}?">?</a>'
        )

    def glossary(self) -> str:
        """Return the explanations of what was asked for."""
        entries = "".join(
            f'<dt id="term-{term}">{escape(name)}</dt><dd>{escape(text)}</dd>'
            for term, (name, text) in TERMS.items()
            if term in self._used
        )
        return f'<dl class="glossary">{entries}</dl>'


def _page(title: str, parts: Iterable[str], words: _Words) -> str:
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{HATCH}\n"
        f"<main>\n{body}\n{_section('Glossary', words.glossary())}\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, *parts: str) -> str:
    body = "".join(parts)
    return f"<section><h2>{title}</h2>\n{body}</section>" if body else ""


def _unit(unit: str) -> str:
    return f' <span class="unit">[{escape(unit)}]</span>' if unit else ""


def _tiles(metrics: Mapping[str, Any], words: _Words) -> str:
    tiles = [
        f"<div class=tile><dt>{escape(line.label.text)}{words.why(line.label.term)}</dt>"
        f'<dd>{escape(shown(line.key, line.of(metrics)))} <span class="unit">{line.unit}</span>'
        "</dd></div>"
        for line in HEADLINES
        if line.label.text in _TILES and line.of(metrics) is not None
    ]
    return f'<dl class="tiles">{"".join(tiles)}</dl>' if tiles else ""


def _scrolling(table: str, name: str) -> str:
    """Return a table that scrolls by itself where the screen is narrow, with the keyboard too."""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">{table}</div>'
    )


def _tables(tables: Sequence[Table], words: _Words) -> str:
    return f'<div class="tables">{"".join(_table(table, words) for table in tables)}</div>'


def _table(table: Table, words: _Words) -> str:
    head = ""
    if any(column.text for column in table.columns):
        cells = "".join(
            f'<th scope="col">{escape(column.text)}{words.why(column.term)}</th>'
            for column in table.columns
        )
        head = f"<thead><tr><td></td>{cells}</tr></thead>"
    rows = "".join(
        f'<tr><th scope="row">{escape(row.label.text)}{_unit(row.unit)}{words.why(row.label.term)}'
        f"</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row.cells)}</tr>"
        for row in table.rows
    )
    return _scrolling(
        f"<table><caption>{escape(table.title)}</caption>{head}<tbody>{rows}</tbody></table>",
        table.title,
    )


def _charts(plots: Sequence[Plot], words: _Words) -> str:
    metrics = (
        f"<figure><figcaption>{escape(plot.title)}{words.why(plot.term)}</figcaption>"
        f"{plot.svg}</figure>"
        for plot in plots
    )
    body = "".join(metrics)
    return f'<div class="charts">{body}</div>' if body else ""


def _views(views: Sequence[View], first_ns: int, words: _Words) -> str:
    range_m = range_of(views)
    near, far = (f"{number(depth_m)} m" for depth_m in range_m)
    keys = [_key("depth", near, far, png_uri(depth_colours()))]
    if any(view.true_depth_m is not None for view in views):
        most = f"{100 * LARGEST_ERROR:.0f} % or more"
        keys.append(_key("error, share of the true depth", "0", most, png_uri(error_colours())))
    keys.append('<span class="key"><span class="chip"></span>unknown</span>')
    rows = "".join(_view(view, range_m, first_ns, words) for view in views)
    return f'<div class="keys">{"".join(keys)}</div><div class="views">{rows}</div>'


def _key(name: str, low: str, high: str, uri: str) -> str:
    return f'<span class="key">{name}: {low} <img src="{uri}" alt="to"> {high}</span>'


def _view(view: View, range_m: tuple[float, float], first_ns: int, words: _Words) -> str:
    pictures = [("image", view.rgb), ("depth", colour_depth(view.depth_m, range_m))]
    caption = f"{(view.stamp_ns - first_ns) / 1e9:.1f} s"
    error = relative_error(view)
    if view.true_depth_m is not None and error is not None:
        pictures += [
            ("true depth", colour_depth(view.true_depth_m, range_m)),
            ("error", colour_error(error)),
        ]
        known = error[np.isfinite(error)]
        mean = number(float(known.mean())) if len(known) else NONE
        caption += f", AbsRel {mean}{words.why('abs_rel')}"
    metrics = "".join(
        f'<figure><img src="{jpeg_uri(picture, VIEW_WIDTH)}" alt="{name} at {caption[:12]}">'
        f"<figcaption>{name}</figcaption></figure>"
        for name, picture in pictures
    )
    return f'<div class="view"><p>{caption}</p>{metrics}</div>'


def _map(picture: Picture) -> str:
    return (
        '<figure class="map"><figcaption>What is far above the cameras is left out. The estimated '
        "path is blue, the true one, where it is known, yellow.</figcaption>"
        f'<img src="{jpeg_uri(picture, _MAP_WIDTH)}" alt="The map and the paths through it, seen '
        'from above"></figure>'
    )


def _made(groups: Mapping[str, Mapping[str, str]]) -> str:
    return "".join(
        f"<details><summary>{escape(group.replace('_', ' '))}</summary>"
        + _scrolling(
            '<table class="text"><tbody>'
            + "".join(
                f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
                for name, value in rows.items()
            )
            + "</tbody></table>",
            group,
        )
        + "</details>"
        for group, rows in groups.items()
    )


def _comparison(comparison: Comparison, words: _Words) -> str:
    lines = headlines(comparison)
    columns = "".join(
        f'<th scope="col">{escape(line.label.text)}{_unit(line.unit)}{words.why(line.label.term)}'
        f"{_direction(line)}</th>"
        for line in lines
    )
    rows = compared_rows(comparison)
    bodies = "".join(
        f'<tbody><tr class="sequence"><th scope="rowgroup" colspan="{len(lines) + 1}">'
        f"<span>{escape(sequence)}</span></th></tr>"
        f"{''.join(_compared(row, len(lines)) for row in group)}</tbody>"
        for sequence, group in groupby(rows, key=_group)
    )
    note = (
        '<p class="faint">The best of a sequence’s configurations is marked ★. What a paper says '
        "is in italics; it is not among those compared. A number behind a mean is that of the "
        "sequences it is over, where some do not have the figure.</p>"
    )
    table = (
        f'<table class="comparison"><thead><tr><th scope="col">configuration</th>{columns}</tr>'
        f"</thead>{bodies}</table>"
    )
    return note + _scrolling(table, "Comparison")


def _group(row: ComparedRow) -> str:
    return row.sequence


def _direction(line: Headline) -> str:
    if line.best is None:
        return ""
    arrow, word = ("↓", "lower") if line.best is min else ("↑", "higher")
    return f' <span title="{word} is better" aria-label="{word} is better">{arrow}</span>'


def _compared(row: ComparedRow, columns: int) -> str:
    name = escape(row.name)
    if row.folder:
        name = f'<a href="{escape(quote(row.folder))}/report.html">{name}</a>'
    if row.kind == "paper":
        name = f"the paper’s: {name}"
    head = f'<tr class="{row.kind}"><th scope="row">{name}</th>'
    if row.failure:
        why = f"<span>{escape(row.failure)}</span>"
        return f'{head}<td class="failure" colspan="{columns}">{why}</td></tr>'
    cells = "".join(
        f'<td class="best">{escape(cell)}<span title="best"> ★</span></td>'
        if best
        else f"<td>{escape(cell)}</td>"
        for cell, best in zip(row.cells, row.best, strict=True)
    )
    return f"{head}{cells}</tr>"
