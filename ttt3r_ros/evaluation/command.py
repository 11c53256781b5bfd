# SPDX-License-Identifier: Apache-2.0
"""What `ttt3r evaluate` does: which recordings, under which settings, and the reports of all."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.evaluation.batch import AS_GIVEN, Configuration, combinations, plan, run_all
from ttt3r_ros.evaluation.evaluate import Choices, evaluate
from ttt3r_ros.evaluation.metrics_json import summary_text, without_nan
from ttt3r_ros.evaluation.protocols import PROTOCOLS, Part, Preset
from ttt3r_ros.evaluation.report.comparison import comparison_table
from ttt3r_ros.evaluation.report.data import Comparison, Result, SequenceReport
from ttt3r_ros.evaluation.report.files import METRICS, write_comparison
from ttt3r_ros.io.atomic import atomic_write
from ttt3r_ros.recordings.recording import Recording, Selection
from ttt3r_ros.recordings.source import Source
from ttt3r_ros.run import offline_config
from ttt3r_ros.types import EvaluationError, Frame


class Finder(Protocol):
    """Finds the recordings that are meant; whoever calls knows where and how."""

    def __call__(self, *, format: str, max_difference_s: float) -> list[Recording]:
        """Return them; see `recordings.datasets.find`."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What the command line asks for; what is None or empty is left to the protocol, if any."""

    title: str  # of what is evaluated, in a comparison
    find: Finder
    output: Path
    file: Mapping[str, Any] = field(default_factory=dict)  # settings of a file, by dotted name;
    settings: Mapping[str, Any] = field(default_factory=dict)  # these beat those of the protocol
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # to be compared
    protocol: str = ""
    format: str = ""
    limit: int | None = None
    start: int | None = None
    every: int | None = None
    max_frames: int | None = None
    alignment: str = "se3"
    depth_images: bool = False
    map_format: str = "ply"
    jobs: int = 1
    threads: int | None = None


def evaluate_all(request: EvaluationRequest) -> int:
    """Evaluate what is asked for, write the reports and print what came out.

    Returns:
        0, or 1 if an evaluation failed or processed no image, or a recording is damaged.

    Raises:
        EvaluationError: what is asked for makes no sense.
        Others: as `evaluate` and `find`.
    """
    _check(request)
    protocol = PROTOCOLS.get(request.protocol) or Preset("", "", (Part("", {}),))
    choices = _choices(request, protocol)
    configurations = _configurations(request, protocol, choices.selection)
    recordings = request.find(
        format=request.format or protocol.format, max_difference_s=protocol.max_difference_s
    )
    tasks = plan(recordings, configurations, choices, request.limit)
    command = command_line()
    if request.threads:
        torch.set_num_threads(request.threads)
    if len(tasks) == 1:
        [task] = tasks
        report = evaluate(
            task.recording,
            task.configuration.config,
            request.output,
            choices,
            configuration=task.configuration.name,
            about={"command": command},
            progress=_shown,
        )
        print(summary_text(report.metrics))
        return 0 if _is_whole(report.metrics) else 1
    results = run_all(tasks, request.output, jobs=request.jobs, threads=request.threads or 1)
    comparison = Comparison(
        title=request.protocol or request.title,
        results=results,
        about=" ".join([protocol.about, *_departures(request, protocol, recordings)]).strip(),
        published=protocol.published,
        run_metadata={
            "command": command,
            "versions": run_metadata.versions(),
            "commit": run_metadata.commit(),
        },
    )
    _write(comparison, request.output)
    print(comparison_table(comparison))
    return 0 if all(_is_whole(result.metrics) for result in results) else 1


def _is_whole(metrics: Mapping[str, Any]) -> bool:
    """Whether images were processed, nothing kept others from it, and what is true was compared."""
    if not metrics.get("images") or metrics["damage"]:
        return False
    truth = metrics["ground_truth"]
    return not (truth["poses"] and not metrics["trajectory"]) and not (
        truth["depth"] and not metrics["depth"]
    )


def _departures(
    request: EvaluationRequest, protocol: Preset, recordings: Sequence[Recording]
) -> Iterator[str]:
    """Yield in what way this is not all of the protocol."""
    if not request.protocol:
        return
    preset = {name for part in protocol.parts for name in part.settings}
    for name, value in {**request.settings, **request.values}.items():
        if name in preset:
            yield f"Here with {name} {value}."
    for part in protocol.parts:
        here = [r for r in recordings if any(r.name.endswith(name) for name in part.sequences)]
        if part.sequences and len(here) < len(part.sequences):
            yield f"Of its {len(part.sequences)} sequences {len(here)} are here."


def compare_live(live: SequenceReport, offline: SequenceReport, folder: Path, output: Path) -> str:
    """Compare what a node made of a recording with what it is offline.

    Args:
        live: written below `output`, in `live`.
        offline: of the recording.
        folder: where `offline` was read from.
        output: where the comparison is written.

    Returns:
        The comparison as a text.

    Raises:
        OSError: a file cannot be written.
    """
    comparison = Comparison(
        title=f"{offline.name}: a running node, and the recording offline",
        results=[
            Result(offline.name, "live", live.metrics, "live"),
            Result(offline.name, "offline", offline.metrics, os.path.relpath(folder, output)),
        ],
        run_metadata={"command": command_line(), "versions": run_metadata.versions()},
    )
    _write(comparison, output)
    return comparison_table(comparison)


def command_line() -> str:
    """Return what this process was called with."""
    return shlex.join(["ttt3r", *sys.argv[1:]])


def _write(comparison: Comparison, output: Path) -> None:
    write_comparison(comparison, output)
    with atomic_write(output / METRICS) as unfinished:
        text = json.dumps(without_nan(asdict(comparison)), indent=2, allow_nan=False)
        unfinished.write_text(text + "\n", "utf-8")


def _check(request: EvaluationRequest) -> None:
    if request.protocol and request.protocol not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise EvaluationError(f"--protocol: must be one of {known}, got {request.protocol!r}")
    for name in ("limit", "jobs", "threads", "every"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise EvaluationError(f"--{name}: must be at least 1, got {value}")
    if request.start is not None and request.start < 0:
        raise EvaluationError(f"--start: must be at least 0, got {request.start}")


def _choices(request: EvaluationRequest, protocol: Preset) -> Choices:
    given = {
        name: value
        for name in ("start", "every", "max_frames")
        if (value := getattr(request, name)) is not None
    }
    return Choices(
        selection=replace(protocol.selection, **given),
        alignment=request.alignment,
        max_true_depth_m=protocol.max_true_depth_m,
        max_depth_m=protocol.max_depth_m,
        published_shift=bool(request.protocol),
        depth_images=request.depth_images,
        map_format=request.map_format,
    )


def _configurations(
    request: EvaluationRequest, protocol: Preset, selection: Selection
) -> list[Configuration]:
    result = []
    for part in protocol.parts:
        values = {**part.settings, **request.settings}
        config = offline_config(request.file, values, every=selection.every)
        several = len(protocol.parts) > 1 and part.name
        for found in combinations(config, request.values):
            name = found.name
            if several:
                name = several if name == AS_GIVEN else f"{several}, {name}"
            result.append(replace(found, name=name, sequences=part.sequences))
    return result


def _shown(source: Source) -> Iterator[Frame]:
    """Yield the images of a source while a bar shows how many there were."""
    with tqdm(source, unit=" images", total=len(source)) as images:
        yield from images
