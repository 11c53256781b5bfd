# SPDX-License-Identifier: Apache-2.0
"""Several recordings under several configurations: planned, resumed, spread over processes.

One recording under one configuration is `evaluate`'s. Each task gets its own process, so that its
peak memory is its own, and always the same number of threads, so that its figures do not depend on
how many run at once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import multiprocessing
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ttt3r_ros.config import Config, ConfigError, to_dict, with_values
from ttt3r_ros.evaluation import circumstances
from ttt3r_ros.evaluation.evaluate import Choices, evaluate
from ttt3r_ros.evaluation.evaluation_error import EvaluationError
from ttt3r_ros.evaluation.recording import Recording
from ttt3r_ros.evaluation.report.data import Result
from ttt3r_ros.evaluation.report.files import FIGURES
from ttt3r_ros.evaluation.source import SourceError
from ttt3r_ros.network.checkpoint_error import CheckpointError

AS_GIVEN = "as given"
"""What settings are called of which none is compared."""

_FINGERPRINT = "fingerprint"  # entry of report.json
_log = logging.getLogger(__name__)

_EXPECTED = (CheckpointError, ConfigError, EvaluationError, SourceError, OSError)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings with a name."""

    name: str
    config: Config
    sequences: tuple[str, ...] = ()  # names or ends of names of recordings; empty: all


@dataclass(frozen=True, slots=True)
class Task:
    """One recording under one configuration."""

    recording: Recording
    configuration: Configuration
    choices: Choices
    folder: str  # below the output

    def fingerprint(self) -> str:
        """Return what tells the figures of this task from all others'."""
        config = self.configuration.config
        decides = {
            "recording": {
                entry.name: str(value)
                for entry in fields(self.recording)
                if not callable(value := getattr(self.recording, entry.name))
            },
            "config": to_dict(config),
            "checkpoint": circumstances.checkpoint(config)["sha256"],
            "choices": asdict(self.choices),
            "versions": circumstances.versions(),
            "commit": circumstances.commit(),
        }
        text = json.dumps(decides, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def combinations(config: Config, values: Mapping[str, Sequence[str]]) -> list[Configuration]:
    """Return a configuration for each combination of values.

    Args:
        config: all other settings.
        values: of settings, by dotted name.

    Raises:
        ConfigError: a setting does not exist or cannot have a value.
    """
    result = []
    for chosen in itertools.product(*values.values()):
        named = dict(zip(values, chosen, strict=True))
        name = ", ".join(f"{key}={value}" for key, value in named.items()) or AS_GIVEN
        result.append(Configuration(name, with_values(config, named)))
    return result


def plan(
    recordings: Sequence[Recording], configurations: Sequence[Configuration], choices: Choices
) -> list[Task]:
    """Return the tasks, sequence by sequence; a single one has the output for itself.

    Raises:
        EvaluationError: there are none.
    """
    pairs = [
        (recording, configuration)
        for recording in recordings
        for configuration in configurations
        if _is_meant(recording, configuration)
    ]
    if not pairs:
        names = ", ".join(recording.name for recording in recordings)
        raise EvaluationError(f"nothing to evaluate: none of the sequences is meant: {names}")
    several = len(configurations) > 1
    return [
        Task(recording, configuration, choices, _folder(recording, configuration, several))
        for recording, configuration in pairs
    ]


def run_all(tasks: Sequence[Task], output: Path, *, jobs: int, threads: int) -> list[Result]:
    """Evaluate all tasks whose reports are not there yet.

    Args:
        tasks: what to evaluate.
        output: the folder; each task writes below it.
        jobs: tasks at once; with several GPUs they take turns with these.
        threads: of each task on the CPU.

    Returns:
        A result for each task; one that failed says why.
    """
    results: dict[int, Result] = {}  # by the number of the task
    for number, task in enumerate(tasks):
        figures = _finished(output / task.folder, task.fingerprint())
        if figures is not None:
            results[number] = _result(task, figures)
    if results:
        _log.info(
            "%d of %d are there already; without their folders they are made again",
            len(results),
            len(tasks),
        )
    waiting = [number for number in range(len(tasks)) if number not in results]
    with (
        tqdm(total=len(tasks), initial=len(results), unit=" sequences") as bar,
        ThreadPoolExecutor(jobs) as threads_of_jobs,
    ):
        futures = {
            threads_of_jobs.submit(_in_process, tasks[number], output, place, threads): number
            for place, number in enumerate(waiting)
        }
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            bar.update()
    return [results[number] for number in range(len(tasks))]


def _in_process(task: Task, output: Path, place: int, threads: int) -> Result:
    """Evaluate in a new process and return what it has written."""
    folder = output / task.folder
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, folder, place, threads, sender))
    process.start()
    sender.close()  # so that the end of the process ends the waiting
    try:
        failure: str = receiver.recv()
    except EOFError:
        process.join()
        failure = f"its process ended with status {process.exitcode}"
    process.join()
    if failure:
        _log.error("%s: %s", task.folder, failure)
        return replace(_result(task, {}), folder="", failure=failure)
    return _result(task, json.loads((folder / FIGURES).read_text("utf-8")))


def _work(task: Task, folder: Path, place: int, threads: int, sender: Connection) -> None:
    """Be the process of a task."""
    logging.basicConfig(format=f"%(levelname)s: {task.folder}: %(message)s", level=logging.INFO)
    torch.set_num_threads(threads)
    config = task.configuration.config
    gpus = torch.cuda.device_count()
    if gpus > 1 and config.device in ("auto", "cuda"):
        config = replace(config, device=f"cuda:{place % gpus}")
    failure = ""
    try:
        evaluate(
            task.recording,
            config,
            folder,
            task.choices,
            configuration=task.configuration.name,
            about={_FINGERPRINT: task.fingerprint()},
        )
    except _EXPECTED as error:
        failure = str(error)
    sender.send(failure)


def _finished(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the figures of a task that was finished before, if they are the same task's."""
    try:
        figures: dict[str, Any] = json.loads((folder / FIGURES).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return figures if figures.get(_FINGERPRINT) == fingerprint else None


def _result(task: Task, figures: Mapping[str, Any]) -> Result:
    return Result(task.recording.name, task.configuration.name, figures, task.folder)


def _is_meant(recording: Recording, configuration: Configuration) -> bool:
    names = configuration.sequences
    return not names or any(recording.name.endswith(name) for name in names)


def _folder(recording: Recording, configuration: Configuration, several: bool) -> str:
    """Return a folder's name for a task, unlike all others'."""
    parts = [recording.name, configuration.name] if several else [recording.name]
    return "/".join(re.sub(r"[^\w.=-]+", "_", part) for part in parts)
