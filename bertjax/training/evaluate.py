"""Held-out evaluation: sums over every row, divided once."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.parallel.hosts import global_batch, process_rows
from bertjax.training.pretraining_loss import Sums, means
from bertjax.training.step import jit_eval_step

Heldout = Mapping[str, Callable[[np.ndarray, int], Iterable[dict[str, np.ndarray]]]]
"""By corpus, given this process's rows and a number of batches (0: all): the held-out rows, the
last batch filled up with rows of zeros.
"""


def heldout_examiner(
    heldout: Heldout, config: Config, mesh: Mesh, unigram_entropy: float | None = None
) -> Callable[[Any], dict[str, float]]:
    """What finds the held-out figures of parameters: `evaluate`, with the held-out tokens' entropy
    where it is known.

    That is the loss, in nats, of a model that knows frequencies only.
    """
    eval_step = jit_eval_step(config, mesh)
    extra = {} if unigram_entropy is None else {"unigram_entropy": unigram_entropy}
    most = config.train.eval_max_batches
    return lambda params: (
        evaluate(config, mesh, eval_step, params, heldout, max_batches=most) | extra
    )


def evaluate(
    config: Config,
    mesh: Mesh,
    eval_step: Callable[..., Sums],
    params: Any,
    heldout: Heldout,
    *,
    max_batches: int = 0,
) -> dict[str, float]:
    """Held-out figures of each corpus's first `max_batches` batches (0: all).

    Of several processes each reads its rows, all call this alike, and all get the same figures.
    Losses in nats, `mlm_perplexity` = exp(mlm_loss), accuracies, and `instances`. Of several
    corpora: of all together, and each one's `mlm_loss/NAME` and `mlm_accuracy/NAME`.
    """
    rows = process_rows(mesh, config.train.batch_size)
    totals = {
        name: _sums(eval_step, params, batches(rows, max_batches), mesh, config.train.batch_size)
        for name, batches in heldout.items()
    }
    total, objective = np.sum(list(totals.values()), axis=0), config.data.sentence_objective
    found = {name: float(value) for name, value in means(Sums(*total), objective).items()}
    found["mlm_perplexity"] = math.exp(min(found["mlm_loss"], 700.0))
    found["instances"] = int(total[Sums._fields.index("rows")])
    if len(totals) > 1:
        for corpus, sums in totals.items():
            own = means(Sums(*sums), objective)
            found |= {f"{name}/{corpus}": float(own[name]) for name in ("mlm_loss", "mlm_accuracy")}
    return found


def _sums(
    eval_step: Callable[..., Sums],
    params: Any,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
    batch_size: int,
) -> np.ndarray:
    """The sums of all rows of `batches`, float64, in the order of `Sums`' fields."""
    total = np.zeros(len(Sums._fields))
    for batch in batches:
        total += np.asarray(
            jax.device_get(eval_step(params, global_batch(mesh, batch, batch_size))), np.float64
        )
    return total
