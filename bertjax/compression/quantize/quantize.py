"""The function behind `bertjax quantize`: a program of int8, measured and held to a bound."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etils import epath

from bertjax.compression.card import (
    CARD,
    UNKNOWN_LICENSE,
    check_license,
    license_of,
)
from bertjax.compression.gate import parse_bound
from bertjax.compression.measuring import Measuring
from bertjax.compression.quantize.job import Job
from bertjax.compression.quantize.options import Format, QuantizeOptions
from bertjax.compression.source_model import as_run, version_of_source
from bertjax.errors import check, require_package
from bertjax.given_files import place_of
from bertjax.interop.export_model import LAST
from bertjax.progress import Progress, silent
from bertjax.storage import exact_version_of, is_local, read_json
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import folder_written_whole

PACKAGES: Mapping[Format, Mapping[str, str]] = {
    "onnx": {"onnx": "onnx", "onnxruntime": "onnx"},
    "stablehlo": {"qwix": "quantize"},
}
"""The packages that make each format, with the extra of bertjax that each is in."""


@dataclass(frozen=True)
class Quantized:
    """A quantized model in its folder."""

    folder: epath.Path
    card: Mapping[str, Any]
    """The content of `card.json`."""


def quantize(
    source: epath.PathLike,
    folder: epath.PathLike,
    options: QuantizeOptions | None = None,
    measuring: Measuring | None = None,
    *,
    drop: Sequence[str] = (),
    license: str = "",
    progress: Progress = silent,
) -> Quantized:
    """Write a run, a checkpoint or a folder of `transformers` as a program of int8.

    The new folder has the files of `options.format`, the tokenizer, `task.json` of a fine-tuned
    model, and the card. The program was loaded in its runtime, the types of its tensors were
    checked, and its figure was measured, beside that of the float32 program. `drop` is passed to
    `import_model`.

    Raises `BoundError` if the figure loses more than `measuring.max_loss`, and `UserError` if the
    model cannot be exported or measured, or if the folder has other files.

    >>> import bertjax
    >>> from bertjax.compression.measuring import Measuring
    >>> measuring = Measuring(max_loss="50%", seconds=0)
    >>> quantized = bertjax.quantize("runs/finetuned", "served/int8", measuring=measuring)
    >>> quantized.card["after"]["name"]
    'int8 per channel'
    """
    options, measuring = options or QuantizeOptions(), measuring or Measuring()
    bound = parse_bound(measuring.max_loss)
    if license:
        check_license(license)
    for package, extra in PACKAGES[options.format].items():
        require_package(package, extra=extra)
    path, origin = place_of(folder), place_of(source)
    check(is_local(path), where="--to", found=str(path), expected="a folder on a disk")
    request = request_digest(
        "quantize",
        source=version_of_source(origin),
        options=asdict(options),
        measuring=asdict(measuring),
        data=[_version(place) for place in (measuring.sts, options.calibration)],
        drop=list(drop),
        license=license,
    )
    with folder_written_whole(path, "quantize", request, last=LAST[options.format]) as part:
        if part is not None:
            with as_run(origin, Path(part) / "imported", drop) as run:
                job = Job(str(origin), run, options, measuring, bound, progress)
                named = license or (license_of(origin) if origin.is_dir() else UNKNOWN_LICENSE)
                # By its name alone: where it lies on this machine is nobody else's business.
                job.write(Path(part), path.name, named)
    return Quantized(path, read_json(path / CARD))


def _version(place: str) -> str:
    """Return what tells whether data are still the same: the version of a file or a manifest."""
    if not place:
        return ""
    path = place_of(place)
    file = path / "manifest.json" if path.is_dir() else path
    return exact_version_of(file) if file.is_file() else ""
