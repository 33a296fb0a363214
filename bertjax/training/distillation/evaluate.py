"""Held-out evaluation of distillation: the terms over the held-out rows, without dropout."""

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
from bertjax.training.distillation.objective import DistilledPretraining, DistilledSums
from bertjax.training.evaluate import Evaluator, HeldoutBatches, mean_metrics
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
    # Cached: the program is compiled by the first evaluation alone.
    announce = cache(announce_compilation)

    def evaluator(params: Params) -> dict[str, float]:
        announce("the held-out evaluation")

        def sums_of(batch: Batch, _: np.int32) -> DistilledSums:
            sums: DistilledSums = step(params, given, batch)
            return sums

        metrics = mean_metrics(objective, sums_of, heldout, config, mesh)
        if "mlm_loss" not in metrics:
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
