"""Held-out evaluation of distillation: the terms over the held-out rows, without dropout."""

import math
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.model.functional import Params
from bertjax.model.layout import Layout
from bertjax.parallel import rules
from bertjax.parallel.announce import announce_compilation
from bertjax.parallel.hosts import global_batch, process_row_indices
from bertjax.training.distillation.objective import DistilledPretraining, DistilledSums
from bertjax.training.evaluate import MAX_EXPONENT, Evaluator, HeldoutBatches
from bertjax.types import Batch


def distilled_evaluator(
    objective: DistilledPretraining,
    given: Params,
    heldout: HeldoutBatches,
    config: Config,
    mesh: Mesh,
) -> Evaluator:
    """Return the function from parameters to the means of the terms over the held-out rows.

    With masked words the best checkpoint has their lowest loss, as in pretraining; else it has the
    highest `score`, the negative sum of the terms.
    """
    step = _jitted(objective, mesh)
    row_indices = process_row_indices(mesh, config.train.batch_size)
    # Cached: the program is compiled by the first evaluation alone.
    announce = cache(announce_compilation)

    def evaluator(params: Params) -> dict[str, float]:
        announce("the held-out evaluation")
        total: Any = None
        for batches in heldout.values():
            for batch in batches(row_indices, config.train.eval_max_batches):
                sums = step(params, given, global_batch(mesh, batch, config.train.batch_size))
                total = _added(total, jax.device_get(sums))
        metrics = {name: float(value) for name, value in objective.means(total).items()}
        if "mlm_loss" in metrics:
            metrics["mlm_perplexity"] = math.exp(min(metrics["mlm_loss"], MAX_EXPONENT))
        else:
            metrics["score"] = -metrics["loss"]
        return metrics

    return evaluator


def _jitted(objective: DistilledPretraining, mesh: Mesh) -> Any:
    layout: Layout = rules.MeshLayout(mesh)

    def eval_step(params: Params, given: Params, batch: Batch) -> DistilledSums:
        # Held-out rows come masked, so that no key is needed.
        batch = objective.prepare(batch, jax.random.key(0))
        return objective.sums({**params, **given}, batch, key=None, layout=layout)

    shardings = rules.tree_shardings(mesh, objective.logical_axes())
    return jax.jit(
        eval_step,
        in_shardings=(shardings, None, rules.batch_sharding(mesh)),
        out_shardings=rules.replicated(mesh),
    )


def _added(total: Any, sums: Any) -> Any:
    """Return the sums in float64: a float32 count does not grow by 1 any more from 2**24 on."""
    wide = jax.tree.map(np.float64, sums)
    return wide if total is None else jax.tree.map(np.add, total, wide)
