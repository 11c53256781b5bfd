# SPDX-License-Identifier: Apache-2.0
"""The command `ttt3r`. Each subcommand imports what it needs when it is called."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttt3r_ros import __version__
from ttt3r_ros.cli_evaluate import add_evaluate
from ttt3r_ros.cli_settings import (
    add_recording,
    add_ros_arguments,
    add_settings,
    file_and_flags,
)
from ttt3r_ros.config import Config, ConfigError, settings, with_values
from ttt3r_ros.simulation.scene_options import add_scene_arguments, scene_options

if TYPE_CHECKING:
    from ttt3r_ros.recordings.source import Source
    from ttt3r_ros.run import RunSummary


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
        BuildError,
        CheckpointError,
        EvaluationError,
        SessionError,
        SourceError,
        ViewError,
    )

    return (
        BuildError,
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
    add_evaluate(commands)
    _add_merge(commands)
    _add_simulate(commands)
    _add_play(commands)
    _add_demo(commands)
    _add_convert(commands)
    _add_check(commands)
    _add_view(commands)
    _add_build_interfaces(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="process a bag or a folder of images",
        description="Process a rosbag2 or a folder of images without ROS. Writes trajectory.tum, "
        "as all loops have it, trajectory_online.tum, as a robot has it at the time, map.ply or "
        "map.pcd and, if they are wanted, depth images and a session.",
    )
    parser.set_defaults(command=_run)
    parser.add_argument("input", type=Path, help="rosbag2 (mcap or sqlite3) or folder of images")
    add_recording(parser)
    parser.add_argument(
        "--save-session",
        action="store_true",
        help="write OUTPUT/session too, as ~/save_session does: for --session and ttt3r merge",
    )
    add_settings(parser)


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


def _config(args: argparse.Namespace) -> Config:
    """Return the settings that `ttt3r run` uses."""
    from ttt3r_ros.run import offline_config

    file, flags = file_and_flags(args)
    return offline_config(file, flags, every=args.every or 1)


def _run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ttt3r_ros.pipeline import Pipeline
    from ttt3r_ros.run import run

    config = _config(args)
    with _open(args) as source:
        pipeline = Pipeline.from_config(config)
        images = tqdm(source, unit=" images", total=len(source))
        summary = run(
            images,
            pipeline,
            args.output,
            depth_images=args.depth,
            map_format=args.map_format,
            save_to_session=args.save_session,
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


def _add_merge(commands: Any) -> None:
    parser = commands.add_parser(
        "merge",
        help="make one session of two of the same place",
        description="Recognize places of session A in session B, as when a loop is closed, and "
        "write one session of both in the map's frame of A. If nothing is recognized surely, or a "
        "session is damaged or of other weights, nothing is written.",
    )
    parser.set_defaults(command=_merge)
    parser.add_argument(
        "first", type=Path, metavar="A", help="session: ~/save_session, ttt3r run --save-session"
    )
    parser.add_argument("second", type=Path, metavar="B", help="another one, of later images")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    add_settings(parser)


def _merge(args: argparse.Namespace) -> int:
    from ttt3r_ros.merge import merge

    file, flags = file_and_flags(args)
    config = with_values(with_values(Config(), file), flags)
    merged = merge(args.first, args.second, args.output, config)
    print(
        f"{merged.loops} loops of {merged.images} images tie {args.second} to {args.first}; "
        f"{merged.keyframes} keyframes, {merged.poses} poses, {merged.voxels} voxels in "
        f"{args.output}"
    )
    return 0


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
    add_ros_arguments(parser)


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
    add_ros_arguments(parser)


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


def _add_build_interfaces(commands: Any) -> None:
    parser = commands.add_parser(
        "build-interfaces",
        help="compile the messages that the ROS wheels lack",
        description="Build the Python package of a few .msg files on top of the ROS wheels, by "
        "default of all that the node needs: ttt3r_ros and tf2_msgs. Needs gcc, g++ and Python's "
        "headers. With a ROS install, CMake does it.",
    )
    parser.set_defaults(command=_build_interfaces)
    parser.add_argument("package", nargs="?", help="its name; by default all that the node needs")
    parser.add_argument("messages", nargs="*", type=Path, metavar="FILE.msg")
    parser.add_argument("--prefix", type=Path, help="where to install it; default: this Python's")


def _build_interfaces(args: argparse.Namespace) -> int:
    if args.package and not args.messages:
        raise ConfigError(f"build-interfaces: no .msg files given for {args.package}")
    try:
        from ttt3r_ros.ros import build_interfaces as builder
    except ImportError as error:
        raise ConfigError(f"build-interfaces: it needs the ROS wheels: {error}") from error
    packages = {args.package: args.messages} if args.package else builder.lacking()
    for package, messages in packages.items():
        builder.build_interfaces(package, messages, (args.prefix or builder.ROS_PREFIX).resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
