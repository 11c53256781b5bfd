# SPDX-License-Identifier: Apache-2.0
"""The reports of an evaluation: whole, self-contained, and without a word that is markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest

from ttt3r_ros.evaluation.report.comparison import compared_rows, headlines
from ttt3r_ros.evaluation.report.data import (
    Comparison,
    DepthExample,
    ExampleSampler,
    Published,
    Result,
    SequenceReport,
    Series,
)
from ttt3r_ros.evaluation.report.files import (
    METRICS,
    PAGE,
    SERIES,
    TEXT,
    read_sequence,
    write_comparison,
    write_sequence,
)
from ttt3r_ros.evaluation.report.glossary import Label, number, shown
from ttt3r_ros.evaluation.report.pictures import (
    LARGEST_ERROR,
    MAP_SIZE,
    UNKNOWN,
    VIEW_WIDTH,
    colour_error,
    colour_example,
    draw_map,
    make_example,
    relative_error,
)
from ttt3r_ros.evaluation.report.plots import (
    MOST_POINTS,
    horizontal_axes,
    path_plots,
    spans,
    subsample,
    time_plots,
)
from ttt3r_ros.evaluation.report.render import (
    comparison_page,
    comparison_text,
    sequence_page,
    sequence_text,
)
from ttt3r_ros.evaluation.report.tables import missing, run_metadata, sequence_tables
from ttt3r_ros.types import EvaluationError, TrackingState

HOSTILE = "<b>&\"'</td>|[x](y)*"
VOID = {"meta", "img", "br", "hr", "input"}
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"


def aligned(ate_m: float) -> dict:
    return {"scale": 0.9, "ate_rmse_m": ate_m, "rpe_trans_rmse_m": ate_m / 10, "reason": None}


def metrics(ate_m: float = 0.1234, abs_rel: float = 0.2345) -> dict:
    return {
        "sequence": "a",
        "trajectory": {
            "poses": 150,
            "path_length_m": 3.71,
            "alignments": {"sim3": aligned(ate_m), "none": {**aligned(2 * ate_m), "scale": None}},
            "motion": {"1 m": {"length_m": 1.0, "pairs": 77, "trans_percent": 11.52}},
            "scale_drift": {"last_by_first": 1.357},
            "revisits": None,
        },
        "depth": {
            "pixels": 11520000,
            "alignments": {"metric": {"abs_rel": abs_rel, "delta_1_25": 0.8549}},
        },
        "map": {
            "accuracy_m": 0.0512,
            "alignment": "se3",
            "scores": [{"threshold_m": 0.05, "precision": 0.511, "f_score": 0.4444}],
        },
        "images": 150,
        "images_lost": 3,
        "runtime": {"images_per_second": 25.9, "peak_memory_bytes": 812 * 2**20},
        "ground_truth": {"poses": "/pose", "depth": None},
        "checkpoint": {"name": "shipped", "sha256": "0123abcd"},
        "config": {"map": {"voxel_size_m": 0.05}},
        "command": "ttt3r evaluate room",
    }


def series(count: int = 50, scale: float = 1.0, **changes) -> Series:
    """A camera on a circle of 2 m; the estimate is smaller by `scale`."""
    angle = np.linspace(0, 5, count)
    true = np.stack((2 * np.cos(angle), 2 * np.sin(angle), 0.01 * angle), axis=1)
    columns = {
        "stamps_ns": np.arange(count, dtype=np.int64) * 100_000_000 + 5,
        "positions_m": true / scale,
        "true_positions_m": true,
        "gain": np.full(count, 0.25),
        "confidence": np.linspace(1, 2, count),
        "scale": np.ones(count),
        "step_ms": np.full(count, 30.0),
        "state": np.full(count, TrackingState.TRACKING, np.int8),
        "segment": np.arange(count, dtype=np.int64) // 20,
        "alignment": "se3",
    }
    return Series(**{**columns, **changes})


def view(stamp_ns: int = 5, true_m: float | None = 2.0) -> DepthExample:
    depth_m = np.full((12, 16), 2.2, np.float32)
    depth_m[0] = np.nan
    true = None if true_m is None else np.full((12, 16), true_m, np.float32)
    return DepthExample(stamp_ns, np.full((12, 16, 3), 90, np.uint8), depth_m, true)


def report(name: str = "room", **changes) -> SequenceReport:
    parts = {
        "metrics": metrics(),
        "series": series(),
        "views": [view(), view(1_000_000_005)],
        "map_picture": np.full((72, 96, 3), 40, np.uint8),
    }
    return SequenceReport(name=name, configuration="ttt3r", **{**parts, **changes})


def comparison(*results: Result, **changes) -> Comparison:
    return Comparison(title="All rooms", results=results, **changes)


class Page(HTMLParser):
    """What a page is made of; refuses elements that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.pieces: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


