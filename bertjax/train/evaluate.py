"""Held-out evaluation: sums over every row, divided once."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.parallel.hosts import global_batch
from bertjax.train.objectives import Sums, means


def evaluate(
    eval_step: Callable[..., Sums], params: Any, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh, batch_size: int
) -> dict[str, float]:
    """Losses in nats, `mlm_perplexity` = exp(mlm_loss), accuracies, and `instances`, of all rows of `batches`.

    Rows of `cls_weights` 0 fill up the last batch and count nowhere.
    """
    total = np.zeros(len(Sums._fields))
    for batch in batches:
        total += np.asarray(jax.device_get(eval_step(params, global_batch(mesh, batch, batch_size))), np.float64)
    found = {name: float(value) for name, value in means(Sums(*total)).items()}
    perplexity = math.exp(min(found["mlm_loss"], 700.0))
    return found | {"mlm_perplexity": perplexity, "instances": int(total[Sums._fields.index("nsp_count")])}
