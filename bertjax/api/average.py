"""The mean of a run's kept checkpoints, as a run of its own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.errors import check, mismatch
from bertjax.given_files import place_of
from bertjax.progress import Progress, silent
from bertjax.storage import is_local
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import folder_written_whole
from bertjax.training import checkpoint
from bertjax.training.integrity.restoring import EMA_PREFIX, restore_ema, saved_shapes
from bertjax.training.saved_model import (
    TOKENIZER,
    facts_of_source,
    saved_checkpoint,
    saved_tokenizer,
    write_model,
)

AVERAGE_OF = "average_of"
"""Field of `meta` with the run and the steps whose mean a checkpoint is."""
PREFIX = "params/"


class Averaged(NamedTuple):
    """A new run whose parameters are the mean of checkpoints."""

    checkpoint: epath.Path
    steps: tuple[int, ...]
    """Steps of the checkpoints, ascending."""


def average(
    run_dir: epath.PathLike,
    new_run_dir: epath.PathLike,
    *,
    last: int = 0,
    steps: Sequence[int] = (),
    ema: bool = False,
    progress: Progress = silent,
) -> Averaged:
    """Make the new run `new_run_dir`, whose parameters are the mean of checkpoints of a run.

    These are the newest `last` checkpoints that are there, or those at `steps`; all by default. The
    mean is computed in float64 and rounded once. With `ema` the parameters are the moving average
    that a run with `train.ema_decay` keeps: in its newest checkpoint, or in that at the one of
    `steps`. The new run has the configuration and the tokenizer of the newest checkpoint, and no
    optimizer state: it is evaluated, exported and fine-tuned as any other. Decision thresholds of a
    fine-tuned run are not averaged. Raises `UserError`, and writes nothing, for a step without a
    checkpoint, for fewer than two (without `ema`), for checkpoints whose parameters differ in
    shape or that have no moving average, and if the new folder has other files.

    >>> import bertjax
    >>> config = bertjax.load_config("tiny.py").replace(train={"save_every_steps": 1})
    >>> trained = bertjax.train(config, "runs/often")
    >>> bertjax.average("runs/often", "runs/mean", last=2).steps
    (1, 2)
    """
    source, target = place_of(run_dir), place_of(new_run_dir)
    if is_local(source):
        source = source.resolve()  # Orbax takes absolute paths only
    folders = _with_ema(source, last, steps) if ema else _chosen(source, last, steps)
    versions = [checkpoint.version_of_checkpoint(folder) for folder in folders]
    request = request_digest("average", sources=versions, ema=ema)
    with folder_written_whole(target, "average", request, last=checkpoint.FOLDER) as part:
        if part is not None:
            _write(part, source, folders, ema, progress)
    return Averaged(saved_checkpoint(target), tuple(int(folder.name) for folder in folders))


def _chosen(source: epath.Path, last: int, steps: Sequence[int]) -> list[epath.Path]:
    """Return the folders of the checkpoints to average, ascending by step."""
    check(last >= 0, where="last", found=last, expected="a number of checkpoints")
    check(not (last and steps), where="last", found=last, expected="none beside steps")
    check(len(set(steps)) == len(steps), where="steps", found=[*steps], expected="each step once")
    if steps:
        folders = [checkpoint.kept_checkpoint(source, step) for step in sorted(steps)]
    else:
        there = checkpoint.steps_of(source)
        check(
            last <= len(there),
            where=f"{source}/{checkpoint.FOLDER}",
            found=f"{len(there)} checkpoints: {', '.join(map(str, there)) or 'none'}",
            expected=f"{last}; train.keep_checkpoints says how many are kept",
        )
        folders = [checkpoint.kept_checkpoint(source, step) for step in there[-last:]]
    check(
        len(folders) > 1,
        where=str(source),
        found=", ".join(folder.name for folder in folders) or "no checkpoint",
        expected="two checkpoints or more, whose mean is another model",
    )
    return folders


def _with_ema(source: epath.Path, last: int, steps: Sequence[int]) -> list[epath.Path]:
    """Return the folder, alone, of the checkpoint whose average of the weights is taken."""
    check(not last, where="last", found=last, expected="none beside ema")
    check(len(steps) < 2, where="steps", found=[*steps], expected="one at most, beside ema")
    there = checkpoint.steps_of(source)
    # Without checkpoints any step gives the error that says so.
    step = steps[0] if steps else max(there, default=0)
    folder = checkpoint.kept_checkpoint(source, step)
    check(
        any(name.startswith(EMA_PREFIX) for name in saved_shapes(folder)),
        where=str(folder),
        found="no average of the weights",
        expected="one of a run with train.ema_decay",
    )
    return [folder]


def _write(
    part: epath.Path,
    source: epath.Path,
    folders: Sequence[epath.Path],
    ema: bool,
    progress: Progress,
) -> None:
    """Write the run of the mean of the checkpoints into the empty folder `part`."""
    newest = folders[-1]
    config: Config = checkpoint.read_checkpoint_config(newest)
    has_tokenizer = (source / TOKENIZER).exists()
    tokenizer = saved_tokenizer(source, newest) if has_tokenizer else None
    facts = facts_of_source(newest)
    taken = [int(folder.name) for folder in folders]
    facts[AVERAGE_OF] = {"run": str(source), "steps": taken, "ema": ema}
    if ema:
        params = jax.device_get(restore_ema(newest, _target(newest, EMA_PREFIX)))
    else:
        params = mean_of(folders, progress)
    write_model(part, config, params, tokenizer, facts)


def mean_of(folders: Sequence[epath.Path], progress: Progress = silent) -> Any:
    """Return the mean of the parameters of checkpoint folders, as a tree of NumPy arrays.

    Raises `UserError` where one has other tensors or shapes than the last one.
    """
    target = _target(folders[-1], PREFIX)
    total: Any = None
    for number, folder in enumerate(folders, 1):
        # One checkpoint at a time is in memory, beside the sum.
        params = jax.device_get(checkpoint.restore_params(folder, target))
        params = jax.tree.map(np.float64, params)
        total = params if total is None else jax.tree.map(np.add, total, params)
        progress("checkpoints averaged", number, len(folders))
    return jax.tree.map(lambda leaf, x: (x / len(folders)).astype(leaf.dtype), target, total)


def _target(folder: epath.Path, prefix: str) -> Any:
    """Return shapes and types of a checkpoint's arrays below a name, on the host."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    tree: dict[str, Any] = {}
    for name, (shape, dtype) in saved_shapes(folder).items():
        if not name.startswith(prefix):
            continue
        *groups, leaf = name.removeprefix(prefix).split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    if not tree:
        raise mismatch(where=str(folder), found="no parameters", expected="a checkpoint of a run")
    return tree
