# SPDX-License-Identifier: Apache-2.0
"""The command `ttt3r`. Each subcommand imports what it needs when it is called."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttt3r_ros import __version__
from ttt3r_ros.config import Config, ConfigError, NodeConfig, Setting, settings
from ttt3r_ros.simulation.scene_options import add_scene_arguments, scene_options

if TYPE_CHECKING:
    from ttt3r_ros.recordings.source import Source
    from ttt3r_ros.run import RunSummary

_FIXED = ("process_all_images",)  # how the offline commands process images is no choice

_LIVE_ONLY = {"node", "seconds", "against"}  # of `ttt3r evaluate`
_LIVE_FLAGS = {"live", "output", "topic", "ground_truth_topic", "depth_topic", "alignment"}

_SECTIONS = ("**", "ttt3r_node")  # of a ROS parameter file, whatever the namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the process's exit status.

    Errors of the user's are told in one line, with status 2; bugs keep their traceback.
    """
    args = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as in `ros`
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        return int(args.command(args))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not isinstance(error, _user_errors()):
            raise
        print(f"ttt3r: {error}", file=sys.stderr)
        return 2


def _user_errors() -> tuple[type[Exception], ...]:
    from ttt3r_ros.types import (
        CheckpointError,
        EvaluationError,
        SessionError,
        SourceError,
        ViewError,
    )

    return (
        ConfigError,
        CheckpointError,
        EvaluationError,
        SessionError,
        SourceError,
        ViewError,
        OSError,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ttt3r", description="Live 3D from one camera.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_evaluate(commands)
    _add_simulate(commands)
    _add_play(commands)
    _add_demo(commands)
    _add_convert(commands)
    _add_check(commands)
    _add_view(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="process a bag or a folder of images",
        description="Process a rosbag2 or a folder of images without ROS. Writes trajectory.tum, "
        "map.ply or map.pcd and, with --depth, depth images.",
    )
    parser.set_defaults(command=_run)
    parser.add_argument("input", type=Path, help="rosbag2 (mcap or sqlite3) or folder of images")
    _add_recording(parser)
    _add_settings(parser)


def _add_recording(parser: argparse.ArgumentParser) -> None:
    """Add what says which images are processed and where results go."""
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--topic", default="", help="image topic of a bag with several")
    parser.add_argument("--camera-info-topic", default="", help="default: beside the image topic")
    parser.add_argument("--every", type=int, metavar="N", help="take every n-th image")
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after n images")
    parser.add_argument("--rate", type=float, help="images/s of a folder without stamps [Hz]")
    parser.add_argument("--depth", action="store_true", help="write depth images too")
    formats = settings(NodeConfig)["map_format"].choices
    parser.add_argument(
        "--map-format", choices=formats, default=formats[0], help="default: %(default)s"
    )


def _open(args: argparse.Namespace) -> Source:
    from ttt3r_ros.recordings.readers import open_source

    given = {"every": args.every, "rate_hz": args.rate}
    return open_source(
        args.input,
        topic=args.topic,
        camera_info_topic=args.camera_info_topic,
        max_frames=args.max_frames,
        **{name: value for name, value in given.items() if value is not None},
    )


def _run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ttt3r_ros.pipeline import Pipeline
    from ttt3r_ros.run import run

    config = _config(args)
    with _open(args) as source:
        pipeline = Pipeline.from_config(config)
        images = tqdm(source, unit=" images", total=len(source))
        summary = run(
            images, pipeline, args.output, depth_images=args.depth, map_format=args.map_format
        )
    return _tell(source, summary, args.output)


def _tell(source: Source, summary: RunSummary, output: Path) -> int:
    """Print what became of the images; return the exit status."""
    for rejection in source.rejected:
        print(f"rejected: image at {rejection.stamp_ns} ns: {rejection.reason}", file=sys.stderr)
    rejected = summary.rejected + len(source.rejected)
    print(
        f"{summary.processed} images processed ({summary.lost} of them LOST), {rejected} rejected, "
        f"{summary.segments} segments, {summary.map_points} points in the map; see {output}"
    )
    return 0 if summary.processed else 1


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="process recordings and compare with the truth in them",
        description="Do what `ttt3r run` does with recordings that also hold true poses or depth, "
        "and compare: prints a table and writes report.html, report.md and report.json. Several "
        "sequences or settings get a folder each, and a report that compares them; those whose "
        "reports are there already are not made again. docs/evaluation.md says what the numbers "
        "mean.",
    )
    parser.set_defaults(command=_evaluate)
    parser.add_argument(
        "input",
        type=Path,
        nargs="?",
        help="rosbag2, or a data set's folder in its published layout; none with --live",
    )
    _add_recording(parser)
    live = parser.add_argument_group("a running node instead of a recording")
    live.add_argument(
        "--live", action="store_true", help="listen to the node and to the truth until all is quiet"
    )
    live.add_argument("--node", default="ttt3r_node", metavar="NAME", help="default: %(default)s")
    live.add_argument("--seconds", type=float, metavar="S", help="listen so long")
    live.add_argument(
        "--against", type=Path, metavar="DIR", help="compare with the report of a recording"
    )
    which = parser.add_argument_group("which recordings")
    which.add_argument("--format", default="", help="of the data set; default: what fits")
    which.add_argument("--sequences", nargs="+", default=(), metavar="NAME", help="default: all")
    which.add_argument("--limit", type=int, metavar="N", help="the first n sequences only")
    which.add_argument("--start", type=int, metavar="N", help="leave out n images at the beginning")
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
    _add_settings(parser)