PAGES = {
    "sequence": lambda: sequence_page(report()),
    "bare sequence": lambda: sequence_page(SequenceReport("room", "ttt3r", {})),
    "comparison": lambda: comparison_page(
        comparison(Result("a", "x", metrics(), "a/x"), run_metadata={"command": "ttt3r"})
    ),
}


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_a_page_loads_nothing_and_runs_nothing(make):
    page = Page(make())
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {*page.tags}
    assert all(source.startswith("data:image/") for source in page.values("src"))
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "url(http" not in make() and "@import" not in make()
    assert not re.search(r"https?://", make())
    assert any("default-src 'none'" in content for content in page.values("content"))


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_a_page_is_made_for_phones_and_every_link_inside_it_leads_somewhere(make):
    page = Page(make())
    assert "viewport" in page.values("name")
    assert "width=device-width, initial-scale=1" in page.values("content")
    ids = page.values("id")
    assert len(ids) == len({*ids})
    inside = [target[1:] for target in page.values("href") if target.startswith("#")]
    assert {*inside} <= {*ids}


def test_the_page_of_a_sequence_holds_every_figure_to_the_last_digit():
    text = sequence_page(report())
    [exact] = re.findall(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL)
    assert json.loads(Page(f"<pre>{exact}</pre>").pieces[0]) == metrics()


@pytest.mark.parametrize("make", [sequence_page, sequence_text])
def test_figures_are_shown_with_few_digits_in_units(make):
    text = make(report())
    for expected in ("0.123", "0.247", "3.71", "11.5", "1.36", "0.234", "85.5", "0.0512", "51.1"):
        assert re.search(rf"[>\s]{re.escape(expected)}[<\s]", text), expected
    assert f"11{THIN_SPACE}520{THIN_SPACE}000" in text
    assert "44.4" in text and "812" in text and "MiB" in text and "25.9" in text


@pytest.mark.parametrize("make", [sequence_page, sequence_text])
def test_what_the_truth_did_not_allow_is_told_in_a_line_each(make):
    why = {"trajectory": "there are no true poses", "depth": "", "map": "the map is empty"}
    metrics = {"trajectory": None, "images": 3, "not_compared": why, "images_before_reset": 7}
    bare = make(SequenceReport("room", "ttt3r", metrics))
    for line in (
        "7 images before a reset are not compared.",
        "Trajectory: not compared, there are no true poses.",
        "Depth: not compared.",
        "Map: not compared, the map is empty.",
    ):
        assert bare.count(line) == 1
    assert "not compared" not in make(report())


def test_whoever_lost_many_images_is_not_the_best():
    def result(name, poses, ate_m):
        path = {"poses": poses, "alignments": {"se3": {"ate_rmse_m": ate_m}}}
        return Result("room", name, {"trajectory": path})

    results = [result("a", 100, 0.5), result("b", 10, 0.1), result("c", 98, 0.7)]
    rows = {row.name: row for row in compared_rows(Comparison("x", results))}
    assert {name: row.best[0] for name, row in rows.items()} == {"a": True, "b": False, "c": False}


def test_what_is_not_there_takes_no_room():
    bare = Page(sequence_page(SequenceReport("room", "ttt3r", {"images": 3})))
    assert "Path" not in bare.pieces and "Over time" not in bare.pieces
    assert "img" not in bare.tags
    without_truth = Page(sequence_page(report(views=[view(true_m=None)])))
    assert "true depth" not in without_truth.pieces
    assert "true depth" in Page(sequence_page(report())).pieces


def test_a_sequence_of_which_no_image_was_tracked_has_a_page():
    nothing = series(0)
    assert "Over time" not in sequence_page(report(series=nothing, views=[]))
    lost = series(positions_m=np.full((50, 3), np.nan))
    assert path_plots(lost) == []
    assert "Over time" in sequence_page(report(series=lost))


