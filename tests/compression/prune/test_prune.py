"""`prune_model` on runs that were trained, through to what other programs read."""

import contextlib
import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from etils import epath

import bertjax
from bertjax.compression.gate import BoundError
from bertjax.compression.measured_run import RunMeasuring
from bertjax.compression.prune.prune import prune_model
from bertjax.compression.prune.reduction import PruneOptions
from bertjax.compression.prune.structure import part_costs
from bertjax.errors import UserError
from bertjax.finetuning.load import load_finetuned
from bertjax.training import checkpoint
from bertjax.training.saved_model import load_model, save_model
from tests.interop.exported_programs import run_onnx
from tests.tiny_library import write_library

FEW = {"batches": 3}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with a pretrained and a fine-tuned run in it, as current folder."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        bertjax.prepare(bertjax.load_config("tiny.py"))
        bertjax.train(bertjax.load_config("tiny.py"), "runs/tiny")
        bertjax.finetune(bertjax.load_config("finetune.py"), "runs/finetuned")
        yield folder


def test_a_fine_tuned_run_becomes_a_smaller_one_that_every_command_reads(library):
    options = PruneOptions(heads=0.5, mlp=0.3, **FEW)
    pruned = prune_model("runs/finetuned", "runs/pruned", options)
    *changes, export = pruned.changes
    assert changes == [
        "importance measured on: 24 training examples of good, seed 0",
        "heads of each layer: 2 before, 1 now, of width 16",
        "feed-forward units of each layer: 32 before, 22 now",
        "chosen by: fisher, last linear layers refitted",
    ]
    assert export.startswith(
        "export: onnx, stablehlo and saved-model; not huggingface (model.attention_head_size: found"
        " 16 with num_attention_heads 1, expected 32, hidden_size by the heads, as in "
    )
    model = load_finetuned("runs/pruned")
    layers = model.params["encoder"]["layers"]
    assert layers["attention"]["query"]["kernel"].shape == (2, 32, 1, 16)
    assert layers["mlp"]["down"]["kernel"].shape == (2, 22, 32)
    meta = checkpoint.read_meta(pruned.made)
    assert np.shape(meta["kept"]["units"]) == (2, 22)
    assert meta["pruned_from"] == str(pruned.source)
    # The numbers are those of the source, at the places that `kept` tells.
    source = load_finetuned("runs/finetuned").params["encoder"]["layers"]["mlp"]["up"]["bias"]
    expected = [source[layer][np.array(meta["kept"]["units"][layer])] for layer in range(2)]
    np.testing.assert_array_equal(layers["mlp"]["up"]["bias"], expected)
    figures = bertjax.evaluate("runs/pruned").metrics
    assert 0 <= figures["accuracy"] <= 1
    assert bertjax.predict_texts("runs/pruned", ["the good dog sees."])[0].label in ("no", "yes")


def test_the_exported_program_has_the_smaller_matrices_and_the_same_logits(library, largest):
    prune_model("runs/finetuned", "runs/for_onnx", PruneOptions(heads=0.5, mlp=0.3, **FEW))
    folder = bertjax.export_model("runs/for_onnx", "exported/onnx", "onnx")
    import onnx

    program = onnx.load(folder / "model.onnx")
    shapes = [tuple(each.dims) for each in program.graph.initializer if len(each.dims) == 2]
    # Of each of two layers: queries, keys and values; the output; up; down.
    assert [shapes.count(shape) for shape in ((32, 16), (16, 32), (32, 22), (22, 32))] == [
        6,
        2,
        2,
        2,
    ]
    model = load_finetuned("runs/for_onnx")
    ids = np.array([[2, 7, 8, 3]], np.int32)
    inputs = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    task = model.objective.by_name["good"]
    expected = task.logits(
        model.config.model, model.params, inputs, key=None, layout=lambda x, *_: x
    )
    (got,) = run_onnx(folder, inputs).values()
    largest("logits in ONNX", np.abs(got - np.asarray(expected)).max(), 1e-5)


def test_fewer_units_and_layers_export_to_transformers(library, largest):
    transformers = pytest.importorskip("transformers")
    import torch

    options = PruneOptions(mlp=0.3, layers="1", **FEW)
    pruned = prune_model("runs/tiny", "runs/exportable", options)
    assert pruned.changes[-1] == "export: all formats; in huggingface it is a model of bert"
    assert pruned.changes[1] == "layers: 2 before, 1 now, evenly spaced: 0"
    folder = bertjax.export_model("runs/exportable", "exported/huggingface", "huggingface")
    config = json.loads((folder / "config.json").read_text())
    assert (config["intermediate_size"], config["num_hidden_layers"]) == (22, 1)
    theirs = transformers.AutoModel.from_pretrained(str(folder))
    ids = np.array([[2, 7, 8, 3]], np.int32)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids.astype(np.int64))).last_hidden_state.numpy()
    model = load_model("runs/exportable")
    got = bertjax.encode(model.config.model, model.params, {"input_ids": ids}).hidden_BxLxD
    largest("hidden states in transformers", np.abs(got - expected).max(), 1e-5)


def test_fewer_heads_are_refused_by_the_formats_that_cannot_say_them(library):
    prune_model("runs/tiny", "runs/heads", PruneOptions(heads=0.5, method="gradient", **FEW))
    for kind in ("huggingface", "tensorflow"):
        with pytest.raises(UserError, match="^model.attention_head_size: found 16 with num"):
            bertjax.export_model("runs/heads", f"exported/{kind}_heads", kind)
        assert not epath.Path(f"exported/{kind}_heads").exists()