def _evaluate(args: argparse.Namespace) -> int:
    if args.live == bool(args.input):
        raise ConfigError("evaluate: give a recording, or --live")
    _refuse_flags_of_the_other(args)
    return _evaluate_live(args) if args.live else _evaluate_recordings(args)


def _refuse_flags_of_the_other(args: argparse.Namespace) -> None:
    """Refuse what has no meaning for a running node, or for a recording."""
    defaults = _parser().parse_args(["evaluate", "--live", "--output", ""])
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
    file, flags = _file_and_flags(args)
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
        if name in _FIXED:
            raise ConfigError(f"--set: {name} is no choice with recordings")
        result[name] = tuple(values.split(","))
    return result


def _add_simulate(commands: Any) -> None:
    parser = commands.add_parser(
        "simulate",
        help="write a bag of a simulated room, or publish it",
        description="Write a rosbag2 (mcap) of what a camera sees in a simulated room: images, "
        "intrinsics, and the true depth and poses that `ttt3r evaluate` compares with.",
    )
    parser.set_defaults(command=_simulate)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("out", nargs="?", type=Path, metavar="OUT", help="bag to write")
    target.add_argument("--publish", action="store_true", help="publish live over DDS instead")
    parser.add_argument("--frames", type=int, default=200, metavar="N", help="images")
    parser.add_argument("--rate", type=float, default=10.0, metavar="HZ", help="images/s")
    parser.add_argument("--compressed", action="store_true", help="write images as JPEG")
    parser.add_argument("--depth-encoding", choices=("32FC1", "16UC1"), default="32FC1")
    add_scene_arguments(parser)
    _add_ros_arguments(parser)


def _simulate(args: argparse.Namespace) -> int:
    options = scene_options(args)
    for name in ("frames", "rate"):
        if not getattr(args, name) > 0:
            raise ConfigError(f"{name}: must be above 0, got {getattr(args, name)}")
    if args.publish:
        if args.compressed or args.depth_encoding != "32FC1":
            raise ConfigError("--compressed, --depth-encoding: of bags only, not with --publish")
        from ttt3r_ros.clients.simulated_camera import publish

        return publish(options, seconds=args.frames / args.rate, rate_hz=args.rate)
    from tqdm import trange

    from ttt3r_ros.recordings.simulated_bag import write_simulated_bag
    from ttt3r_ros.simulation.scene import Scene

    scene = Scene(options)
    with trange(args.frames, unit=" images") as indices:
        write_simulated_bag(
            args.out,
            scene,
            indices,
            args.rate,
            compressed=args.compressed,
            depth_encoding=args.depth_encoding,
        )
    return 0


def _add_play(commands: Any) -> None:
    parser = commands.add_parser("play", help="publish a rosbag2 over DDS, with /clock")
    parser.set_defaults(command=_play)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, default=1.0, help="bag seconds per second")
    parser.add_argument("--loop", action="store_true", help="begin again at the end")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="skip seconds")
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", help="publish these only")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="wait at most so long for a subscriber"
    )
    _add_ros_arguments(parser)


def _play(args: argparse.Namespace) -> int:
    from ttt3r_ros.clients.player import play

    with suppress(KeyboardInterrupt):  # as one ends a player
        play(
            args.bag,
            rate=args.rate,
            loop=args.loop,
            start_s=args.start,
            topics=args.topics,
            wait_for_subscribers_s=args.wait,
        )
    return 0


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser("demo", help="map a simulated room with the node, over DDS")
    parser.set_defaults(command=_demo)
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder to write")
    seconds = "length of the camera's path; once around takes 60"
    parser.add_argument("--seconds", type=float, default=60.0, help=seconds)
    # A room that training never showed, chosen by its true views: furniture in all of them.
    parser.add_argument("--seed", type=int, default=1_100_026, help="of the room and the path")


