"""The functions of `bertjax`: listed, loaded on first use, and documented by examples that run."""

import ast
import contextlib
import doctest
import inspect
import subprocess
import sys
import typing

import pytest
from etils import epath

import bertjax
from bertjax.config import family
from bertjax.training.logs.metrics_log import read_entries
from tests.tiny_library import write_library

VERBS = (
    "prepare", "train", "finetune", "sweep", "evaluate", "predict", "predict_texts", "fill_mask", "zero_shot", "embed",
    "load_model", "load_tokenizer", "import_model", "export_model",
)  # fmt: skip
FUNCTIONS = [name for name in bertjax.__all__ if inspect.isfunction(getattr(bertjax, name))]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The folder of the examples, with a run pretrained and one fine-tuned, as current folder."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        config = bertjax.load_config("tiny.py")
        bertjax.prepare(config)
        bertjax.train(config, "runs/tiny")
        bertjax.finetune(bertjax.load_config("finetune.py"), "runs/finetuned")
        yield folder


@pytest.mark.quick
def test_what_the_verbs_do_and_all_configuration_classes_are_listed():
    from bertjax import config

    classes = [name for name in config.__all__ if name.endswith("Config")]
    listed = dir(bertjax)
    for name in (*VERBS, *classes, "UserError", "__version__", "encode", "pretraining_loss"):
        assert name in listed
        assert name in bertjax.__all__
        assert getattr(bertjax, name)
    with pytest.raises(AttributeError, match="module 'bertjax' has no attribute 'tarin'"):
        _ = bertjax.tarin


def test_names_load_on_first_use_and_none_brings_tensorflow():
    code = (
        "import sys, bertjax\n"
        "heavy = {'jax', 'flax', 'numpy', 'orbax', 'tensorflow', 'tensorflow_datasets', 'tyro'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "for name in bertjax.__all__: getattr(bertjax, name)\n"
        "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_type_checkers_see_the_names_that_load_on_first_use():
    tree = ast.parse(inspect.getsource(bertjax))
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.name: node.module for alias in node.names}
    for name, module in bertjax._MODULES.items():
        assert imported[name] == module


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_each_public_docstring_runs(library, name):
    function = getattr(bertjax, name)
    assert typing.get_type_hints(function).keys() >= set(inspect.signature(function).parameters)
    (found,) = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
    assert found.examples, name
    report = []
    failed, _ = doctest.DocTestRunner().run(found, out=report.append)
    assert failed == 0, "".join(report)


def assert_transformers_fills_the_same_words(exported, filled):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForMaskedLM.from_pretrained(exported).eval()
    tokenizer = bertjax.load_tokenizer("runs/trained/tokenizer")
    ids = tokenizer.encode_with_masks("the [MASK] sees the dog. " * 7).tolist()
    row = torch.tensor([[tokenizer.cls_id, *ids, tokenizer.sep_id]])
    with torch.no_grad():
        logits = model(row).logits[0][row[0] == tokenizer.mask_id]
    logits[:, tokenizer.vocab_size :] = logits[:, tokenizer.special_ids] = -torch.inf
    for candidates, probabilities in zip(filled, logits.softmax(-1), strict=True):
        best = candidates[0]
        assert best.text == tokenizer.decode([int(probabilities.argmax())])
        assert best.probability == pytest.approx(float(probabilities.max()), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modernbert", "gpt_bert"])
def test_a_model_of_another_family_goes_through_all_verbs(name, tmp_path, caplog):
    """From text without pairs of sentences, in packed rows, to a classifier and its program."""
    caplog.set_level("INFO", "bertjax")
    folder = write_library(tmp_path)
    sizes = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
    own = {"modernbert": {"local_attention": 8}, "gpt_bert": {"relative_positions": 15}}[name]
    with contextlib.chdir(folder):
        config = bertjax.load_config("tiny.py").replace(
            data={
                "max_seq_length": 64,
                "max_predictions_per_seq": 20,
                "mlm_probability": 0.3,
                "dynamic_masking": True,
                "sentence_objective": "none",
                "max_sequences_per_row": 4,
            },
            model=family(name, **sizes, **own),
            optimizer={"peak_learning_rate": 1e-2},
            train={"steps": 60, "eval_every_steps": 30, "save_every_steps": 60},
        )
        bertjax.prepare(config)
        trained = bertjax.train(config, "runs/trained")
        assert set(trained.metrics) >= {"mlm_loss", "mlm_accuracy"}
        assert not any(metric.startswith(("nsp", "sop")) for metric in trained.metrics)
        entries = read_entries(epath.Path("runs/trained"))
        losses = [entry["mlm_loss"] for entry in entries if entry["split"] == "train"]
        assert losses[-1] < 0.9 * losses[0]
        long = "the [MASK] sees the dog. " * 7
        assert len(bertjax.fill_mask("runs/trained", long, top_k=3)) == 7
        assert bertjax.embed("runs/trained", ["the cat.", long]).shape == (2, 32)
        finetuning = bertjax.load_config("finetune.py").replace(init_from="runs/trained")
        tuned = bertjax.finetune(finetuning, "runs/tuned")
        assert set(tuned.metrics) == {"accuracy", "loss", "score"}
        copied = "pooler from the mlm head" in caplog.text
        assert copied == (name == "modernbert")
        lines = bertjax.predict_texts("runs/tuned", ["the good cat.", "no one."])
        assert len(lines) == 2
        program = bertjax.export_model("runs/tuned", "program", "stablehlo")
        assert (program / "task.json").exists()
        exported = bertjax.export_model("runs/trained", "exported/trained", "huggingface")
        if name == "gpt_bert":  # of which transformers has no class, and its authors none for tasks
            with pytest.raises(bertjax.UserError, match="model.heads: found pooler, expected"):
                bertjax.export_model("runs/tuned", "exported/tuned", "huggingface")
            return
        bertjax.export_model("runs/tuned", "exported/tuned", "huggingface")
        assert_transformers_fills_the_same_words(exported, bertjax.fill_mask("runs/trained", long))
