# SPDX-License-Identifier: Apache-2.0
"""Reports as text, from the templates beside this file: pages of HTML, and Markdown without charts.

A page is one file that loads nothing else and runs no script. Whatever a template prints is escaped
for its language unless it is markup of a template's own.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ttt3r_ros.evaluation.report.comparison import HEADLINES, compared_rows, headlines
from ttt3r_ros.evaluation.report.data import Comparison, Picture, SequenceReport
from ttt3r_ros.evaluation.report.glossary import NONE, TERMS, number, shown
from ttt3r_ros.evaluation.report.pictures import (
    LARGEST_ERROR,
    VIEW_WIDTH,
    colour_error,
    colour_example,
    jpeg_uri,
    png_uri,
    range_of,
    relative_error,
)
from ttt3r_ros.evaluation.report.plots import path_plots, time_plots
from ttt3r_ros.evaluation.report.tables import missing, run_metadata, sequence_tables

_MAP_WIDTH = 960
_TILES = {"ATE, SE(3)", "ATE, Sim(3)", "AbsRel, as it is", "map accuracy", "images per second"}
_SPACE = re.compile(r"[ \t\r\n]+")  # other kinds belong to numbers
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def _plain(value: Any) -> Markup:
    """Return a text in which nothing is Markdown; markup of the templates' own stays."""
    if isinstance(value, Markup):
        return value
    return Markup(_SPECIAL.sub(r"\\\1", _SPACE.sub(" ", str(value))))


def _environment(**options: Any) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    environment.filters["url"] = quote
    return environment


_html = _environment()
_markdown = _environment(finalize=_plain, keep_trailing_newline=True)


def sequence_page(report: SequenceReport) -> str:
    """Return the page about one sequence."""
    series = report.series if report.series and len(report.series.stamps_ns) else None
    tiles = [line for line in HEADLINES if line.label.text in _TILES]
    return _page(
        "sequence.html",
        report=report,
        tiles=[
            (line.label, shown(line.key, value), line.unit)
            for line in tiles
            if (value := line.of(report.metrics)) is not None
        ],
        charts={
            "Path": path_plots(series) if series else [],
            "Over time": time_plots(series) if series else [],
        },
        examples=_examples(report),
        map_uri="" if report.map_picture is None else jpeg_uri(report.map_picture, _MAP_WIDTH),
        exact=json.dumps(report.metrics, indent=1, ensure_ascii=False),
        **_of_sequence(report),
    )


def sequence_text(report: SequenceReport, template: str = "sequence.md", **more: Any) -> str:
    """Return the report about one sequence as Markdown, by a template that is given `more`."""
    text = _markdown.get_template(template)
    return _tidy(text.render(report=report, **_of_sequence(report), **more))


def comparison_page(comparison: Comparison) -> str:
    """Return the page about several sequences and configurations."""
    return _page("comparison.html", **_of_comparison(comparison))


def comparison_text(comparison: Comparison) -> str:
    """Return the report about several sequences and configurations as Markdown."""
    return _tidy(_markdown.get_template("comparison.md").render(_of_comparison(comparison)))


def _page(template: str, **content: Any) -> str:
    style = Markup((Path(__file__).parent / "templates/style.css").read_text("utf-8"))
    return _html.get_template(template).render(
        style=style, terms=TERMS, used=set(), svg_uri=_svg_uri, **content
    )


def _tidy(text: str) -> str:
    """Return a text without the empty lines that templates leave."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _of_sequence(report: SequenceReport) -> dict[str, Any]:
    return {
        "notes": missing(report.metrics),
        "tables": sequence_tables(report.metrics),
        "made": run_metadata(report.metrics),
    }


def _of_comparison(comparison: Comparison) -> dict[str, Any]:
    rows = groupby(compared_rows(comparison), key=lambda row: row.sequence)
    return {
        "comparison": comparison,
        "lines": headlines(comparison),
        "groups": [(sequence, [*group]) for sequence, group in rows],
        "made": run_metadata(comparison.run_metadata),
        "directions": {min: ("↓", "lower"), max: ("↑", "higher")},
    }


def _svg_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode('ascii')}"


def _examples(report: SequenceReport) -> Mapping[str, Any]:
    """Return the keys of the colours and, for each example, when it was and its pictures."""
    if not report.views:
        return {}
    first_ns = report.series.stamps_ns[0] if report.series else report.views[0].stamp_ns
    near_m, far_m = range_m = range_of(report.views)
    levels = np.linspace(0, 1, 256, dtype=np.float32)[None]
    keys = [("depth", f"{near_m:g} m", f"{far_m:g} m", png_uri(colour_example(levels, (0, 1))))]
    if any(view.true_depth_m is not None for view in report.views):
        most = f"{100 * LARGEST_ERROR:.0f} % or more"
        colours = png_uri(colour_error(LARGEST_ERROR * levels))
        keys.append(("error, share of the true depth", "0", most, colours))
    rows = []
    for view in report.views:
        pictures: list[tuple[str, Picture]] = [
            ("image", view.rgb),
            ("depth", colour_example(view.depth_m, range_m)),
        ]
        error, abs_rel = relative_error(view), ""
        if view.true_depth_m is not None and error is not None:
            pictures.append(("true depth", colour_example(view.true_depth_m, range_m)))
            pictures.append(("error", colour_error(error)))
            known = error[np.isfinite(error)]
            abs_rel = number(float(known.mean())) if len(known) else NONE
        uris = [(name, jpeg_uri(picture, VIEW_WIDTH)) for name, picture in pictures]
        rows.append((f"{(view.stamp_ns - first_ns) / 1e9:.1f} s", abs_rel, uris))
    return {"keys": keys, "rows": rows}
