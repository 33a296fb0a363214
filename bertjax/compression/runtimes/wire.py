"""Messages between a process and the runtime it started: a header in JSON, then arrays.

No pickle: the two processes may have different versions of packages, and a file of weights that
misleads its runtime cannot execute anything here.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import numpy as np

_LENGTH = struct.Struct("<I")


class Message(NamedTuple):
    """One request or answer."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


def send(
    file: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a message and flush it; `header` has values of JSON, and arrays are of numbers."""
    given = arrays or {}
    described = []
    for name, array in given.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: an array of {array.dtype}, not of numbers")
        described.append([name, array.dtype.str, list(array.shape)])
    text = json.dumps({"header": dict(header), "arrays": described}).encode()
    file.write(_LENGTH.pack(len(text)))
    file.write(text)
    for array in given.values():
        # Not `numpy.save`: it asks a file for its position, which a pipe does not have.
        file.write(np.ascontiguousarray(array).tobytes())
    file.flush()


def receive(file: IO[bytes]) -> Message:
    """Read the next message; raise `EOFError` if the other process has closed its end."""
    (length,) = _LENGTH.unpack(_read(file, _LENGTH.size))
    values = json.loads(_read(file, length))
    arrays = {}
    for name, kind, shape in values["arrays"]:
        dtype = np.dtype(kind)
        content = _read(file, dtype.itemsize * math.prod(shape))
        arrays[name] = np.frombuffer(content, dtype).reshape(shape)
    return Message(values["header"], arrays)


def _read(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError("the other process has closed its end")
    return content
