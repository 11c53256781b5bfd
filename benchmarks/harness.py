# SPDX-License-Identifier: Apache-2.0
"""What the `evaluate_*` programs share; each of them has only its own measurement and tables.

Here are means over rooms with their standard errors, tables in Markdown, and the command line,
which measures batch after batch of rooms and writes a JSON file anew after each. What is measured
comes from `streams`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.io.atomic import atomic_write
from ttt3r_ros.loading import Model, load_model

Numbers = npt.NDArray[np.float64]
Options = TypeVar("Options")
Result = TypeVar("Result")


def mean(values: Sequence[float] | Numbers) -> tuple[float, float]:
    """Mean and its standard error over the rooms that have the number (others: NaN)."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return math.nan, math.nan
    spread = numbers.std(ddof=1) if len(numbers) > 1 else math.nan
    return float(numbers.mean()), float(spread / math.sqrt(len(numbers)))


def ratio(
    above: Sequence[float] | Numbers, below: Sequence[float] | Numbers
) -> tuple[float, float]:
    """Ratio of two means and its standard error over rooms, to first order.

    The mean of ratios would be that of the rooms where the camera hardly moves.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return math.nan, math.nan
    a, b = a[both], b[both]
    quotient = float(a.mean() / b.mean())
    return quotient, mean(a - quotient * b)[1] / float(b.mean())


def cell(number: Sequence[float], decimals: int, factor: float = 1.0) -> str:
    """A mean and its standard error, times a factor; NaN is a dash or left out."""
    value, error = (factor * part for part in number)
    if math.isnan(value):
        return "-"
    return f"{value:.{decimals}f}" + ("" if math.isnan(error) else f" ± {error:.{decimals}f}")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> list[str]:
    """The lines of a table in Markdown and an empty one; of no rows only that of the title."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in rows]
    above = [f"**{title}**", ""] if title else []
    return [*above, f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines, ""]


def made_with(report: dict[str, Any]) -> str:
    """What the numbers of a report were got with, in a line."""
    weights, hardware, versions = (report[name] for name in ("checkpoint", "hardware", "versions"))
    return (
        f"Weights {weights['name']} (SHA-256 {weights['sha256']}). "
        f"{hardware['gpu'] or hardware['cpu']}, threads: {hardware['threads']}, processes: "
        f"{report['processes']}, {report['seconds']:.0f} s, torch {versions['torch']}, "
        f"{report['date']}, commit {report['commit']}."
    )


def option(default: Any, help: str, **settings: Any) -> Any:
    """Make the field of an option that is on the command line under its name.

    Args:
        default: says the type too; one that is a tuple takes several values.
        help: of the command line.
        settings: others of `argparse.add_argument`.
    """
    return field(default=default, metadata={"help": help, **settings})


@dataclass(frozen=True, slots=True)
class Context(Generic[Options]):
    """What a batch of rooms is measured with."""

    config: Config  # names the weights and the device
    options: Options
    first_seed: int
    rooms: int  # of the whole run

    @property
    def model(self) -> Model:
        """The weights, loaded once in each process."""
        return _loaded(self.config)


@cache
def _loaded(config: Config) -> Model:
    return load_model(config)


@dataclass(frozen=True, slots=True)
class Evaluation(Generic[Options, Result]):
    """A program.

    `measure` returns a result for each of some seeds. `summarize` takes those of all rooms so far
    and returns what the JSON file holds besides the settings. `markdown` makes tables of both.
    """

    about: str
    options: type[Options]  # a dataclass, each field an `option`; a ValueError is for the user
    first_seed: int
    measure: Callable[[Context[Options], Sequence[int]], list[Result]]
    summarize: Callable[[Context[Options], list[Result]], dict[str, Any]]
    markdown: Callable[[dict[str, Any]], list[str]]
    rooms: int = 16
    batch: int = 1
    dtype: str = "auto"
    before: Callable[[Context[Options]], dict[str, Any]] = lambda _: {}  # goes into the file too
    more_rooms: Callable[[Options], int] = lambda _: 0  # after the usual ones
    after: Callable[[Context[Options], list[Result]], None] = lambda *_: None


def _parser(evaluation: Evaluation[Any, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=evaluation.about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=evaluation.rooms)
    add("--first-seed", type=int, default=evaluation.first_seed)
    add("--batch", type=int, default=evaluation.batch, help="rooms that are measured together")
    add(
        "--processes", type=int, default=1, help="that share batches, with a thread each if several"
    )
    add("--json", type=Path, metavar="FILE", help="write all numbers here, after each batch")
    for entry in fields(evaluation.options):
        default: Any = entry.default
        settings: dict[str, Any] = {"default": default, **entry.metadata}
        if isinstance(default, tuple):
            settings = {"nargs": "+", "metavar": "VALUE", **settings}
            default = (*default, "")[0]
        settings.setdefault("type", type(default))
        add(f"--{entry.name.replace('_', '-')}", **settings)
    return parser


def run(evaluation: Evaluation[Any, Any], words: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print the tables."""
    parser = _parser(evaluation)
    arguments = vars(parser.parse_args(words))
    try:
        chosen = {entry.name: arguments[entry.name] for entry in fields(evaluation.options)}
        options = evaluation.options(
            **{k: tuple(dict.fromkeys(v)) if isinstance(v, list) else v for k, v in chosen.items()}
        )
    except ValueError as error:
        parser.error(str(error))
    config = Config(
        checkpoint=arguments["checkpoint"],
        device=arguments["device"],
        dtype=evaluation.dtype,
        process_all_images=True,
    )
    context = Context(config, options, arguments["first_seed"], arguments["rooms"])
    width = context.model.image_size
    about = {
        "first_seed": context.first_seed,
        "size": f"{width}x{3 * width // 4}",
        "plan": asdict(options),
        "processes": arguments["processes"],
        **run_metadata.of_run(config, context.model.device),
        **evaluation.before(context),
    }
    began_s = time.perf_counter()
    results: list[Any] = []
    rooms = context.rooms + evaluation.more_rooms(options)

    def report() -> dict[str, Any]:
        rooms, seconds = min(len(results), context.rooms), time.perf_counter() - began_s
        summary = evaluation.summarize(context, results)
        return {**about, "rooms": rooms, "seconds": seconds, **summary}

    for done in _batches(evaluation, context, rooms, arguments["batch"], arguments["processes"]):
        results += done
        print(f"{len(results)} of {rooms} rooms", file=sys.stderr, flush=True)
        if arguments["json"]:
            with atomic_write(arguments["json"]) as file:
                file.write_text(json.dumps(report(), indent=1) + "\n", encoding="utf-8")
    print("\n".join(evaluation.markdown(report())))
    evaluation.after(context, results)


def _batches(
    evaluation: Evaluation[Any, Result],
    context: Context[Any],
    rooms: int,
    batch: int,
    processes: int,
) -> Iterator[list[Result]]:
    """Measure so many rooms and yield them as they are done."""
    stop = context.first_seed + rooms
    seeds = [range(s, min(s + batch, stop)) for s in range(context.first_seed, stop, batch)]
    if not seeds:
        yield []
    if processes == 1:
        yield from (evaluation.measure(context, some) for some in seeds)
        return
    # One thread each: the network is too small to share.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, torch.set_num_threads, (1,)) as executor:
        yield from executor.map(evaluation.measure, [context] * len(seeds), seeds)
