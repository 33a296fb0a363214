"""The compiled step does no more work than it did: counted, since a time would be the machine's.

`BERTJAX_RECORD=1 pytest tests/test_counted_work.py` writes what is found as what is expected.
"""

import json
import os
import platform
import re
from pathlib import Path

import jax
import pytest

from bertjax.config import Config, DataConfig, MeshConfig, ModelConfig, TrainConfig
from bertjax.estimate.abstract_batch import abstract_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.training import step
from bertjax.training.pretraining import pretraining
from tests.tpu import uncached
from tests.xla import WITH_FUSION_EMITTERS

RECORD = Path(__file__).with_name("counted_work.json")
TOLERANCE = {"flops": 0.01, "bytes accessed": 0.05, "fusions": 0.05, "temporary bytes": 0.05}
HERE = f"jax {'.'.join(jax.__version__.split('.')[:2])}, {platform.machine()}"


def config_of(**model):
    return Config(
        model=ModelConfig(
            vocab_size=2048,
            hidden_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=1024,
            dropout_bits="hash",
            **model,
        ),
        data=DataConfig(max_seq_length=128, max_predictions_per_seq=20),
        train=TrainConfig(batch_size=8),
        mesh=MeshConfig(data=1),
    )


CASES = {
    "cpu": ("cpu", config_of(scan_unroll=2)),
    "cpu, loop": ("cpu", config_of()),
    "cpu, windows": (
        "cpu",
        config_of(scan_unroll=2, local_attention=32, global_attn_every_n_layers=0),
    ),
    "v5e": ("v5e:2x2", config_of(dtype="bfloat16", kernels="pallas", remat="heads")),
    "v5e, dropout of probabilities off": (
        "v5e:2x2",
        config_of(
            dtype="bfloat16", kernels="pallas", remat="heads", attention_probs_dropout_prob=0.0
        ),
    ),
    "v5e, plain": ("v5e:2x2", config_of(dtype="bfloat16")),
}


def counted(where, config):
    if where == "cpu":
        device = jax.devices()[0]
    else:
        pytest.importorskip("libtpu")
        from bertjax.estimate.hardware.slices import open_slice

        device = open_slice(where).devices[0]
    mesh = make_mesh(config.mesh, [device])
    arguments = step.abstract_state(config, mesh), abstract_batch(config, mesh)
    options = WITH_FUSION_EMITTERS if where == "cpu" else None
    with uncached():
        program = step.lower_train_step(config, mesh, pretraining(config), *arguments).compile(
            options
        )
    cost = program.cost_analysis()
    return {
        "flops": cost["flops"],
        "bytes accessed": cost["bytes accessed"],
        "fusions": len(re.findall(r" = [^=]* fusion\(", program.as_text())),
        "temporary bytes": program.memory_analysis().temp_size_in_bytes,
    }


SLOW = ("v5e, dropout of probabilities off", "v5e, plain")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_the_step_has_the_flops_traffic_fusions_and_memory_that_it_had(name):
    found = counted(*CASES[name])
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if os.environ.get("BERTJAX_RECORD"):
        record.setdefault(HERE, {})[name] = found
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    if HERE not in record:
        pytest.skip(f"nothing recorded with {HERE}")
    for what, expected in record[HERE][name].items():
        assert found[what] <= expected * (1 + TOLERANCE[what]), f"{what}: more work than recorded"
        assert found[what] >= expected * (1 - 2 * TOLERANCE[what]), (
            f"{what}: less work, to be recorded"
        )
