"""An exported folder, opened by its own runtime in a process of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from etils import epath

from bertjax.compression.runtimes import wire
from bertjax.errors import UserError, check, mismatch, one_line, require_package

Runtime = Literal["onnx", "transformers", "pipeline", "stablehlo", "static"]

_PACKAGES: Mapping[str, Mapping[str, str]] = {
    "onnx": {"onnxruntime": "onnx"},
    "transformers": {"torch": "transformers", "transformers": "transformers"},
    "pipeline": {"torch": "transformers", "transformers": "transformers"},
    "stablehlo": {},
    "static": {},
}
"""The packages that a runtime needs, with the extra of bertjax that each is in."""


def available_threads() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


class RuntimeModel:
    """A folder that is open in the process of its runtime; made by `opened`."""

    def __init__(self, folder: epath.Path, process: "subprocess.Popen[bytes]", errors: IO[bytes]):
        """Wait until the runtime has opened the folder; raises `UserError` if it refuses it."""
        self.folder = folder
        self._process, self._errors = process, errors
        header = self._received().header
        self.version: str = header["version"]
        """The runtime with its version, such as `onnxruntime 1.32.0`."""
        self.outputs: tuple[str, ...] = tuple(header["outputs"])
        """Names of the outputs that it can compute."""
        self.stored: Mapping[str, tuple[str, int]] = header["stored"]
        """Type and bytes of each parameter in memory; empty if the runtime does not tell."""

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return `outputs` for int32 [b, l] arrays `input_ids`, `input_mask` and `segment_ids`."""
        self._check_outputs(outputs)
        return self._asked({"calls": 0, "outputs": list(outputs)}, inputs)

    def seconds(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], calls: int
    ) -> np.ndarray:
        """Return the seconds that each of `calls` calls took inside the process, [calls]."""
        self._check_outputs(outputs)
        return self._asked({"calls": calls, "outputs": list(outputs)}, inputs)["seconds"]

    def _check_outputs(self, outputs: Sequence[str]) -> None:
        for name in outputs:
            check(
                name in self.outputs,
                where=f"{self.folder}: outputs",
                found=", ".join(self.outputs),
                expected=f"{name} among them",
            )

    def _asked(
        self, header: Mapping[str, Any], inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        try:
            wire.send(cast(IO[bytes], self._process.stdin), header, inputs)
        except BrokenPipeError as error:
            raise self._ended() from error
        return self._received().arrays

    def _received(self) -> wire.Message:
        try:
            answer = wire.receive(cast(IO[bytes], self._process.stdout))
        except EOFError as error:
            raise self._ended() from error
        if "error" in answer.header:
            raise mismatch(
                where=str(self.folder),
                found=f"a model that its runtime refuses ({answer.header['error']})",
                expected="one that it computes",
            )
        return answer

    def _ended(self) -> UserError:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f", {one_line(lines[-1], 200)}" if lines else ""
        return UserError(f"{self.folder}: the process of its runtime ended (status {status}{last})")


@contextmanager
def opened(folder: epath.PathLike, runtime: Runtime, *, threads: int = 0) -> Iterator[RuntimeModel]:
    """Open an exported folder in a process of its runtime, which ends after the block.

    It computes on the CPU with `threads` threads (0: as many as this process may use CPUs). Raises
    `UserError` if the runtime is not installed, and if it refuses the folder.
    """
    for package, extra in _PACKAGES[runtime].items():
        require_package(package, extra=extra)
    path = epath.Path(folder)
    threads = threads or available_threads()
    words = [sys.executable, "-m", "bertjax.compression.runtimes.worker"]
    words += [runtime, str(path), str(threads), str(os.getpid())]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(threads),
        )
        try:
            yield RuntimeModel(path, process, errors)
        finally:
            # A process that computes is not waited for: nobody reads its answer.
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                _close(cast(IO[bytes], pipe))


def _close(pipe: IO[bytes]) -> None:
    # A message may be left that was not sent because the process has ended.
    with suppress(BrokenPipeError):
        pipe.close()


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a runtime's process."""
    # The same bertjax as here, whatever the folder of this process is.
    source = str(Path(__file__).parents[3])
    paths = [source, os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # What a model folder lacks is an error, not a download.
        "HF_HUB_OFFLINE": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        # The number of threads of XLA, which asks for the number of CPUs by this name.
        "NPROC": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }
