"""The model that a compression starts from: a run, or a folder of another program."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from bertjax.errors import check
from bertjax.interop.import_model import import_model, is_external
from bertjax.storage import exact_version_of
from bertjax.training import checkpoint


@contextmanager
def as_run(origin: epath.Path, scratch: Path, drop: Sequence[str] = ()) -> Iterator[epath.Path]:
    """Yield a run with the model: `origin` itself, or one that it is imported to and that goes."""
    if not is_external(origin):
        check(not drop, where="--drop", found=str(origin), expected="a folder of transformers")
        yield origin
        return
    import_model(origin, scratch, drop=drop)
    try:
        yield epath.Path(scratch)
    finally:
        shutil.rmtree(scratch)


def version_of_source(origin: epath.Path) -> Any:
    """Return what tells whether the source is still the same."""
    if not is_external(origin):
        return checkpoint.version_of_checkpoint(checkpoint.find_checkpoint(origin)[1])
    folder = origin if origin.is_dir() else origin.parent
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return [str(origin), *(f"{file.name} {exact_version_of(file)}" for file in files)]