def test_names_are_text_wherever_they_come_from():
    hostile_metrics = {**metrics(), "command": HOSTILE, HOSTILE: 1, "config": {HOSTILE: HOSTILE}}
    hostile_metrics["trajectory"][HOSTILE] = 3
    hostile_metrics["depth"]["alignments"][HOSTILE] = {HOSTILE: 5}
    page = Page(sequence_page(report(HOSTILE, metrics=hostile_metrics)))
    assert "b" not in page.tags
    assert page.text.count(HOSTILE) >= 6
    result = Result(HOSTILE, HOSTILE, metrics(), f"{HOSTILE}#%/a")
    every = comparison(
        result,
        Result("bad", HOSTILE, failure=HOSTILE),
        about=HOSTILE,
        published=[Published(HOSTILE, HOSTILE, metrics())],
        run_metadata={"command": HOSTILE},
    )
    page = Page(comparison_page(every))
    assert "b" not in page.tags
    # about, sequence, its configuration, paper, the other's configuration, failure, mean, command
    assert page.text.count(HOSTILE) == 8
    [link] = [target for target in page.values("href") if not target.startswith("#")]
    assert unquote(link) == f"{HOSTILE}#%/a/report.html"
    assert not set('<>"#') & set(link)


def test_markdown_has_no_markup_from_outside_and_no_cell_too_many():
    every = comparison(
        Result(HOSTILE, HOSTILE, metrics(), HOSTILE),
        Result("bad", "x", failure=HOSTILE),
        published=[Published("theirs", HOSTILE, metrics())],
    )
    for text in (comparison_text(every), sequence_text(report(HOSTILE))):
        assert "<b>" not in text.replace("\\<b\\>", "")
        tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
        assert tables
        for table in tables:
            columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(columns) == 1


def test_figures_that_nobody_has_named_are_shown_under_their_own_name():
    [_, table] = sequence_tables({"map": {"flying_pixels_mm": 7.0}, "images": 3})[:2]
    assert table.title == "Images and time"
    [row] = sequence_tables({"map": {"flying_pixels_mm": 7.0}})[0].rows
    assert (row.label.text, row.unit, row.cells) == ("flying pixels", "mm", ("7.00",))


def test_alignments_are_columns_and_distances_too():
    tables = {table.title: table for table in sequence_tables(metrics())}
    path = tables["Trajectory"]
    assert [column.text for column in path.columns] == ["Sim(3)", "as it is"]
    assert [row.label.text for row in path.rows] == ["scale", "ATE", "RPE, translation"]
    assert path.rows[0].cells == ("0.900", "–")
    motion = tables["Motion over lengths of the path"]
    assert [column.text for column in motion.columns] == ["1 m"]
    assert [row.label.text for row in motion.rows] == ["pairs of images", "translation"]
    scores = tables["Scores within a distance"]
    assert scores.columns == (Label("0.05 m"),)
    assert [row.cells for row in scores.rows] == [("51.1",), ("44.4",)]


def test_how_it_was_made_is_told_but_for_the_figures():
    groups = run_metadata(metrics())
    assert groups["config"] == {"map.voxel_size_m": "0.05"}
    assert groups["run"] == {"sequence": "a", "command": "ttt3r evaluate room"}
    assert groups["ground_truth"] == {"poses": "/pose", "depth": "–"}
    assert not {"trajectory", "depth", "map", "runtime", "images"} & {*groups}
    assert missing(metrics()) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0934417, "0.0934"),
        (0.0074173, "0.00742"),
        (1.0, "1.00"),
        (2262.2, f"2{THIN_SPACE}262"),
        (-3.456, "−3.46"),
        (0.0, "0"),
        (1e-9, "1.0e−09"),
        (float("nan"), "–"),
    ],
)
def test_three_digits_count(value: float, text: str):
    assert number(value) == text


def test_shares_are_in_per_cent_and_counts_are_whole():
    assert shown("delta_1_25", 0.8549) == "85.5"
    assert shown("delta_1_25", 1) == "100.0"
    assert shown("trans_percent", 11.52) == "11.5"
    assert shown("images", 150) == "150"
    assert shown("anything", None) == "–"
    assert shown("flag", True) == "yes"
    assert shown("lengths_m", [1.0, 2.5]) == "1.00 2.50"


def rows_by_name(*results: Result, **changes) -> dict:
    rows = compared_rows(comparison(*results, **changes))
    return {(row.kind, row.sequence, row.name): row for row in rows}


