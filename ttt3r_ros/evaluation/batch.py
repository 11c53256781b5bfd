# SPDX-License-Identifier: Apache-2.0
"""Several recordings under several configurations: planned, resumed, spread over processes.

One recording under one configuration is `evaluate`'s. Each task gets its own process, so that its
peak memory is its own, and always the same number of threads, so that its metrics do not depend on
how many run at once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import multiprocessing
import re
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ttt3r_ros.config import Config, ConfigError, to_dict, with_values
from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.evaluation.evaluate import Choices, evaluate
from ttt3r_ros.evaluation.report.data import Result
from ttt3r_ros.evaluation.report.files import METRICS
from ttt3r_ros.loading import find_device
from ttt3r_ros.recordings.recording import Recording
from ttt3r_ros.types import CheckpointError, EvaluationError, SourceError

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

    def fingerprint(self, threads: int) -> str:
        """Return what tells the metrics of this task from all others'."""
        config = self.configuration.config
        decides = {
            "recording": _state_of(self.recording),
            "config": to_dict(config),
            "checkpoint": _checkpoint_hash(config),
            "choices": asdict(self.choices),
            "versions": run_metadata.versions(),
            "code": _code_hash(),
            "device": str(find_device(config.device)),
            "threads": threads,
        }
        text = json.dumps(decides, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _state_of(recording: Recording) -> dict[str, Any]:
    """Return what a recording is, and which files it has, of what size and from when."""
    options = {
        entry.name: str(value)
        for entry in fields(recording)
        if not callable(value := getattr(recording, entry.name))
    }
    root = Path(options["path"])
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    states = ((file.relative_to(root), file.stat()) for file in files if file.is_file())
    return {**options, "files": [(str(f), s.st_size, s.st_mtime_ns) for f, s in states]}


@cache
def _checkpoint_hash(config: Config) -> str:
    return run_metadata.checkpoint(config)["sha256"]


@cache
def _code_hash() -> str:
    """Return a hash of the package's own code."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


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
    recordings: Sequence[Recording],
    configurations: Sequence[Configuration],
    choices: Choices,
    limit: int | None = None,
) -> list[Task]:
    """Return the tasks, sequence by sequence, each with a folder of its own.

    Args:
        recordings: with names of their own.
        configurations: those with the same settings and sequences count once.
        choices: of all tasks.
        limit: of the sequences that any configuration means, only so many.

    Raises:
        EvaluationError: there are none.
    """
    different = {(found.config, found.sequences): found for found in reversed(configurations)}
    configurations = [found for found in configurations if found in different.values()]
    meant = [
        recording
        for recording in recordings
        if any(_is_meant(recording, configuration) for configuration in configurations)
    ]
    if not meant:
        names = ", ".join(recording.name for recording in recordings)
        raise EvaluationError(f"nothing to evaluate: none of the sequences is meant: {names}")
    tasks, folders = [], set()
    for recording in meant[:limit]:
        for configuration in configurations:
            if _is_meant(recording, configuration):
                several = len(configurations) > 1
                folder = base = _folder(recording, configuration, several)
                for number in itertools.count(2):
                    if folder not in folders:
                        break
                    folder = f"{base}_{number}"
                folders.add(folder)
                tasks.append(Task(recording, configuration, choices, folder))
    return tasks


def run_all(tasks: Sequence[Task], output: Path, *, jobs: int, threads: int) -> list[Result]:
    """Evaluate all tasks whose reports are not there yet; to be called in the main thread.

    Args:
        tasks: what to evaluate.
        output: the folder, made if need be; each task writes below it.
        jobs: tasks at once; with several GPUs they take turns with these.
        threads: of each task on the CPU.

    Returns:
        A result for each task; one that failed says why.

    Raises:
        KeyboardInterrupt: also for SIGTERM; nothing goes on.
    """
    output.mkdir(parents=True, exist_ok=True)
    results: dict[int, Result] = {}  # by the number of the task
    waiting: deque[tuple[int, str]] = deque()  # number and fingerprint
    for number, task in enumerate(tasks):
        fingerprint = task.fingerprint(threads)
        metrics = _finished(output / task.folder, fingerprint)
        if metrics is None:
            waiting.append((number, fingerprint))
        else:
            results[number] = _result(task, metrics)
    if results:
        _log.info(
            "%d of %d are there already; without their folders they are made again",
            len(results),
            len(tasks),
        )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    running: dict[Connection, _Job] = {}
    free = list(range(jobs))[::-1]
    try:
        with tqdm(total=len(tasks), initial=len(results), unit=" sequences") as bar:
            while waiting or running:
                while waiting and free:
                    number, fingerprint = waiting.popleft()
                    job = _Job(number, free.pop())
                    task = tasks[number]
                    folder = output / task.folder
                    running[job.start(task, folder, fingerprint, threads)] = job
                for connection in wait([*running]):
                    job = running.pop(connection)  # type: ignore[call-overload]
                    free.append(job.slot)
                    results[job.number] = job.result(tasks[job.number], connection, output)
                    bar.update()
    finally:
        for job in running.values():
            job.process.terminate()
            job.process.join()
        signal.signal(signal.SIGTERM, before)
    return [results[number] for number in range(len(tasks))]


class _Job:
    """A task in a process of its own."""

    def __init__(self, number: int, slot: int) -> None:
        self.number, self.slot = number, slot  # of the task; below the number of jobs

    def start(self, task: Task, folder: Path, fingerprint: str, threads: int) -> Connection:
        """Start it; return what can be read when it is over."""
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        arguments = (task, folder, fingerprint, self.slot, threads, sender)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        sender.close()  # so that the end of the process is the end of what can be read
        return receiver

    def result(self, task: Task, connection: Connection, output: Path) -> Result:
        """Return what it has written, or why not."""
        try:
            failure: str = connection.recv()
        except EOFError:
            self.process.join()
            failure = f"its process ended with status {self.process.exitcode}"
        self.process.join()
        if failure:
            _log.error("%s: %s", task.folder, failure)
            return replace(_result(task, {}), folder="", failure=failure)
        return _result(task, json.loads((output / task.folder / METRICS).read_text("utf-8")))


def _work(
    task: Task, folder: Path, fingerprint: str, slot: int, threads: int, sender: Connection
) -> None:
    """Be the process of a task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    logging.basicConfig(format=f"%(levelname)s: {task.folder}: %(message)s", level=logging.INFO)
    torch.set_num_threads(threads)
    config = task.configuration.config
    gpus = torch.cuda.device_count()
    if gpus > 1 and config.device in ("auto", "cuda"):
        config = replace(config, device=f"cuda:{slot % gpus}")
    failure = ""
    try:
        evaluate(
            task.recording,
            config,
            folder,
            task.choices,
            configuration=task.configuration.name,
            about={_FINGERPRINT: fingerprint},
        )
    except _EXPECTED as error:
        failure = str(error)
    except Exception as error:  # whatever it is, others go on
        _log.exception("unexpected")
        failure = repr(error)
    sender.send(failure)


def _finished(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the metrics of a task that was finished before, if they are the same task's."""
    try:
        metrics: dict[str, Any] = json.loads((folder / METRICS).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return metrics if metrics.get(_FINGERPRINT) == fingerprint else None


def _result(task: Task, metrics: Mapping[str, Any]) -> Result:
    return Result(task.recording.name, task.configuration.name, metrics, task.folder)


def _is_meant(recording: Recording, configuration: Configuration) -> bool:
    names = configuration.sequences
    return not names or any(recording.name.endswith(name) for name in names)


def _folder(recording: Recording, configuration: Configuration, several: bool) -> str:
    parts = [recording.name, configuration.name] if several else [recording.name]
    return "/".join(re.sub(r"[^\w.=-]+", "_", part) for part in parts)
