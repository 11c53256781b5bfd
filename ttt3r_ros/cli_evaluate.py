# SPDX-License-Identifier: Apache-2.0
"""The subcommand `ttt3r evaluate`: its flags, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ttt3r_ros.cli_settings import FIXED, add_recording, add_settings, file_and_flags
from ttt3r_ros.config import ConfigError

_LIVE_ONLY = {"node", "seconds", "against"}
_LIVE_FLAGS = {"live", "output", "topic", "ground_truth_topic", "depth_topic", "alignment"}


def add_evaluate(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "evaluate",
        help="process recordings and compare with the truth in them",
        description="Do what `ttt3r run` does with recordings that also hold true poses or depth, "
        "and compare: prints a table and writes report.html, report.md and report.json. Several "
        "sequences or settings get a folder each, and a report that compares them; those whose "
        "reports are there already are not made again. docs/evaluation.md says what the numbers "
        "mean.",
    )
    parser.set_defaults(command=partial(_evaluate, parser))
    parser.add_argument(
        "input",
        type=Path,
        nargs="?",
        help="rosbag2, or a data set's folder in its published layout; none with --live",
    )
    add_recording(parser)
    _add_live(parser)
    _add_which(parser)
    _add_truth(parser)
    _add_how(parser)
    add_settings(parser)


def _add_live(parser: argparse.ArgumentParser) -> None:
    live = parser.add_argument_group("a running node instead of a recording")
    live.add_argument(
        "--live", action="store_true", help="listen to the node and to the truth until all is quiet"
    )
    live.add_argument("--node", default="ttt3r_node", metavar="NAME", help="default: %(default)s")
    live.add_argument("--seconds", type=float, metavar="S", help="listen so long")
    live.add_argument(
        "--against", type=Path, metavar="DIR", help="compare with the report of a recording"
    )


def _add_which(parser: argparse.ArgumentParser) -> None:
    which = parser.add_argument_group("which recordings")
    which.add_argument("--format", default="", help="of the data set; default: what fits")
    which.add_argument("--sequences", nargs="+", default=(), metavar="NAME", help="default: all")
    which.add_argument("--limit", type=int, metavar="N", help="the first n sequences only")
    which.add_argument("--start", type=int, metavar="N", help="leave out n images at the beginning")


def _add_truth(parser: argparse.ArgumentParser) -> None:
    truth = parser.add_argument_group(
        "ground truth of a bag", "found by type where there is only one topic"
    )
    truth.add_argument(
        "--ground-truth-topic",
        default="",
        metavar="TOPIC",
        help="PoseStamped, Odometry or TransformStamped: camera in the world, optical axes",
    )
    truth.add_argument(
        "--ground-truth-frames",
        nargs=2,
        metavar=("PARENT", "CHILD"),
        help="instead: frames of /tf and /tf_static; the child is the camera's optical frame",
    )
    truth.add_argument(
        "--depth-topic", default="", metavar="TOPIC", help="16UC1, 32FC1 or PNG; none: poses alone"
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how")
    how.add_argument("--protocol", default="", metavar="NAME", help="a paper's way of measuring")
    how.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE,VALUE",
        help="compare values of a setting, e.g. update_rule=cut3r,ttt3r; may be given again",
    )
    how.add_argument(
        "--alignment",
        choices=("sim3", "se3", "scale", "none"),
        default="se3",
        help="of pictures and map; default: %(default)s",
    )
    how.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="sequences at once; GPUs take turns"
    )
    how.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of a sequence on the CPU; metrics depend on it in their last digits. "
        "Default: 1 with several sequences",
    )


def _evaluate(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.live == bool(args.input):
        raise ConfigError("evaluate: give a recording, or --live")
    _refuse_flags_of_the_other(parser, args)
    return _evaluate_live(args) if args.live else _evaluate_recordings(args)


def _refuse_flags_of_the_other(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what has no meaning for a running node, or for a recording."""
    defaults = parser.parse_args(["--live", "--output", ""])
    given = {name for name, value in vars(args).items() if value != getattr(defaults, name)}
    wrong = given - _LIVE_FLAGS - _LIVE_ONLY if args.live else given & _LIVE_ONLY
    if wrong:
        names = ", ".join("--" + name.removeprefix("setting ") for name in sorted(wrong))
        raise ConfigError(
            f"{names.replace('_', '-')}: not with --live, the node has its own settings"
            if args.live
            else f"{names}: only with --live"
        )


def _evaluate_live(args: argparse.Namespace) -> int:
    from ttt3r_ros.clients.live_evaluation import LiveRequest, counts_text, evaluate_live
    from ttt3r_ros.evaluation.command import command_line, compare_live
    from ttt3r_ros.evaluation.metrics_json import summary_text
    from ttt3r_ros.evaluation.report.files import read_sequence

    offline = read_sequence(args.against) if args.against else None
    request = LiveRequest(
        output=args.output / "live" if offline else args.output,
        node=args.node,
        image_topic=args.topic or "image",
        pose_topic=args.ground_truth_topic,
        depth_topic=args.depth_topic,
        seconds=args.seconds,
        alignment=args.alignment,
    )
    report = evaluate_live(request, about={"command": command_line()})
    print(summary_text(report.metrics))
    print(counts_text(report.metrics))
    if offline:
        print(compare_live(report, offline, args.against, args.output))
    return 0 if report.metrics["images"] else 1


def _evaluate_recordings(args: argparse.Namespace) -> int:
    from ttt3r_ros.evaluation.command import EvaluationRequest, evaluate_all
    from ttt3r_ros.recordings.datasets.find import find_recordings

    values = _assignments(args.set)
    file, flags = file_and_flags(args)
    request = EvaluationRequest(
        title=args.input.resolve().name,
        find=partial(
            find_recordings,
            args.input,
            sequences=tuple(args.sequences),
            rate_hz=args.rate,
            topic=args.topic,
            camera_info_topic=args.camera_info_topic,
            ground_truth_topic=args.ground_truth_topic,
            ground_truth_frames=args.ground_truth_frames and tuple(args.ground_truth_frames),
            depth_topic=args.depth_topic,
        ),
        output=args.output,
        file=file,
        settings=flags,
        values=values,
        protocol=args.protocol,
        format=args.format,
        limit=args.limit,
        start=args.start,
        every=args.every,
        max_frames=args.max_frames,
        alignment=args.alignment,
        depth_images=args.depth,
        map_format=args.map_format,
        jobs=args.jobs,
        threads=args.threads,
    )
    return evaluate_all(request)


def _assignments(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    result: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not all(values.split(",")):
            raise ConfigError(f"--set: expected SETTING=VALUE or SETTING=VALUE,VALUE, got {text!r}")
        if name in result:
            raise ConfigError(f"--set: {name} is given twice; name all values at once")
        if name in FIXED:
            raise ConfigError(f"--set: {name} is no choice with recordings")
        result[name] = tuple(values.split(","))
    return result
