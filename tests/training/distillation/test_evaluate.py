"""Held-out figures of distillation: means over all rows, of whole text where no word is masked."""

import jax
import numpy as np
import pytest

from bertjax.model.functional import TEACHER
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.mesh import make_mesh
from bertjax.training.distillation.evaluate import distilled_evaluator
from bertjax.training.distillation.objective import unmasked
from tests.factory import small_config
from tests.training.distillation.models import distilled, uneven_batch, with_teacher


@pytest.mark.parametrize(
    "settings",
    [{"cosine_weight": 2.0}, pytest.param({"objective_weight": 1.0}, marks=pytest.mark.slow)],
)
def test_figures_are_the_means_over_the_rows_of_all_batches(settings):
    objective = distilled(**settings)
    params = with_teacher(objective)
    own = {group: leaves for group, leaves in params.items() if group != TEACHER}
    config = small_config()
    batches = [uneven_batch(seed=1), uneven_batch(seed=2)]
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    heldout = {"one": lambda rows, most: batches[:1], "two": lambda rows, most: batches[1:]}
    given = {TEACHER: params[TEACHER]}
    figures = distilled_evaluator(objective, given, heldout, config, mesh)(own)
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    seen = joined if objective.reads_masks else unmasked(joined)
    whole = jax.jit(lambda p, b: objective.sums(p, b, key=None, layout=ANYWHERE))(params, seen)
    for name, value in objective.means(whole).items():
        assert figures[name] == pytest.approx(float(value), rel=1e-5)
    assert ("mlm_perplexity" in figures) == objective.reads_masks
    if not objective.reads_masks:
        assert figures["score"] == -figures["loss"]