def marked(row, label: str, of: Comparison) -> bool:
    return dict(zip((line.label.text for line in headlines(of)), row.best, strict=False)).get(
        label, False
    )


def test_the_best_of_a_sequences_configurations_is_marked_and_papers_are_not():
    entries = (
        Result("a", "x", metrics(ate_m=0.1, abs_rel=0.2)),
        Result("a", "y", metrics(ate_m=0.2, abs_rel=0.2)),
        Result("b", "x", metrics(ate_m=0.4)),
    )
    published = [Published("theirs", "a", metrics(ate_m=0.01))]
    rows = rows_by_name(*entries, published=published)
    every = comparison(*entries, published=published)
    ate = "ATE, Sim(3)"
    assert marked(rows["result", "a", "x"], ate, every)
    assert not marked(rows["result", "a", "y"], ate, every)
    assert not any(rows["paper", "a", "theirs"].best)
    # Alone, or as good as the others, none is the best.
    assert not any(rows["result", "b", "x"].best)
    assert not marked(rows["result", "a", "x"], "AbsRel, as it is", every)


def test_means_are_over_sequences_and_unlike_ones_are_not_compared():
    entries = (
        Result("a", "x", metrics(ate_m=0.1)),
        Result("b", "x", metrics(ate_m=0.3)),
        Result("a", "y", metrics(ate_m=0.05)),
        Result("b", "y", failure="no images"),
    )
    rows = rows_by_name(*entries)
    assert rows["mean", "mean", "x"].cells[0] == "0.200"
    assert rows["mean", "mean", "y"].cells[0] == "0.0500 (1)"
    assert not any(rows["mean", "mean", "x"].best + rows["mean", "mean", "y"].best)
    assert rows["result", "b", "y"].failure == "no images"
    whole = comparison(*entries[:3], Result("b", "y", metrics(ate_m=0.1)))
    y = {row.name: row for row in compared_rows(whole) if row.kind == "mean"}["y"]
    assert y.cells[0] == "0.0750"
    assert marked(y, "ATE, Sim(3)", whole)


def test_one_sequence_has_no_mean_and_columns_that_nobody_has_are_left_out():
    only = comparison(Result("a", "x", {"images": 3}), Result("a", "y", {"images": 4}))
    assert [line.label.text for line in headlines(only)] == ["images"]
    assert [row.kind for row in compared_rows(only)] == ["result", "result"]
    failed = comparison(Result("a", "x", failure="no"), Result("b", "x", failure="no"))
    assert "no" in Page(comparison_page(failed)).pieces


def test_what_a_paper_says_of_the_mean_stands_below_the_means():
    rows = compared_rows(
        comparison(
            Result("a", "x", metrics()),
            Result("b", "x", metrics()),
            published=[Published("theirs", "", metrics(ate_m=0.064))],
        )
    )
    assert [row.kind for row in rows] == ["result", "result", "mean", "paper"]
    assert rows[-1].cells[0] == "0.0640"
    page = comparison_page(
        comparison(Result("a", "x", metrics()), published=[Published("theirs", "a", metrics())])
    )
    assert "the paper’s: theirs" in Page(page).text


def test_a_report_is_read_back_as_it_was_written(tmp_path):
    written = report(HOSTILE, views=[view(), view(7, true_m=None)])
    (tmp_path / METRICS).write_text(json.dumps(written.metrics), encoding="utf-8")
    write_sequence(written, tmp_path)
    read = read_sequence(tmp_path)
    assert (read.name, read.configuration) == (HOSTILE, "ttt3r")
    assert read.metrics == written.metrics
    assert read.series is not None and read.series.up == (0.0, 0.0, 1.0)
    np.testing.assert_array_equal(read.series.segment, written.series.segment)
    assert sequence_page(read) == (tmp_path / PAGE).read_text("utf-8")
    assert sequence_text(read) == (tmp_path / TEXT).read_text("utf-8")
    bare = SequenceReport("room", "x", written.metrics)
    write_sequence(bare, tmp_path)
    assert read_sequence(tmp_path) == SequenceReport("room", "x", written.metrics, views=[])


def test_a_damaged_report_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=re.escape(str(tmp_path))):
        read_sequence(tmp_path)
    write_sequence(report(), tmp_path)
    (tmp_path / METRICS).write_text("{}", encoding="utf-8")
    whole = (tmp_path / SERIES).read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2]):
        (tmp_path / SERIES).write_bytes(damaged)
        with pytest.raises(EvaluationError, match=re.escape(str(tmp_path))):
            read_sequence(tmp_path)