@pytest.mark.slow
def test_a_pretrained_run_is_pruned_on_its_records_and_the_same_each_time(library):
    options = PruneOptions(heads=0.5, mlp=0.5, layers="1", choose_layers="loss", seed=3, **FEW)
    first = prune_model("runs/tiny", "runs/first", options)
    assert first.changes[0] == "importance measured on: 24 records of prepared/tiny, seed 3"
    assert re.fullmatch("layers: 2 before, 1 now, without which .*: [01]", first.changes[1])
    again = prune_model("runs/tiny", "runs/again", options)
    one, other = load_model(first.made).params, load_model(again.made).params
    jax.tree.map(np.testing.assert_array_equal, one, other)
    metas = [checkpoint.read_meta(each.made) for each in (first, again)]
    assert metas[0] == metas[1]
    assert bertjax.evaluate("runs/first").metrics["mlm_loss"] > 0


def test_a_share_of_the_flops_says_the_numbers_of_heads_and_units(library):
    pruned = prune_model("runs/tiny", "runs/flops", PruneOptions(flops=0.4, **FEW))
    model = load_model(pruned.made).config.model
    whole = load_model("runs/tiny").config.model
    head, unit = part_costs(whole, 32)
    cost = lambda m: m.num_attention_heads * head + m.intermediate_size * unit  # noqa: E731
    assert cost(whole) * 0.6 - unit < cost(model) <= cost(whole) * 0.6


def test_layers_need_no_data_and_keep_the_tasks(library, tmp_path):
    model = load_model("runs/tiny")
    data = dataclasses.replace(model.config.data, prepared_dir=str(tmp_path / "gone"))
    config = dataclasses.replace(model.config, data=data)
    save_model(tmp_path / "source", config, model.params, model.tokenizer, {})
    pruned = prune_model(tmp_path / "source", tmp_path / "to", PruneOptions(layers="1,"))
    assert pruned.changes[0] == "layers: 2 before, 1 now, as given: 1"
    with pytest.raises(UserError, match=f"found no prepared data at {tmp_path}/gone, expected the"):
        prune_model(tmp_path / "source", tmp_path / "other", PruneOptions(heads=0.5))
    save_model(tmp_path / "bare", config, model.params, None, {})
    with pytest.raises(UserError, match="found a model without a tokenizer"):
        prune_model(tmp_path / "bare", tmp_path / "other", PruneOptions(mlp=0.5))
    assert not (tmp_path / "other").exists()


def test_other_training_examples_than_the_run_s_are_refused(library, tmp_path):
    table = library / "tasks" / "good" / "train.tsv"
    before = table.read_text()
    try:
        table.write_text(before + "one good day\tyes\n")
        with pytest.raises(UserError, match="found other training examples, expected those that"):
            prune_model("runs/finetuned", tmp_path / "to", PruneOptions(mlp=0.5, **FEW))
    finally:
        table.write_text(before)
    assert list(tmp_path.iterdir()) == []


def test_both_models_are_measured_in_their_runtime_and_the_card_says_it(library):
    asked = RunMeasuring(seconds=0, license="apache-2.0")
    options = PruneOptions(mlp=0.3, **FEW)
    pruned = prune_model("runs/finetuned", "runs/measured", options, asked)
    card = json.loads(epath.Path("runs/measured/card.json").read_text())
    source = bertjax.evaluate("runs/finetuned").metrics
    assert card["before"]["figure"]["value"] == source["accuracy"]
    assert card["after"]["figure"]["value"] == bertjax.evaluate("runs/measured").metrics["accuracy"]
    assert card["after"]["bytes"] < card["before"]["bytes"]
    assert (
        card["command"] == f"bertjax prune {pruned.source} --to runs/measured --mlp 0.3 --batches 3"
    )
    assert pruned.table == card["table"]
    assert card["license"] == "apache-2.0"
    readme = epath.Path("runs/measured/README.md").read_text()
    assert "importance measured on: 24 training examples of good, seed 0" in readme
    names = {path.name for path in epath.Path("runs/measured").iterdir()}
    assert names >= {"card.json", "README.md", "config.json", "tokenizer", "checkpoints"}
    assert "scratch" not in names


@pytest.mark.slow
def test_a_model_that_loses_more_than_its_bound_is_not_left(library):
    # Trained until it knows the words' frequencies: then to lose half of it costs something.
    config = bertjax.load_config("tiny.py").replace(
        optimizer={"peak_learning_rate": 5e-3},
        train={"steps": 40, "eval_every_steps": 40, "save_every_steps": 40},
    )
    bertjax.train(config, "runs/strong")
    asked = RunMeasuring(max_loss="0.0001%", seconds=0)
    options = PruneOptions(heads=0.5, mlp=0.9, layers="1", **FEW)
    with pytest.raises(BoundError, match=r"^pruned: mlm_loss .* allowed 1.0e-04 %$") as error:
        prune_model("runs/strong", "runs/refused", options, asked)
    assert error.value.status == 3
    assert not epath.Path("runs/refused").exists()


def test_the_same_command_again_finds_its_output_and_another_is_refused(library):
    options = PruneOptions(layers="1")
    first = prune_model("runs/tiny", "runs/repeated", options)
    assert prune_model("runs/tiny", "runs/repeated", options) == first
    with pytest.raises(UserError, match="found files there, expected a folder that is new"):
        prune_model("runs/tiny", "runs/repeated", PruneOptions(layers="2"))
