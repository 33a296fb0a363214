"""Models in their folders: a run's parameters as the verbs want them, and a run made of parameters
alone.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from etils import epath
from jax.typing import DTypeLike

from bertjax.config import Config, MeshConfig, to_dict
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, disk_errors
from bertjax.model import functional
from bertjax.model.functional import TASKS
from bertjax.model.linear_head import init_linear, linear_axes
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.training import checkpoint, run_config


class TrainedModel(NamedTuple):
    """A checkpoint's parameters, laid out on `config.mesh`, with where they came from."""

    config: Config
    run_dir: epath.Path
    checkpoint: epath.Path
    params: Any


def for_inference(config: Config) -> Config:
    """`config` for using a model: with the default mesh, since there may have been more devices
    where it was trained, and its layers in a loop, which compiles soonest.
    """
    return dataclasses.replace(
        config, mesh=MeshConfig(), model=dataclasses.replace(config.model, scan_unroll=1)
    )


def load_model(
    path: epath.PathLike,
    adjust: Callable[[Config], Config] = for_inference,
    *,
    dtype: DTypeLike | None = None,
    heads: Mapping[str, int] | None = None,
) -> TrainedModel:
    """A run's newest checkpoint, or one checkpoint; `adjust` may change its configuration first.

    Of the heads of tasks that it was fine-tuned on those in `heads` alone, linear ones of so many
    outputs, at `params["tasks"]` by the task's name. The parameters are of `dtype` (such as
    bfloat16), cast as they are read; by default as they were trained. Raises `UserError` where
    there is none, or where its tensors are not those of its configuration.
    """
    run_dir, folder = checkpoint.find_checkpoint(path)
    config = adjust(checkpoint.read_checkpoint_config(folder))
    shapes, axes = functional.shapes(config.model), functional.logical_axes(config.model)
    if heads:
        key = jax.random.key(0)
        new = jax.eval_shape(
            lambda: {name: init_linear(config.model, key, size) for name, size in heads.items()}
        )
        shapes, axes = (
            {**shapes, TASKS: new},
            {**axes, TASKS: {name: linear_axes() for name in heads}},
        )
    target = rules.with_shardings(shapes, rules.tree_shardings(make_mesh(config.mesh), axes), dtype)
    params = checkpoint.restore_params(folder, target, [TASKS], cast=dtype is not None)
    return TrainedModel(config, run_dir, folder, params)


def save_model(
    run_dir: epath.PathLike,
    config: Config,
    params: Any,
    tokenizer: Tokenizer | None,
    facts: Mapping[str, Any],
) -> epath.Path:
    """Write `params` as step 0 of a new run, and return the checkpoint's folder.

    Every verb reads such a run. There is no optimizer's state in it: training starts from it by
    `init_from`. `facts` go to the checkpoint's `meta`. Raises `UserError` where `run_dir` has files
    in it.
    """
    run_dir = epath.Path(run_dir)
    meta = {
        "config": to_dict(config),
        "tokenizer_fingerprint": tokenizer.fingerprint if tokenizer else None,
        **facts,
        "versions": checkpoint.versions(),
    }
    with new_folder(run_dir):
        run_config.write_run_config(run_dir, config)
        if tokenizer is not None:
            tokenizer.save(run_dir / "tokenizer", config.model.max_length)
        checkpoints = checkpoint.Checkpoints(run_dir, keep=1)
        checkpoints.save(0, {"step": 0, "params": params}, meta, None)
        checkpoints.close()
    return checkpoints.folder / "0"


def check_new(folder: epath.Path) -> None:
    """Raise `UserError` where `folder` has files in it, or cannot be read."""
    with disk_errors(folder):
        new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    check(new, where=str(folder), found="files there", expected="a folder that is new or empty")


@contextmanager
def new_folder(folder: epath.Path) -> Iterator[None]:
    """Remove `folder` if the block fails, so that it can be tried again; `check_new` before it."""
    check_new(folder)
    try:
        yield
    except BaseException:
        if folder.is_dir():
            folder.rmtree()
        raise
