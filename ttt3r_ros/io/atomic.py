# SPDX-License-Identifier: Apache-2.0
"""Files that appear under their name when they are whole, or not at all, and their SHA-256."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux, see renameat2(2)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a file beside `path` to write; it takes that name at the end of the context.

    A file that has that name already stays as it was until then, and after an exception.

    Args:
        path: of the file, in a folder that exists.

    Raises:
        OSError: the file cannot be written; it names `path`, and nothing is left behind.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        # Else the name may reach the disk before the content, and some disks are full only now.
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError) and error.errno:
            # A full disk's own error names no file, others the one beside.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders that exist have each other's name, at once.

    Returns:
        False: the system, or the disk's file system, cannot; nothing has changed.

    Raises:
        OSError: it can, and did not; nothing has changed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def sha256(path: Path) -> str:
    """Return it in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
