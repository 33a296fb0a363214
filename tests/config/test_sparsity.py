import pytest

from bertjax.config import Config, FinetuneConfig, ModelConfig, OptimizerConfig
from bertjax.config.sparsity import pattern_of
from bertjax.errors import UserError

TASK = {"tasks": ("rte=data",)}


def test_a_pattern_is_read():
    assert pattern_of("2:4") == (2, 4)
    assert Config(finetune=FinetuneConfig(sparsity_pattern="2:4", **TASK)).finetune.makes_sparse
    assert not FinetuneConfig().makes_sparse


@pytest.mark.parametrize("make,message", [
    (lambda: FinetuneConfig(sparsity=1.0), "finetune.sparsity: found 1.0, expected a number from 0 to below 1"),
    (lambda: FinetuneConfig(sparsity=float("nan")), "finetune.sparsity: found nan"),
    (lambda: FinetuneConfig(sparsity_end=1.5), "finetune.sparsity_end: found 1.5"),
    (lambda: FinetuneConfig(sparsity_begin=0.6), "finetune.sparsity_begin: found 0.6, expected at most finetune.sparsity_end (0.5)"),
    (lambda: FinetuneConfig(sparsity_interval=0), "finetune.sparsity_interval: found 0"),
    (lambda: FinetuneConfig(sparsity_pattern="4:2"), "finetune.sparsity_pattern: found '4:2', expected N:M with N below M"),
    (lambda: FinetuneConfig(sparsity_pattern="0:4"), "finetune.sparsity_pattern: found '0:4'"),
    (lambda: FinetuneConfig(sparsity_pattern="2/4"), "finetune.sparsity_pattern: found '2/4'"),
    (lambda: FinetuneConfig(sparsity_pattern="2:4\n"), "finetune.sparsity_pattern: found"),
    (lambda: FinetuneConfig(sparsity_pattern="2:4", sparsity=0.5), "finetune.sparsity: found 0.5, expected 0 beside"),
    (lambda: Config(finetune=FinetuneConfig(sparsity=0.5)), "finetune.sparsity: found 0.5, expected none without finetune.tasks"),
    (lambda: Config(finetune=FinetuneConfig(sparsity_pattern="2:4")), "finetune.sparsity_pattern: found 2:4, expected none without"),
    (lambda: Config(finetune=FinetuneConfig(sparsity_pattern="1:5", **TASK)), "expected N:M with an M that divides model.hidden_size (768)"),
    (lambda: Config(finetune=FinetuneConfig(sparsity_pattern="1:3", **TASK), model=ModelConfig(intermediate_size=3070)),
     "an M that divides model.intermediate_size (3070)"),
    (lambda: Config(finetune=FinetuneConfig(sparsity=0.5, **TASK), optimizer=OptimizerConfig(freeze="encoder")),
     "optimizer.freeze: found encoder, expected none or embeddings, beside finetune.sparsity"),
    (lambda: Config(finetune=FinetuneConfig(sparsity=0.5, **TASK), optimizer=OptimizerConfig(freeze_layers=2)),
     "optimizer.freeze_layers: found 2, expected 0"),
    (lambda: Config(finetune=FinetuneConfig(sparsity=0.5, **TASK), optimizer=OptimizerConfig(mixout=0.1)),
     "optimizer.mixout: found 0.1, expected 0"),
])  # fmt: skip
def test_what_cannot_be_had_is_refused_naming_the_field(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
