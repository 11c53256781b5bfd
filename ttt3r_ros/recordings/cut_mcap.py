# SPDX-License-Identifier: Apache-2.0
"""An .mcap file whose recording was cut off, as a whole one: to rosbags, nothing is missing.

Such a file lacks its index and its footer, and mostly ends within a record. The records before
that are as they were written (https://mcap.dev/spec).
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ttt3r_ros.types import SourceError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")  # opcode and length of what follows
_BLOCK = 4096  # of file systems
_LAST_OPCODE = 0x0E  # of those before the end of the data
_FOOTER = _RECORD.pack(0x02, 20) + bytes(20) + _MAGIC  # without an index


class CutMcap:
    """The path of such a file; it has what `rosbags` uses of a path.

    Attributes:
        end: bytes of the file that are whole records.
    """

    suffix = ".mcap"

    def __init__(self, path: Path) -> None:
        """Look for the last whole record.

        Raises:
            SourceError: there is none.
        """
        self._path = path
        self.end = _end_of_records(path)

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        """Return whether the file exists."""
        return self._path.exists()

    def is_dir(self) -> bool:
        """Return False."""
        return False

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the whole records, followed by a footer, for reading."""
        return io.BufferedReader(_Mended(self._path, self.end))


class _Mended(io.RawIOBase):
    def __init__(self, path: Path, end: int) -> None:
        self._file = path.open("rb")
        self._end, self._place = end, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._place, self._end + len(_FOOTER))[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Buffer) -> int:
        view: Any = memoryview(buffer).cast("B")
        if self._place < self._end:
            self._file.seek(self._place)
            data = self._file.read(min(len(view), self._end - self._place))
        else:
            begin = self._place - self._end
            data = _FOOTER[begin : begin + len(view)]
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _end_of_content(file: BinaryIO) -> int:
    """Return the size of a file without the blocks of zeros that a loss of power leaves there."""
    end = file.seek(0, io.SEEK_END)
    while end > 0:
        begin = max(0, (end - 1) // _BLOCK * _BLOCK)
        file.seek(begin)
        if any(file.read(end - begin)):
            break
        end = begin
    return end


def _end_of_records(path: Path) -> int:
    with path.open("rb") as file:
        size = _end_of_content(file)
        file.seek(0)
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(f"{path}: not an MCAP file")
        end = len(_MAGIC)
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            opcode, length = _RECORD.unpack(head)
            following = end + _RECORD.size + length
            if not 0 < opcode <= _LAST_OPCODE or opcode == 0x02 or following > size:
                break
            end = file.seek(following)
    if end == len(_MAGIC):
        raise SourceError(f"{path}: nothing of the recording is whole")
    return end