def _demo(args: argparse.Namespace) -> int:
    from ttt3r_ros.clients.demo import demo

    return demo(args.output, seconds=args.seconds, seed=args.seed)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser("convert", help="make .safetensors of an official .pth file")
    parser.set_defaults(command=_convert)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument(
        "--world-points-head", action="store_true", help="keep the world points' head"
    )


def _convert(args: argparse.Namespace) -> int:
    from ttt3r_ros.network.convert import convert

    convert(args.source, args.target, dtype=args.dtype, world_points_head=args.world_points_head)
    print(f"{args.target}: {args.target.stat().st_size / 1e6:.1f} MB")
    return 0


def _add_check(commands: Any) -> None:
    parser = commands.add_parser("check", help="say what a file of weights is, and try it")
    parser.set_defaults(command=_check)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default=Config().device, help=settings(Config)["device"].help)


def _check(args: argparse.Namespace) -> int:
    from ttt3r_ros.check import check, format_report
    from ttt3r_ros.loading import find_device

    report = check(args.file, device=find_device(args.device))
    print(format_report(report))
    return 0 if report.finite else 1


def _add_view(commands: Any) -> None:
    parser = commands.add_parser(
        "view",
        help="show the running node, or what a run has written, in a browser",
        description="Serve a page that shows the map, the path, the camera and what it sees. "
        "Without DIR that of the running node, as it comes; with DIR what `ttt3r run` has written "
        "there, without ROS. Ends with Ctrl-C.",
    )
    parser.set_defaults(command=_view)
    add = parser.add_argument
    add("folder", type=Path, nargs="?", metavar="DIR", help="what --output of `ttt3r run` was")
    add("--node", metavar="NAME", help="of the running node; default: /ttt3r_node")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; all that reach it see the page. Default: %(default)s, "
        "this machine alone",
    )
    add("--port", type=int, default=8080, help="default: %(default)s; 0: any that is free")
    add(
        "--max-points",
        type=int,
        default=100_000,
        metavar="N",
        help="of the map that are drawn, default: %(default)s",
    )


def _view(args: argparse.Namespace) -> int:
    from ttt3r_ros.viewer.folder import FolderView, read_results
    from ttt3r_ros.viewer.page import Page

    if args.folder and args.node:
        raise ConfigError(f"view: a folder or a node, not both; got {args.folder} and {args.node}")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    if args.folder:
        results = read_results(args.folder)
        with Page(args.host, args.port, args.max_points) as page, suppress(KeyboardInterrupt):
            FolderView(page, results).run()
        return 0
    try:
        from ttt3r_ros.clients.live_view import view_live
    except ImportError as error:
        raise ConfigError(f"view: a running node is heard through ROS: {error}") from error
    with Page(args.host, args.port, args.max_points) as page, suppress(KeyboardInterrupt):
        view_live(page, args.node or "/ttt3r_node")
    return 0


def _add_ros_arguments(parser: argparse.ArgumentParser) -> None:
    # rclpy reads them itself.
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, help="what follows is for ROS: -r /image:=/camera"
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting of the pipeline."""
    group = parser.add_argument_group("settings", "as in config/ttt3r.yaml; flags beat the file")
    group.add_argument("--config", type=Path, metavar="YAML", help="file with settings")
    for setting in settings(Config).values():
        if setting.name not in _FIXED:
            group.add_argument(
                "--" + setting.name.replace("_", "-"),
                dest=f"setting {setting.name}",
                metavar=_metavar(setting),
                help=f"{setting.help} (default: {setting.default!r})".replace("%", "%%"),
            )


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "{" + ",".join(setting.choices) + "}"
    return setting.unit or type(setting.default).__name__.upper()


def _config(args: argparse.Namespace) -> Config:
    """Return the settings that `ttt3r run` uses."""
    from ttt3r_ros.run import offline_config

    file, flags = _file_and_flags(args)
    return offline_config(file, flags, every=args.every or 1)


def _file_and_flags(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the file, if there is one, and those of flags."""
    flags = {
        name.removeprefix("setting "): value
        for name, value in vars(args).items()
        if name.startswith("setting ") and value is not None
    }
    return (_read_yaml(args.config) if args.config else {}), flags


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return the pipeline's settings of a ROS parameter file, by dotted name."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        sections = [content[name] for name in content if name.rpartition("/")[2] in _SECTIONS]
        nodes = [_flatten(section["ros__parameters"], "") for section in sections]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a ROS parameter file: {error}") from error
    values = {name: value for node in nodes for name, value in node}
    others = {*settings(NodeConfig), "use_sim_time"}
    return {
        name: value
        for name, value in values.items()
        if name not in others and not name.startswith("qos_overrides.")
    }


def _flatten(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves = []
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves += _flatten(value, f"{prefix}{name}.")
        else:
            leaves.append((prefix + name, value))
    return leaves


if __name__ == "__main__":
    sys.exit(main())
