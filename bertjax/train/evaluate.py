"""Held-out evaluation: sums over every row, divided once."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.parallel.hosts import global_batch
from bertjax.train.objectives import Sums


def evaluate(
    eval_step: Callable[..., Sums], params: Any, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh, batch_size: int
) -> dict[str, float]:
    """Losses in nats, `mlm_perplexity` = exp(mlm_loss), accuracies, and `instances`, of all rows of `batches`.

    Rows of `cls_weights` 0 fill up the last batch and count nowhere.
    """
    total = np.zeros(len(Sums._fields))
    for batch in batches:
        total += np.asarray(jax.device_get(eval_step(params, global_batch(mesh, batch, batch_size))), np.float64)
    sums = Sums(*total)
    mlm_loss, nsp_loss = sums.mlm_loss / max(sums.mlm_count, 1), sums.nsp_loss / max(sums.nsp_count, 1)
    return {
        "loss": mlm_loss + nsp_loss,
        "mlm_loss": mlm_loss,
        "mlm_perplexity": math.exp(min(mlm_loss, 700.0)),
        "mlm_accuracy": sums.mlm_correct / max(sums.mlm_count, 1),
        "nsp_loss": nsp_loss,
        "nsp_accuracy": sums.nsp_correct / max(sums.nsp_count, 1),
        "instances": int(sums.nsp_count),
    }
