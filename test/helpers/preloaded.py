# SPDX-License-Identifier: Apache-2.0
"""Programs that begin in a copy of a process which has loaded the libraries already.

Loading them takes 2 s of CPU, more than most programs here do after that. The process that has
loaded them has computed nothing and has no threads, so a copy is as good as new; it gets the
arguments, environment, folder, files and signals of the process that asks for it. ROS is not among
what is loaded, for it begins threads of its own.

    python preloaded.py serve SOCKET     is the process that is copied, until its input ends
    python preloaded.py SOCKET WORDS...  stands for `python WORDS...`: it passes signals on, and its
                                         end is that of the program
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PASSED_ON = (signal.SIGINT, signal.SIGTERM)
LARGEST = 1 << 20  # bytes of a request
MODULES = ("cv2", "scipy.sparse.linalg", "torch", "ttt3r_ros.run", "ttt3r_ros.simulation.scene")


def new_process(*words: object) -> list[str]:
    """Return what starts `python WORDS...` itself."""
    return [sys.executable, *map(str, words)]


class Server:
    """The process that is copied, begun when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._address = folder / "programs"
        self._process: subprocess.Popen | None = None

    def command(self, *words: object) -> list[str]:
        """Return what to start instead of `[sys.executable, *words]`."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "serve", str(self._address)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert self._process.stdout.readline() == b"ready\n"
        return [sys.executable, "-ISu", __file__, str(self._address), *map(str, words)]

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=60)


def ask(address: str, words: list[str]) -> int:
    """Have a program begin; return its status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until it is known to whom
    request = {
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "ignored": [n for n in PASSED_ON if signal.getsignal(n) == signal.SIG_IGN],
    }
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    socket.send_fds(connection, [b"x"], [0, 1, 2])
    connection.sendall(json.dumps(request).encode() + b"\n")
    answers = connection.makefile("r")
    pid = int(answers.readline())
    for number in PASSED_ON:  # ignored ones too, for the program may ask for them, as rclpy does
        signal.signal(number, lambda number, _: os.kill(pid, number))
    for file in (0, 1, 2):  # whoever reads them waits for the program's end, not for this one's
        os.close(file)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    return int(answers.readline())


def serve(address: str) -> list[str]:
    """Copy this process for whoever asks; return, in each copy, the words of its program."""
    import gc
    import importlib
    import selectors

    sys.path[0] = os.getcwd()  # not the folder of this file
    for name in MODULES:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1
    gc.freeze()  # so that the copies share what is loaded
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    selector.register(listening, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}  # by the file of the process: pid and asker
    while True:
        for key, _ in selector.select():
            if key not in selector.get_map().values():
                continue  # closed by what came before it
            if key.fd == sys.stdin.fileno():
                for pid, _ in running.values():
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                os._exit(0)
            if key.fileobj is listening:
                connection = listening.accept()[0]
                files = socket.recv_fds(connection, 1, 3)[1]
                asked = connection.makefile("r").readline()
                if not asked:  # whoever wanted to ask is gone
                    connection.close()
                    continue
                request, pid = json.loads(asked), os.fork()
                if pid == 0:
                    selector.close()
                    for one in (listening, connection, *(c for _, c in running.values())):
                        one.close()
                    return become(request, files)
                for file in files:
                    os.close(file)
                with suppress(OSError):
                    connection.sendall(b"%d\n" % pid)
                of_process = os.pidfd_open(pid)
                running[of_process] = pid, connection
                selector.register(of_process, selectors.EVENT_READ)
                selector.register(connection, selectors.EVENT_READ, pid)
            elif key.data is not None:  # whoever asked is gone, killed perhaps
                selector.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)
            elif key.fd in running:
                pid, connection = running.pop(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(KeyError):
                    selector.unregister(connection)
                selector.unregister(key.fd)
                os.close(key.fd)
                with suppress(OSError):
                    connection.sendall(b"%d\n" % status)
                connection.close()


def become(request: dict, files: list[int]) -> list[str]:
    """Make this copy what a new process would be."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    return request["words"]


def begin(words: list[str]) -> None:
    """Do what `python WORDS...` does."""
    import runpy

    kind, *rest = words
    if kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        sys.modules.pop(rest[0], None)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(kind)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__" and sys.argv[1] == "serve":
    begin(serve(sys.argv[2]))
elif __name__ == "__main__":
    status = ask(sys.argv[1], sys.argv[2:])
    if status < 0:  # ended by a signal
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