def test_the_comparison_is_written_as_a_page_and_as_text(tmp_path):
    write_comparison(comparison(Result("a", "x", metrics(), "a/x")), tmp_path)
    assert "All rooms" in (tmp_path / PAGE).read_text("utf-8")
    assert "(a/x/report.html)" in (tmp_path / TEXT).read_text("utf-8")


def test_a_page_with_large_pictures_and_many_images_is_below_3_mb():
    noise = np.random.default_rng(1)
    rgb = noise.integers(0, 255, (480, 640, 3), np.uint8)
    depth_m = noise.uniform(1, 4, (480, 640)).astype(np.float32)
    views = [make_example(stamp, rgb, depth_m, depth_m[::-1]) for stamp in range(6)]
    text = sequence_page(report(views=views, series=series(20_000)))
    assert 0.2e6 < len(text) < 3e6


def test_series_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"gain: expected \[50\], got \[49\]"):
        series(gain=np.zeros(49))
    with pytest.raises(ValueError, match=r"positions_m: expected \[50, 3\], got \[50, 2\]"):
        series(positions_m=np.zeros((50, 2)))


def test_boundaries_are_where_segments_begin_and_lost_images_begin_none():
    assert np.flatnonzero(series().boundaries()).tolist() == [20, 40]
    state = np.full(50, TrackingState.TRACKING, np.int8)
    state[18:22] = TrackingState.LOST
    assert np.flatnonzero(series(state=state).boundaries()).tolist() == [22, 40]


def test_the_local_scale_is_what_the_estimate_is_too_small_by():
    np.testing.assert_allclose(series(scale=2.5).local_scale(), 2.5, rtol=1e-6)
    still = np.zeros((50, 3))
    assert np.isnan(series(true_positions_m=still).local_scale()).all()
    gap = series(scale=2.0)
    gap.true_positions_m[10:20] = np.nan
    scales = gap.local_scale()
    assert np.isnan(scales[10:20]).all()
    np.testing.assert_allclose(np.delete(scales, np.s_[10:20]), 2.0, rtol=1e-6)


@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (1, 0, 0), (0.2, 0.1, 0.9)])
def test_the_plan_is_seen_from_above(up):
    across, along, upright = horizontal_axes(up)
    np.testing.assert_allclose(np.cross(across, along), upright, atol=1e-12)
    assert upright @ np.array(up) == pytest.approx(np.linalg.norm(up))


def test_a_plan_for_z_up_has_x_to_the_right_and_y_up_and_kittis_has_z_up():
    x, y, z = np.eye(3)
    np.testing.assert_allclose(horizontal_axes((0, 0, 1))[:2], [x, y], atol=1e-12)
    np.testing.assert_allclose(horizontal_axes((0, -1, 0))[:2], [x, z], atol=1e-12)


