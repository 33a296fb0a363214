"""Held-out evaluation: sums over every row, divided once."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.parallel.hosts import global_batch
from bertjax.train.objectives import Sums, means


def evaluate(
    eval_step: Callable[..., Sums],
    params: Any,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
    batch_size: int,
) -> np.ndarray:
    """The sums of all rows of `batches`, float64, in the order of `Sums`' fields; they add up over corpora."""
    total = np.zeros(len(Sums._fields))
    for batch in batches:
        total += np.asarray(jax.device_get(eval_step(params, global_batch(mesh, batch, batch_size))), np.float64)
    return total


def describe(totals: Mapping[str, np.ndarray], objective: str) -> dict[str, float]:
    """Losses in nats, `mlm_perplexity` = exp(mlm_loss), accuracies, and `instances`, from each corpus's sums.

    Of several corpora: of all together, and each one's `mlm_loss/NAME` and `mlm_accuracy/NAME`.
    """
    total = np.sum(list(totals.values()), axis=0)
    found = {name: float(value) for name, value in means(Sums(*total), objective).items()}
    found["mlm_perplexity"] = math.exp(min(found["mlm_loss"], 700.0))
    found["instances"] = int(total[Sums._fields.index("rows")])
    if len(totals) > 1:
        for corpus, sums in totals.items():
            own = means(Sums(*sums), objective)
            found |= {f"{name}/{corpus}": float(own[name]) for name in ("mlm_loss", "mlm_accuracy")}
    return found
