# SPDX-License-Identifier: Apache-2.0
"""Makes the environment .venv that `make` works in; run it through `make env`.

It looks first for everything that it will need and names whatever is missing at once, before
anything is downloaded. Then it creates .venv, installs the package with its dependencies and builds
the messages. A stamp in .venv remembers what was done, so that a second run does nothing, a changed
message rebuilds only the messages, and a run after a failure goes on where it stopped. Nothing
outside .venv and build/ is written.

ROS comes from the wheels on a machine without ROS (x86-64 Linux), or from the ROS install that is
sourced. Only the standard library is used here: this runs in the machine's own Python.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "ttt3r_ros.json"

RosSource = Literal["wheels", "install"]

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
TOOLS = ("gcc", "g++", "make")
DOWNLOADS = {  # as measured on x86-64 with Python 3.11
    "torch": "PyTorch (its CPU build 190 MB, its CUDA build several GB)",
    "ros": "ROS 2 wheels (50 MB)",
    "libraries": "other libraries (100 MB)",
    "dev": "tools for tests and checks (100 MB)",
}
CPU_BUILD_HINT = """\
Which build of PyTorch comes is decided by pip's own settings; by default it is the one for CUDA.
On a machine without an NVIDIA GPU set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds first;
PyTorch's installation page gives its address."""


class SetupError(RuntimeError):
    """The environment cannot be made on this machine as it is; the message says what to do."""


def missing_prerequisites(
    python_version: tuple[int, ...] = sys.version_info[:3],
    find_tool: Callable[[str], str | None] = shutil.which,
    find_module: Callable[[str], object | None] = importlib.util.find_spec,
    include_folder: str = sysconfig.get_path("include"),
    tools: Sequence[str] = TOOLS,
) -> dict[str, str]:
    """Return what is missing on the machine, each with the Debian or Ubuntu package that has it."""
    missing = {}
    if not OLDEST_PYTHON <= python_version[:2] <= NEWEST_PYTHON:
        version = ".".join(map(str, python_version))
        missing[f"Python 3.10 to 3.13 (this one is {version}; name one by PYTHON=...)"] = "python3"
    if find_module("venv") is None or find_module("ensurepip") is None:
        missing["Python modules venv and ensurepip"] = "python3-venv"
    if not Path(include_folder, "Python.h").is_file():
        missing["Python headers (Python.h)"] = "python3-dev"
    for tool in tools:
        if find_tool(tool) is None:
            missing[tool] = tool
    return missing


def choose_ros(
    environment: Mapping[str, str] = os.environ,
    system: str = platform.system(),
    machine: str = platform.machine(),
    find_module: Callable[[str], object | None] = importlib.util.find_spec,
) -> RosSource:
    """Decide whether ROS comes from the sourced install or from the wheels.

    Raises:
        SetupError: neither can be used.
    """
    distribution = environment.get("ROS_DISTRO")
    if distribution and environment.get("AMENT_PREFIX_PATH"):
        if find_module("rclpy") is not None:
            return "install"
        raise SetupError(
            f"ROS {distribution} is sourced, but {sys.executable} cannot import its rclpy. Either "
            "name the Python that it was built for (make PYTHON=/usr/bin/python3), or run make in "
            "a shell where no ROS is sourced, to use the ROS wheels."
        )
    if system == "Linux" and machine == "x86_64":
        return "wheels"
    raise SetupError(
        f"ROS wheels exist for x86-64 Linux only, and this machine is {machine} {system}. Install "
        "ROS 2, source its setup file (for example `source /opt/ros/jazzy/setup.bash`) and run "
        "make again."
    )


def wanted_state(ros: RosSource, dev: bool, root: Path = ROOT) -> dict[str, str]:
    """Return what the stamp should say: one entry for each step, the steps in their order."""

    def digest(*patterns: str) -> str:
        content = hashlib.sha256()
        for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
            content.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
        return content.hexdigest()

    release = os.environ["ROS_DISTRO"] if ros == "install" else "wheels"
    packages = digest("constraints.txt", "setup.py", "tools/setup_env.py")
    builder = "CMakeLists.txt" if ros == "install" else "ttt3r_ros/ros/build_interfaces.py"
    return {
        # The interpreter and the folder too: an environment can follow a change of neither.
        "environment": f"Python {platform.python_version()}, ROS {release}, {root}",
        "packages": packages,
        **({"dev": packages} if dev else {}),
        "messages": digest("msg/*.msg", "ttt3r_ros/interfaces/tf2_msgs/*.msg", builder),
    }


def steps_to_do(wanted: Mapping[str, str], done: Mapping[str, str]) -> list[str]:
    """Return the steps whose result is missing or out of date, in the order of ``wanted``."""
    if wanted["environment"] != done.get("environment"):
        return list(wanted)
    todo = [step for step, value in wanted.items() if value != done.get(step)]
    if "packages" in todo and "messages" not in todo:
        todo.append("messages")  # they are compiled against the packages
    return todo


def read_stamp() -> dict[str, str]:
    """Return the steps that were finished, nothing if .venv is missing or was left half made."""
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp


def write_stamp(stamp: Mapping[str, str]) -> None:
    """Replace the stamp as a whole."""
    fresh = STAMP.with_suffix(".new")
    fresh.write_text(json.dumps(stamp, indent=2), encoding="utf-8")
    fresh.replace(STAMP)


def run(*command: str | Path) -> None:
    """Run one command of a step and raise a SetupError if it fails."""
    # The wheels re-execute Python once and mark that so: the mark of another environment's Python
    # (make called from within one) must not reach ours.
    environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    words = [str(word) for word in command]
    print("+", *words, flush=True)
    status = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
    if status:
        raise SetupError(f"`{' '.join(words)}` failed with status {status}; see its output above")


def make_environment(ros: RosSource) -> None:
    """Create an empty .venv; with a ROS install it sees that install's Python packages."""
    options = ["--system-site-packages"] if ros == "install" else []
    run(sys.executable, "-m", "venv", "--clear", *options, VENV)


def install_packages(ros: RosSource, dev: bool) -> None:
    """Install the project, editable, with all that it needs to run, or to be tested as well."""
    extras = ["recordings", *(["ros"] if ros == "wheels" else [])]
    if dev:
        extras += ["evaluation", "view", "dev"]
    versions = ["--constraint", "constraints.txt"] if ros == "wheels" else fitting_numpy()
    project = f".[{','.join(extras)}]"
    run(VENV / "bin/python", "-m", "pip", "install", *versions, "--editable", project)


def fitting_numpy() -> list[str]:
    """Return the requirement that keeps a ROS install's NumPy: compiled for 1, it breaks with 2."""
    try:
        version = importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        return []
    return ["numpy<2"] if version.startswith("1.") else []


def build_messages(ros: RosSource) -> None:
    """Build ttt3r_ros.msg and, where ROS comes from wheels, the tf2_msgs that they lack."""
    if ros == "wheels":
        run(VENV / "bin/python", "-m", "ttt3r_ros.cli", "build-interfaces")
        return
    build = ROOT / "build" / "ros"
    options = (f"-DCMAKE_INSTALL_PREFIX={VENV}", f"-DPython3_EXECUTABLE={VENV / 'bin/python'}")
    # Links instead of copies, so that .venv follows every change of the Python files.
    links = "-DAMENT_CMAKE_SYMLINK_INSTALL=ON"
    run("cmake", "-S", ROOT, "-B", build, *options, links, "-DBUILD_TESTING=OFF")
    run("cmake", "--build", build, "--target", "install")


def bring_up_to_date(ros: RosSource, dev: bool) -> None:
    """Do the steps that are not done yet, in order, and stamp each.

    Raises:
        SetupError: something is missing on the machine, or a step failed.
    """
    wanted, done = wanted_state(ros, dev), read_stamp()
    todo = steps_to_do(wanted, done)
    if not todo:
        return
    require(missing_prerequisites(tools=(*TOOLS, "cmake") if ros == "install" else TOOLS))
    announce(ros, todo)
    for step in todo:
        if step == "environment":
            make_environment(ros)
            done = {}
        elif step == "packages":
            install_packages(ros, dev=False)
        elif step == "dev":
            install_packages(ros, dev=True)
        elif step == "messages":
            build_messages(ros)
        done[step] = wanted[step]
        write_stamp(done)


def require(missing: Mapping[str, str]) -> None:
    """Raise a SetupError that names all that is missing, if anything is."""
    if missing:
        names = "".join(f"\n  {name}: package {package}" for name, package in missing.items())
        packages = " ".join(dict.fromkeys(missing.values()))
        raise SetupError(
            f"missing on this machine:{names}\nOn Debian and Ubuntu: sudo apt install {packages}"
        )


def announce(ros: RosSource, todo: Sequence[str]) -> None:
    """Say what is going to happen and how much will be downloaded."""
    print(f"Bringing {VENV} up to date: {', '.join(todo)}. Nothing outside this folder changes.")
    kinds = []
    if "packages" in todo:
        kinds += ["torch", "ros", "libraries"] if ros == "wheels" else ["torch", "libraries"]
    if "dev" in todo:
        kinds.append("dev")
    if kinds:
        downloads = "".join(f"\n  {DOWNLOADS[kind]}" for kind in kinds)
        print(f"pip downloads what it does not have yet:{downloads}")
    if "torch" in kinds:
        print(CPU_BUILD_HINT)


def main() -> int:
    """Make the environment or bring it up to date; return the exit status."""
    parser = argparse.ArgumentParser(description="Make the environment .venv, or update it")
    parser.add_argument("--dev", action="store_true", help="with the tools for tests and checks")
    parser.add_argument(
        "--missing", action="store_true", help="only print the packages that the machine lacks"
    )
    arguments = parser.parse_args()
    if arguments.missing:
        print(*dict.fromkeys(missing_prerequisites().values()))
        return 0
    try:
        bring_up_to_date(choose_ros(), arguments.dev)
    except SetupError as error:
        print(f"setup_env: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
