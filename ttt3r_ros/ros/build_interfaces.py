# SPDX-License-Identifier: Apache-2.0
"""Builds the Python interface package of a few .msg files on top of the ROS wheels, without CMake.

The wheels carry ROS's own generators (rosidl): they write the C structures, the type supports and
the Python classes; this module calls them in order and compiles their output into an extension
module, with a library for each type support beside it. What it installs is for rclpy in this
environment only: no headers, nothing for C++ nodes, no services or actions. With a ROS install the
same .msg files are built by CMakeLists.txt instead. The command is `ttt3r build-interfaces`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
from rosidl_adapter.msg import convert_msg_to_idl
from rosidl_adapter.parser import parse_message_file
from rosidl_generator_c import generate_c
from rosidl_generator_py import generate_py
from rosidl_generator_type_description import generate_type_hash
from rosidl_typesupport_c import generate_c as generate_dispatch
from rosidl_typesupport_fastrtps_c import generate_typesupport_fastrtps_c
from rosidl_typesupport_introspection_c import generate_c as generate_introspection

from ttt3r_ros.types import BuildError

_PACKAGE = Path(__file__).resolve().parent.parent
ROS_PREFIX = Path(sys.prefix)  # the wheels make the environment a complete ament prefix
SITE_PACKAGES = Path(sysconfig.get_path("platlib")).relative_to(sys.prefix)
RESOURCE_INDEX = Path("share/ament_index/resource_index")
# The wheels bring one middleware, Fast DDS. It serialises with the first type support and describes
# types with the second; without that, ROS complains on stderr about the next error of any kind.
TYPE_SUPPORTS = {
    "rosidl_typesupport_fastrtps_c": generate_typesupport_fastrtps_c,
    "rosidl_typesupport_introspection_c": generate_introspection,
}
C_GENERATORS = ("rosidl_generator_c", "rosidl_typesupport_c", *TYPE_SUPPORTS)
RUNTIME_LIBRARIES = (
    *("rosidl_runtime_c", "rosidl_typesupport_c", *TYPE_SUPPORTS),
    *("rosidl_typesupport_fastrtps_cpp", "fastcdr", "stdc++"),
)


def lacking() -> dict[str, list[Path]]:
    """Return the messages that the node needs and the wheels lack, by package.

    Those of this package are at the root of the tree, where CMake wants them; pip installs them
    among the shared files.

    Raises:
        BuildError: they are in neither place.
    """
    shared = Path(sysconfig.get_path("data"), "share/ttt3r_ros/interfaces/ttt3r_ros")
    for folder in (_PACKAGE.parent / "msg", shared):
        own = sorted(folder.glob("*.msg"))
        if own:
            tf = sorted((_PACKAGE / "interfaces/tf2_msgs").glob("*.msg"))
            return {"tf2_msgs": tf, "ttt3r_ros": own}
    raise BuildError(f"messages of ttt3r_ros: none in {_PACKAGE.parent / 'msg'} or {shared}")


def build_interfaces(package: str, messages: Sequence[Path], prefix: Path = ROS_PREFIX) -> None:
    """Generate, compile and install the messages of one package, replacing an earlier build.

    Everything is made in a folder beside the final place and moved there at the end, so a failed
    build changes nothing.

    Args:
        package: name of the interface package, such as ``tf2_msgs``.
        messages: its .msg files. They may use each other and the messages of the ROS wheels.
        prefix: ament prefix to install into, the environment itself by default.

    Raises:
        BuildError: a tool is missing, a .msg file is wrong, or the compiler fails.
    """
    check_tools()
    dependencies = find_dependencies(package, messages)
    prefix.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prefix, prefix=f".{package}-") as folder:
        stage = Path(folder, "install")
        sources = Path(folder, "sources")
        python = stage / SITE_PACKAGES / package
        try:
            generate(package, messages, dependencies, stage / "share" / package, sources, python)
        except Exception as error:  # the generators raise what their parsers and templates raise
            raise BuildError(f"{package}: ROS's generators failed: {error}") from error
        compile_extension(package, dependencies, sources, python)
        for generated in python.rglob("*.c"):
            generated.unlink()
        write_index(package, messages, stage)
        install(package, stage, prefix)


def check_tools() -> None:
    """Raise a BuildError that names the missing compilers and headers with their packages."""
    missing = [f"{tool} (package {tool})" for tool in ("gcc", "g++") if shutil.which(tool) is None]
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("Python.h (package python3-dev)")
    if missing:
        raise BuildError(f"needed to compile messages, but not found: {', '.join(missing)}")


def find_dependencies(package: str, messages: Sequence[Path]) -> list[str]:
    """Return the other packages whose messages are used, after checking that each of them exists.

    Raises:
        BuildError: a file cannot be parsed, or a field has a type that nobody defines.
    """
    own = {path.stem for path in messages}
    found: set[str] = set()
    for path in messages:
        try:
            fields = parse_message_file(package, str(path)).fields
        except Exception as error:  # InvalidSpecification, InvalidValue, OSError, UnicodeError ...
            raise BuildError(f"{path}: {type(error).__name__}: {error}") from error
        for field in fields:
            other, name = field.type.pkg_name, field.type.type
            if other is None:  # a primitive type
                continue
            if other == package:
                known = name in own
            else:
                known = (ROS_PREFIX / "share" / other / "msg" / f"{name}.json").is_file()
                found.add(other)
            if not known:
                raise BuildError(
                    f"{path}: field {field.name!r} has the type {other}/{name}, which is neither "
                    f"among the files given nor below {ROS_PREFIX / 'share'}"
                )
    return sorted(found)


def generate(
    package: str,
    messages: Sequence[Path],
    dependencies: Sequence[str],
    share: Path,
    sources: Path,
    python: Path,
) -> None:
    """Write the descriptions to ``share``, the C and C++ to ``sources``, the rest to ``python``.

    Each generator of C has its own folder in ``sources``: some of the files have the same name.
    """
    (share / "msg").mkdir(parents=True)
    c = {generator: sources / generator / package for generator in C_GENERATORS}
    for folder in (*c.values(), python):
        (folder / "msg" / "detail").mkdir(parents=True)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints every path that it reads or writes
        for path in messages:
            shutil.copy(path, share / "msg")
            convert_msg_to_idl(share, package, Path("msg", path.name), share / "msg")
    names = [path.stem for path in messages]

    def run(
        generator: Callable[..., Any], of: str, output: Path, *supports: list[str], **more: object
    ) -> None:
        arguments = {
            "package_name": package,
            "output_dir": str(output),
            "template_dir": str(ROS_PREFIX / "share" / of / "resource"),
            "idl_tuples": [f"{share}:msg/{name}.idl" for name in names],
            "ros_interface_files": [str(share / "msg" / f"{name}.msg") for name in names],
            "include_paths": [f"{other}:{ROS_PREFIX / 'share' / other}" for other in dependencies],
            "target_dependencies": [],
            **more,
        }
        path = sources / f"{of}.json"
        path.write_text(json.dumps(arguments), encoding="utf-8")
        generator(str(path), *supports)

    run(generate_type_hash, "rosidl_generator_type_description", share)
    hashes = [f"msg/{name}.idl:{share}/msg/{name}.json" for name in names]
    run(generate_c, "rosidl_generator_c", c["rosidl_generator_c"], type_description_tuples=hashes)
    run(generate_dispatch, "rosidl_typesupport_c", c["rosidl_typesupport_c"], list(TYPE_SUPPORTS))
    for support, generator in TYPE_SUPPORTS.items():
        run(generator, support, c[support])
    run(generate_py, "rosidl_generator_py", python, ["rosidl_typesupport_c"])
    for name in ("rosidl_generator_c", *TYPE_SUPPORTS):
        header = f"{name}__visibility_control.h"
        template = ROS_PREFIX / "share" / name / "resource" / f"{header}.in"
        text = template.read_text(encoding="utf-8").replace("@PROJECT_NAME@", package)
        text = text.replace("@PROJECT_NAME_UPPER@", package.upper())
        (c[name] / "msg" / header).write_text(text, encoding="utf-8")


def compile_extension(
    package: str, dependencies: Sequence[str], sources: Path, python: Path
) -> None:
    """Compile the module that rclpy imports for the package, and the type supports beside it.

    The code in the module that chooses a type support opens its library by name, without a folder.
    The module is linked to both, so they are loaded with it and found wherever the prefix is; what
    they need of the C structures is in the module.
    """
    headers = ROS_PREFIX / "include"  # one folder for each ROS package, Fast CDR's without one
    includes = [*(sources / generator for generator in C_GENERATORS), headers, *headers.iterdir()]
    includes += [Path(sysconfig.get_path("include")), Path(numpy.get_include())]
    libraries = [
        f"{other}__{kind}"
        for other in dependencies
        for kind in ("rosidl_generator_c", *TYPE_SUPPORTS, "rosidl_generator_py")
    ]

    def compile_library(name: str, folders: Sequence[Path], *options: str) -> None:
        files = [path for folder in folders for path in folder.rglob("*.c*")]
        command = [
            # gcc, for it takes C and C++ files in one call and finds g++'s compiler by itself
            *("gcc", "-shared", "-fPIC", "-O1", "-w", "-o", str(python / name)),
            *(f"-I{path}" for path in includes),
            *sorted(str(path) for path in files),
            f"-L{ROS_PREFIX / 'lib'}",
            *(f"-l{library}" for library in (*libraries, *RUNTIME_LIBRARIES)),
            *options,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise BuildError(f"{package}: the compiler failed:\n{result.stderr.strip()[-4000:]}")

    for support in TYPE_SUPPORTS:
        compile_library(f"lib{package}__{support}.so", [sources / support])
    compile_library(
        f"{package}_s__rosidl_typesupport_c.so",
        [sources / "rosidl_generator_c", sources / "rosidl_typesupport_c", python],
        *("-Wl,-rpath,$ORIGIN", f"-L{python}"),
        "-Wl,--no-as-needed",  # some linkers drop libraries of which no symbol is named
        *(f"-l{package}__{support}" for support in TYPE_SUPPORTS),
    )


def write_index(package: str, messages: Sequence[Path], stage: Path) -> None:
    """Write the two markers by which ROS tools find an installed interface package."""
    interfaces = [f"msg/{path.stem}.{kind}" for path in messages for kind in ("idl", "msg")]
    for resource, content in (("rosidl_interfaces", "\n".join(interfaces)), ("packages", "")):
        marker = stage / RESOURCE_INDEX / resource / package
        marker.parent.mkdir(parents=True)
        marker.write_text(content, encoding="utf-8")


def install(package: str, stage: Path, prefix: Path) -> None:
    """Move the finished files to their place, the markers last.

    Only what a build makes is replaced: the package's own Python files may lie in the same folder.
    """
    for part in (
        Path("share", package, "msg"),
        SITE_PACKAGES / package / "msg",
        *(SITE_PACKAGES / package / f"lib{package}__{support}.so" for support in TYPE_SUPPORTS),
        SITE_PACKAGES / package / f"{package}_s__rosidl_typesupport_c.so",
        RESOURCE_INDEX / "rosidl_interfaces" / package,
        RESOURCE_INDEX / "packages" / package,
    ):
        target = prefix / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(stage / part, target)