def texts_of(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_same_series_gives_the_same_chart_without_a_date():
    first, second = (path_plots(series())[0].svg for _ in range(2))
    assert first == second
    assert "<dc:date>" not in first


def test_a_long_line_is_thinned_and_keeps_its_peaks():
    values = np.zeros(50_000)
    values[12_345], values[40_001], values[7] = 7.0, -3.0, np.nan
    kept = subsample(values)
    assert len(kept) <= MOST_POINTS
    assert {12_345, 40_001} <= {*kept.tolist()}
    assert subsample(values[:100]).tolist() == [*range(100)]


def test_a_chart_names_what_it_draws_and_no_more():
    state = np.full(50, TrackingState.TRACKING, np.int8)
    state[10:20] = TrackingState.LOST
    texts = texts_of(time_plots(series(state=state))[0].svg)
    assert {"time [s]", "error [m]", "lost", "segment boundary"} <= {*texts}
    assert "uncertain" not in texts
    [above, side] = path_plots(series(segment=np.zeros(50, np.int64)))
    assert {"truth", "estimate", "start", "end", "x [m]", "y [m]"} <= {*texts_of(above.svg)}
    assert "z [m]" in texts_of(side.svg)
    assert "segment boundary" not in texts_of(above.svg)


@pytest.mark.parametrize("values", [5.0, 0.0, 1e9])
def test_values_that_are_all_alike_have_a_chart(values: float):
    assert len(time_plots(series(gain=np.full(50, values)))) == 6
    assert len(path_plots(series(positions_m=np.full((50, 3), values)))) == 2
    assert len(time_plots(series(1))) == 5  # of one image there is no scale drift


def test_a_state_lasts_from_its_first_image_to_the_next_of_another():
    state = np.full(50, TrackingState.TRACKING, np.int8)
    state[10:20], state[45:] = TrackingState.LOST, TrackingState.UNCERTAIN
    shaded = series(state=state)
    assert spans(shaded, TrackingState.LOST) == [(1.0, 2.0)]
    assert spans(shaded, TrackingState.UNCERTAIN) == [(4.5, 4.9)]


def test_what_is_known_at_no_image_has_no_chart():
    titles = [plot.title for plot in time_plots(series())]
    assert titles[:2] == ["Position error", "Scale drift"]
    unknown = np.full(50, np.nan)
    nowhere = series(true_positions_m=np.full((50, 3), np.nan), gain=unknown, alignment="none")
    left = [plot.title for plot in time_plots(nowhere)]
    assert left == ["Scale of the network", "Confidence, median", "Time of a step"]
    assert [plot.title for plot in path_plots(nowhere)] == [
        "Path from above",
        "Path from the side",
    ]
    assert "SE(3)" in path_plots(series())[0].title


def test_an_example_is_small_and_what_is_no_depth_is_unknown():
    depth_m = np.full((48, 64), 2.0)
    depth_m[:24] = np.inf
    true_m = np.full((480, 640), 4.0)
    true_m[:, :320] = 0
    small = make_example(5, np.zeros((480, 640, 3), np.uint8), depth_m, true_m)
    assert small.rgb.shape == (240, VIEW_WIDTH, 3)
    assert small.depth_m.shape == small.true_depth_m.shape == (240, VIEW_WIDTH)
    error = relative_error(small)
    assert np.isnan(error[:120]).all() and np.isnan(error[:, :160]).all()
    np.testing.assert_allclose(error[120:, 160:], 0.5)
    assert relative_error(view(true_m=None)) is None


def test_unknown_depth_is_grey_and_no_depth_looks_like_it():
    depths = np.array([[np.nan, 1.0, 2.0, 3.0, 9.0]], np.float32)
    grey, near, _, far, beyond = colour_example(depths, (1.0, 3.0))[0].tolist()
    assert tuple(grey) == UNKNOWN
    assert far == beyond != near
    errors = np.linspace(0, LARGEST_ERROR, 200, dtype=np.float32)[None]
    for colours in (colour_error(errors), colour_example(errors, (0.0, LARGEST_ERROR))):
        assert (np.abs(colours.astype(int) - UNKNOWN).sum(axis=2) > 20).all()


def test_the_map_is_drawn_upright_with_and_without_truth():
    points = np.random.default_rng(0).uniform(-3, 3, (5000, 3))
    colours = np.full((5000, 3), (200, 40, 40), np.uint8)
    z_up = draw_map(points, colours, series(), voxel_m=0.1)
    assert z_up.shape == (*MAP_SIZE, 3)
    # The same world with y down: (x, y, z) becomes (x, -z, y).
    turned = series(up=(0.0, -1.0, 0.0))
    for positions in (turned.positions_m, turned.true_positions_m):
        positions[:] = positions[:, (0, 2, 1)] * (1, -1, 1)
    y_down = draw_map(points[:, (0, 2, 1)] * (1, -1, 1), colours, turned, voxel_m=0.1)
    np.testing.assert_array_equal(z_up, y_down)
    alone = draw_map(
        points, colours, series(true_positions_m=np.full((50, 3), np.nan)), voxel_m=0.1
    )
    assert not np.array_equal(alone, z_up)


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 13, 100, 1000])
def test_examples_are_spread_over_the_whole_sequence(count: int):
    sampler = ExampleSampler(6)
    for stamp in range(count):
        if sampler.wants_next():
            sampler.add(view(stamp))
    stamps = [chosen.stamp_ns for chosen in sampler.views()]
    assert len(stamps) == min(count, 6)
    assert stamps == sorted({*stamps})
    if count >= 7:
        assert stamps[0] < count / 4 and stamps[-1] > 0.7 * count
        gaps = np.diff(stamps)
        assert gaps.max() <= 2 * gaps.min()
