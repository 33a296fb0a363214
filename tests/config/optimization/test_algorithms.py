import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, FinetuneConfig, ModelConfig, OptimizerConfig, TrainConfig
from bertjax.config.optimization.algorithms import HYPERPARAMETERS, AlgorithmConfig
from bertjax.errors import UserError

NAMES = [field.name for field in dataclasses.fields(AlgorithmConfig) if field.name != "algorithm"]
FREE = {"algorithm": "schedule_free", "schedule": "constant"}


@given(st.sampled_from(sorted(HYPERPARAMETERS)), st.sampled_from(NAMES))
def test_a_hyperparameter_is_taken_by_its_algorithms_and_refused_by_the_others(algorithm, name):
    default = getattr(OptimizerConfig(), name)
    value = 3 if isinstance(default, int) else 0.5
    if name in HYPERPARAMETERS[algorithm]:
        config = OptimizerConfig(algorithm=algorithm, **{name: value})
        assert getattr(config, name) == value
        return
    with pytest.raises(UserError) as error:
        OptimizerConfig(algorithm=algorithm, **{name: value})
    assert str(error.value).startswith(f"optimizer.{name}: found {value}, expected the default")
    assert f"algorithm {algorithm} has {HYPERPARAMETERS[algorithm][0]}" in str(error.value)
    assert "\n" not in str(error.value)


def test_every_hyperparameter_belongs_to_an_algorithm():
    assert set(NAMES) == {name for names in HYPERPARAMETERS.values() for name in names}


@pytest.mark.parametrize("make,message", [
    (lambda: OptimizerConfig(algorithm="adafactor"), "optimizer.algorithm: found 'adafactor'"),
    (lambda: OptimizerConfig(algorithm="muon", muon_momentum=1.0), "optimizer.muon_momentum: found 1.0, expected a number from 0 to below 1"),
    (lambda: OptimizerConfig(algorithm="muon", muon_rms=0.0), "optimizer.muon_rms: found 0.0, expected a number above 0"),
    (lambda: OptimizerConfig(algorithm="lion", lion_b2=1.5), "optimizer.lion_b2: found 1.5"),
    (lambda: OptimizerConfig(algorithm="sophia", sophia_interval=0), "optimizer.sophia_interval: found 0"),
    (lambda: OptimizerConfig(algorithm="sophia", sophia_b1=-0.1), "optimizer.sophia_b1: found -0.1"),
    (lambda: OptimizerConfig(algorithm="ademamix", ademamix_b3=1.0), "optimizer.ademamix_b3: found 1.0"),
    (lambda: OptimizerConfig(algorithm="ademamix", ademamix_warmup_updates=-1), "optimizer.ademamix_warmup_updates: found -1"),
    (lambda: OptimizerConfig(algorithm="ademamix", ademamix_warmup_updates=9, b1=0.0), "optimizer.b1: found 0.0, expected above 0 and below 1, from where ademamix_b3 rises"),
    (lambda: OptimizerConfig(**FREE, b1=1.0), "optimizer.b1: found 1.0"),
    (lambda: Config(optimizer=OptimizerConfig(algorithm="schedule_free")), "optimizer.schedule: found linear, expected constant, for optimizer.algorithm schedule_free"),
    (lambda: Config(optimizer=OptimizerConfig(**FREE, mixout=0.1)), "optimizer.mixout: found 0.1, expected 0, for optimizer.algorithm schedule_free"),
    (lambda: Config(optimizer=OptimizerConfig(**FREE), finetune=FinetuneConfig(tasks=("a:classification=b",), sparsity=0.5)), "optimizer.algorithm: found schedule_free, expected another one, beside finetune.sparsity"),
    (lambda: Config(optimizer=OptimizerConfig(algorithm="sophia"), model=ModelConfig(kernels="pallas", dropout_bits="hash")), "model.kernels: found pallas, expected xla, for optimizer.algorithm sophia"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused_in_one_line(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("optimizer,model,change,message", [
    ({"algorithm": "adamw"}, {}, "optimizer.algorithm=lion", "phase 2: phases: found 'optimizer.algorithm', expected from, steps, tokens"),
    (FREE, {}, "optimizer.schedule=linear", "phase 2: optimizer.schedule: found linear, expected constant"),
    ({"algorithm": "sophia"}, {"dropout_bits": "hash"}, "model.kernels=pallas", "phase 2: model.kernels: found pallas, expected xla"),
])  # fmt: skip
def test_a_phase_keeps_the_algorithm_and_what_it_needs(optimizer, model, change, message):
    with pytest.raises(UserError) as error:
        Config(
            optimizer=OptimizerConfig(warmup_steps=0, **optimizer),
            model=ModelConfig(**model),
            train=TrainConfig(steps=6),
            phases=("steps=3", f"steps=3 {change}"),
        )
    assert message in str(error.value)
