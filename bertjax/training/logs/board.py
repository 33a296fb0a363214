"""A run's metrics as events for TensorBoard."""

import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from bertjax.data.records.record_format import tfrecord_crc
from bertjax.training.logs.side_file import AppendedFile

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event

FOLDER = "tensorboard"


class Board:
    """Writes events, into a file of its own for each start of a run.

    Of tensorboardX the messages are used and not `SummaryWriter`: the thread of that ends at the
    first error, and then whoever adds to its queue waits for ever.
    """

    def __init__(self, run_dir: epath.Path, step: int):
        """Write the events of the steps after `step`; the file is made by the first one."""
        self._folder = run_dir / FOLDER
        self._step = step
        self._file: AppendedFile | None = None

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write the numbers of entries of `metrics.jsonl`."""
        records = _records_of(entries)
        if self._file is None:
            # TensorBoard reads the files of a folder in the order of their names.
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
            self._file = AppendedFile(self._folder / name, _first_records(self._step))
        self._file.append(records)

    def close(self) -> None:
        """Write what waits to be written, as far as the disk takes it."""
        if self._file is not None:
            self._file.append([])


def _first_records(step: int) -> bytes:
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    now = time.time()
    version = Event(wall_time=now, file_version="brain.Event:2")
    # A resumed run writes steps again that were written before: TensorBoard hides the old ones.
    start = SessionLog(status=SessionLog.START)
    restart = Event(wall_time=now, step=step + 1, session_log=start)
    return _record(version) + _record(restart)


def _records_of(entries: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Return a record of a TFRecord file for each number.

    The import of tensorboardX brings torch along where that is installed, which takes long. By the
    first entry the device has the next steps to work on.
    """
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    records = []
    for entry in entries:
        for name, value in entry.items():
            if isinstance(value, float):
                summary = scalar(f"{entry['split']}/{name}", value)
                event = Event(wall_time=time.time(), step=entry["step"], summary=summary)
                records.append(_record(event))
    return records


def _record(event: "Event") -> bytes:
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + tfrecord_crc(length).tobytes() + data + tfrecord_crc(data).tobytes()
