"""ONNX programs of models whose layers lost different numbers of heads and units."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from etils import epath
from flax.traverse_util import flatten_dict

import bertjax
from bertjax.cli.main import main
from bertjax.compression.measured_run import RunMeasuring
from bertjax.compression.prune.masks import masked, with_masks
from bertjax.compression.prune.prune import prune_model
from bertjax.compression.prune.reduction import PruneOptions
from bertjax.compression.prune.structure import cut_layers, everything
from bertjax.errors import UserError
from bertjax.interop.programs.onnx.export import export_onnx
from bertjax.interop.programs.serving import served_model
from bertjax.model import functional
from tests.compression.prune.test_structure import masks_of
from tests.compression.small_runs import task_run
from tests.factory import random_batch
from tests.interop.exported_programs import random_params, small_family

FEW = {"batches": 3}


def ragged(config):
    """Other numbers of heads and units in each layer."""
    rng = np.random.default_rng(0)
    parts = everything(config)
    heads, units = [], []
    for layer in range(len(parts.heads)):
        groups = max(config.key_value_heads - layer % 2, 1)
        heads.append(np.sort(rng.permutation(config.key_value_heads)[:groups]))
        units.append(np.sort(rng.permutation(config.intermediate_size)[: 3 + 5 * layer]))
    return parts._replace(heads=heads, units=units)


@pytest.mark.parametrize("name", [
    "bert", "modernbert",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("albert", "deberta-v2", "eurobert", "nomic_bert", "gte", "neobert")
    ),
])  # fmt: skip
def test_the_program_computes_what_the_masked_model_does(name, tmp_path, largest):
    onnxruntime = pytest.importorskip("onnxruntime")
    config = small_family(name)
    params, kept = random_params(config, 0), ragged(config)
    served = served_model(config, params, ("hidden",))
    layers = cut_layers(config, flatten_dict(params, sep="/"), kept)
    export_onnx(dataclasses.replace(served, params={**served.params, **layers}), tmp_path)
    drawn = random_batch(np.random.default_rng(1), 2, length=8, vocab_size=config.vocab_size)
    batch = {name: drawn[name] for name in ("input_ids", "input_mask", "segment_ids")}
    if config.type_vocab_size < 2:
        batch["segment_ids"][:] = 0
    with masked():
        masks = masks_of(config, kept)
        expected = functional.encode(config, with_masks(params, masks), batch).hidden_BxLxD
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    inputs = {each.name: batch[each.name].astype(np.int32) for each in session.get_inputs()}
    (got,) = session.run(["hidden"], inputs)
    real = batch["input_mask"] == 1
    largest(name, np.abs(got - np.asarray(expected))[real].max(), 1e-5)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A fine-tuned run, with the folder of its tasks as current folder."""
    folder = tmp_path_factory.mktemp("by_layer")
    with contextlib.chdir(folder):
        yield task_run(folder)


def test_a_program_by_layer_has_its_figure_its_card_and_what_stays(source, tmp_path):
    options = PruneOptions(heads=0.25, mlp=0.4, by_layer=True, **FEW)
    folder = tmp_path / "program"
    pruned = prune_model(source, folder, options, RunMeasuring(seconds=0))
    assert {"model.onnx", "task.json", "tokenizer.json", "card.json", "pruned.json"} <= {
        path.name for path in folder.iterdir()
    }
    kept = json.loads((folder / "pruned.json").read_text())["kept"]
    config = bertjax.load_config(source / "config.json").model
    heads, units = config.num_attention_heads, config.intermediate_size
    layers = config.num_hidden_layers
    assert sum(map(len, kept["heads"])) == round(0.75 * heads * layers)
    assert sum(map(len, kept["units"])) == round(0.6 * units * layers)
    assert pruned.changes[1].startswith("heads by layer: ")
    card = json.loads((folder / "card.json").read_text())
    assert card["after"]["bytes"] < card["before"]["bytes"]
    assert card["after"]["runtime"].startswith("onnxruntime")
    # The same call finds what it made.
    assert prune_model(source, folder, options, RunMeasuring(seconds=0)) == pruned


def test_a_program_that_is_not_measured_is_written_too(source, tmp_path, capsys):
    words = ["prune", str(source), "--to", str(tmp_path / "to"), "--by-layer", "--flops", "0.3"]
    assert main([*words, "--measure", "False", "--batches", "2"]) == 0
    assert f"program: {tmp_path}/to" in capsys.readouterr().out
    assert epath.Path(tmp_path / "to" / "model.onnx").exists()


@pytest.mark.parametrize(("options", "message"), [
    ({"mlp": 0.5, "multiple": 8}, "--multiple: found 8, expected none beside --by-layer"),
    ({"layers": "1"}, "--by-layer: found no heads or units to prune"),
])  # fmt: skip
def test_options_that_do_not_go_with_it_are_refused(source, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prune_model(source, tmp_path / "to", PruneOptions(by_layer=True, **options))
    assert list(tmp_path.iterdir()) == []
