import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    from_dict,
    load_config,
    to_dict,
)  # fmt: skip
from bertjax.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(FOLDER.rglob("*.py"))


@given(st.builds(Config, seed=st.integers(0, 2**32 - 1), train=st.builds(TrainConfig, steps=st.integers(10_000, 10**9)),
                 data=st.builds(DataConfig, corpus=st.lists(st.text(), min_size=1, max_size=3).map(tuple))))  # fmt: skip
def test_a_configuration_survives_json(config):
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_shipped_configuration_loads_and_says_how_to_run_it(path):
    config = load_config(str(path))
    assert from_dict(Config, to_dict(config)) == config
    verb = "finetune" if path.parent.name == "finetune" else "train"
    assert f"bertjax {verb} configs/{path.relative_to(FOLDER)}" in path.read_text()


@pytest.mark.parametrize("path", sorted((FOLDER / "fast").glob("*.py")), ids=lambda path: path.name)
def test_a_fast_configuration_differs_from_its_namesake_in_what_it_says_only(path):
    fast, paper = load_config(str(path)), load_config(str(FOLDER / path.name))
    changed = {
        f.name
        for f in dataclasses.fields(fast.model)
        if getattr(fast.model, f.name) != getattr(paper.model, f.name)
    }
    assert changed == {
        "hidden_act",
        "attention_probs_dropout_prob",
        "kernels",
        "dropout_bits",
        "remat",
        "scan_unroll",
    }
    assert dataclasses.replace(fast, model=paper.model) == paper


def test_base_and_large_are_the_papers():
    for name, sizes in {"base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096)}.items():
        first, second = (load_config(f"configs/{name}{part}.py") for part in ("", "_phase2"))
        m = first.model
        assert (
            m.num_hidden_layers,
            m.hidden_size,
            m.num_attention_heads,
            m.intermediate_size,
        ) == sizes
        assert (m.hidden_dropout_prob, m.attention_probs_dropout_prob, m.hidden_act) == (
            0.1,
            0.1,
            "gelu",
        )
        assert (first.data.max_seq_length, second.data.max_seq_length) == (128, 512)
        assert first.train.batch_size == second.train.batch_size == 256
        assert first.train.steps + second.train.steps == 1_000_000
        assert first.model == second.model


@pytest.mark.parametrize("make,message", [
    (lambda: Config(seed=-1), "seed: found -1"),
    (lambda: DataConfig(mlm_probability=0.0), "data.mlm_probability: found 0.0"),
    (lambda: DataConfig(corpus=()), "data.corpus: found no source"),
    (lambda: DataConfig(max_seq_length=16), "data.max_predictions_per_seq: found 20, expected less than"),
    (lambda: ModelConfig(hidden_dropout_prob=1.0), "model.hidden_dropout_prob: found 1.0"),
    (lambda: OptimizerConfig(schedule="multistep"), "optimizer.milestones: found ()"),
    (lambda: OptimizerConfig(schedule="multistep", milestones=(5, 2)), "optimizer.milestones"),
    (lambda: OptimizerConfig(schedule="step"), "optimizer.decay_steps: found 0"),
    (lambda: TrainConfig(batch_size=10, gradient_accumulation_steps=4), "train.batch_size: found 10, expected a multiple"),
    (lambda: MeshConfig(data=0), "mesh.data: found 0"),
    (lambda: MeshConfig(data=-1, fsdp=-1), "mesh: found -1 for data and fsdp"),
    (lambda: Config(train=TrainConfig(steps=10)), "optimizer.warmup_steps: found 10000, expected at most train.steps"),
])  # fmt: skip
def test_values_out_of_range_are_refused_naming_the_field(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)


def test_configurations_of_before_there_were_several_remat_policies_are_read():
    for old, new in ((False, "none"), (True, "full")):
        assert from_dict(ModelConfig, {"remat": old}).remat == new


@given(layers=st.integers(1, 6), window=st.sampled_from([0, 2]), every=st.integers(0, 7))
def test_layers_alternate_where_some_see_the_whole_row_and_some_do_not(layers, window, every):
    model = ModelConfig(
        num_hidden_layers=layers, local_attention=window, global_attn_every_n_layers=every
    )
    assert model.alternates == (len(set(model.attends_everywhere)) > 1)
