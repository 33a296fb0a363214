"""A trained model from its folder, as the verbs that use one want it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from etils import epath

from bertjax.config import Config
from bertjax.model import functional
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.train import checkpoint


class LoadedRun(NamedTuple):
    """A checkpoint's parameters, laid out on `config.mesh`, with where they came from."""

    config: Config
    run_dir: epath.Path
    checkpoint: epath.Path
    params: Any


def load_run(path: str, adjust: Callable[[Config], Config] = lambda config: config) -> LoadedRun:
    """Load a run's newest checkpoint, or one checkpoint; `adjust` may change its configuration first."""
    run_dir, folder = checkpoint.find(path)
    config = adjust(checkpoint.read_config(folder))
    layouts = rules.tree_shardings(make_mesh(config.mesh), functional.logical_axes(config.model))
    shapes = jax.eval_shape(lambda: functional.init(config.model, jax.random.key(0)))
    target = jax.tree.map(lambda s, layout: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=layout), shapes, layouts)
    return LoadedRun(config, run_dir, folder, checkpoint.restore_params(folder, target))
