"""Held-out evaluation of pretraining: sums over all rows, divided once at the end."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.model.functional import Params
from bertjax.parallel import rules
from bertjax.parallel.announce import announce_compilation
from bertjax.parallel.hosts import global_batch, process_row_indices
from bertjax.training.objective import Objective
from bertjax.training.pretraining import pretraining
from bertjax.training.pretraining_loss import Sums, means
from bertjax.training.step import jit_eval_step
from bertjax.types import Batch

Evaluator = Callable[[Params], dict[str, float]]
"""Function from parameters to held-out metrics."""
HeldoutBatches = Mapping[str, Callable[[np.ndarray, int], Iterable[Batch]]]
"""Functions that return the held-out batches, by the name of the corpus.

The arguments are the indices of this process's rows and the number of batches (0 means all). The
last batch is filled up with rows of zeros.
"""

# Above this exp() overflows a float64 (its limit is near 709).
MAX_EXPONENT = 700.0


def heldout_evaluator(
    heldout: HeldoutBatches, config: Config, mesh: Mesh, unigram_entropy: float | None = None
) -> Evaluator:
    """Return the function from parameters to the metrics of `evaluate`.

    If `unigram_entropy` is given, it is added to the metrics. It is the entropy of the held-out
    tokens in nats: the loss of a model that knows only the frequencies of the tokens.
    """
    eval_step = jit_eval_step(config, mesh)
    max_batches = config.train.eval_max_batches
    # Cached: the program is compiled by the first evaluation alone.
    announce = cache(announce_compilation)

    def evaluator(params: Params) -> dict[str, float]:
        announce("the held-out evaluation")
        metrics = evaluate(config, mesh, eval_step, params, heldout, max_batches=max_batches)
        if unigram_entropy is not None:
            metrics["unigram_entropy"] = unigram_entropy
        return metrics

    return evaluator


def detection_evaluator(
    heldout: HeldoutBatches, config: Config, mesh: Mesh, unigram_entropy: float | None = None
) -> Evaluator:
    """Return the function from the parameters of a generator and a model to held-out metrics.

    They are the means of replaced-token detection over all rows (`ReplacedTokens.means`), and
    `mlm_perplexity`. Samples are drawn by the number of the batch, so they change only as the
    generator does. The best checkpoint has the highest `score`, the negative loss that training
    minimizes. `unigram_entropy` is that of `heldout_evaluator`.
    """
    objective = pretraining(config)
    step = _jitted_detection(objective, mesh)
    # Cached: the program is compiled by the first evaluation alone.
    announce = cache(announce_compilation)

    def evaluator(params: Params) -> dict[str, float]:
        announce("the held-out evaluation")
        metrics = mean_metrics(objective, partial(step, params), heldout, config, mesh)
        metrics["score"] = -metrics["loss"]
        if unigram_entropy is not None:
            metrics["unigram_entropy"] = unigram_entropy
        return metrics

    return evaluator


def mean_metrics(
    objective: Objective,
    sums_of: Callable[[Batch, np.int32], Any],
    heldout: HeldoutBatches,
    config: Config,
    mesh: Mesh,
) -> dict[str, float]:
    """Return the objective's means over all held-out rows, and `mlm_perplexity` of masked words.

    `sums_of` gives the sums of a batch and its number.
    """
    row_indices = process_row_indices(mesh, config.train.batch_size)
    total: Any = None
    number = 0
    for batches in heldout.values():
        for batch in batches(row_indices, config.train.eval_max_batches):
            rows = global_batch(mesh, batch, config.train.batch_size)
            total = _added(total, jax.device_get(sums_of(rows, np.int32(number))))
            number += 1
    metrics = {name: float(value) for name, value in objective.means(total).items()}
    if "mlm_loss" in metrics:
        metrics["mlm_perplexity"] = math.exp(min(metrics["mlm_loss"], MAX_EXPONENT))
    return metrics


def _jitted_detection(objective: Objective, mesh: Mesh) -> Any:
    layout = rules.MeshLayout(mesh)

    def eval_step(params: Params, batch: Batch, number: Array) -> Any:
        # Held-out rows come masked, so the key is for the samples alone.
        key = jax.random.fold_in(jax.random.key(0), number)
        return objective.sums(params, objective.prepare(batch, key), key=None, layout=layout)

    return jax.jit(
        eval_step,
        in_shardings=(None, rules.batch_sharding(mesh), rules.replicated(mesh)),
        out_shardings=rules.replicated(mesh),
    )


def _added(total: Any, sums: Any) -> Any:
    """Return the sums in float64: a float32 count does not grow by 1 any more from 2**24 on."""
    wide = jax.tree.map(np.float64, sums)
    return wide if total is None else jax.tree.map(np.add, total, wide)


def evaluate(
    config: Config,
    mesh: Mesh,
    eval_step: Callable[[Params, Batch], Sums],
    params: Params,
    heldout: HeldoutBatches,
    *,
    max_batches: int = 0,
) -> dict[str, float]:
    """Return the held-out metrics over each corpus's first `max_batches` batches (0: all).

    The metrics are losses in nats, `mlm_perplexity` = exp(mlm_loss), accuracies, and `instances`,
    the number of rows. Without pairs of sentences there are no metrics of them. If there are
    several corpora, the metrics are over all of them, and `mlm_loss/NAME` and `mlm_accuracy/NAME`
    are added for each. In a run of several processes, all call this with the same arguments, each
    reads its own rows, and all get the same metrics.
    """
    row_indices = process_row_indices(mesh, config.train.batch_size)
    totals = {
        name: _sums(
            eval_step, params, batches(row_indices, max_batches), mesh, config.train.batch_size
        )
        for name, batches in heldout.items()
    }
    # Added, then divided: a mean of the corpora's means would weigh small ones as much as large.
    total = Sums(*np.sum(list(totals.values()), axis=0))
    # A held-out split may have no pairs (`pair_survey.py`), and so no figures of them.
    objective = config.data.sentence_objective if total.nsp_count > 0 else "none"
    metrics = {name: float(value) for name, value in means(total, objective).items()}
    metrics["mlm_perplexity"] = math.exp(min(metrics["mlm_loss"], MAX_EXPONENT))
    metrics["instances"] = int(total.rows)
    if len(totals) == 1:
        return metrics
    for corpus, sums in totals.items():
        corpus_metrics = means(Sums(*sums), objective)
        for name in ("mlm_loss", "mlm_accuracy"):
            metrics[f"{name}/{corpus}"] = float(corpus_metrics[name])
    return metrics


def _sums(
    eval_step: Callable[[Params, Batch], Sums],
    params: Params,
    batches: Iterable[Batch],
    mesh: Mesh,
    batch_size: int,
) -> np.ndarray:
    """Return the sums of all rows of `batches`, in the order of `Sums`' fields.

    They are float64, because a float32 count does not grow by 1 any more from 2**24 on.
    """
    total = np.zeros(len(Sums._fields))
    for batch in batches:
        sums = eval_step(params, global_batch(mesh, batch, batch_size))
        total += np.asarray(jax.device_get(sums), np.float64)
    return total
