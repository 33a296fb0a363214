"""Runs with a generator on prepared text: begun, killed, continued, evaluated, exported, fine-tuned."""

import contextlib
import json

import numpy as np
import pytest
from etils import epath

import bertjax
from bertjax.cli.main import main
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.model.functional import GENERATOR
from bertjax.training import checkpoint
from bertjax.training.integrity.restoring import saved_shapes
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.saved_model import load_network
from tests.tiny_library import write_library
from tests.training.checkpoints import KilledError, array_sums
from tests.waiting import until

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with prepared text, as current folder."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        bertjax.prepare(config_of())
        yield folder


def config_of(**changes):
    config = bertjax.load_config("tiny.py").replace(
        data={"sentence_objective": "none", "prepared_dir": "prepared/words"},
        train={"steps": 4, "eval_every_steps": 2, "save_every_steps": 2},
        optimizer={"peak_learning_rate": 1e-3},
    )
    model = {"heads": ("rtd",), "embedding_size": 24, "mlm_act": "gelu", "exported_as": "electra"}
    model = {**model, **changes.pop("model", {})}
    fields = {field: getattr(config.model, field) for field in config.model.__dataclass_fields__}
    whole = type(config.model)(**{**fields, **model})
    replaced = {"generator": "tied", "generator_size": 0.5, **changes.pop("replaced", {})}
    # Together, since each alone would not fit.
    return config.replace(model=whole, replaced=replaced, **changes)


@pytest.fixture(scope="module")
def undisturbed(library):
    return bertjax.train(config_of(), "runs/electra")


def test_a_run_has_the_figures_of_both_networks_and_one_table_of_words(library, undisturbed):
    first = read_entries(undisturbed.run_dir)[0]
    for name in ("loss", "mlm_loss", "detection_loss", "detection_accuracy"):
        assert np.isfinite(first[name])
        assert np.isfinite(undisturbed.metrics[name])
    for name in ("detection_precision", "detection_recall", "replaced"):
        assert 0 <= undisturbed.metrics[name] <= 1
    names = [name for name in saved_shapes(undisturbed.checkpoint) if name.startswith("params/")]
    words = [name for name in names if "/word/" in name]
    assert words == ["params/embeddings/word/embedding"]
    assert any(name.startswith(f"params/{GENERATOR}/encoder/") for name in names)
    assert "detection" in undisturbed.report.read_text()


def test_evaluate_gives_the_figures_of_training(library, undisturbed):
    evaluated = bertjax.evaluate("runs/electra").metrics
    for name, value in evaluated.items():
        assert value == pytest.approx(undisturbed.metrics[name], rel=1e-6), name


def test_a_run_that_was_killed_goes_on_bit_for_bit(library, undisturbed):
    def die(stage, done, total):
        if stage == "train" and done == 3:
            until(lambda: checkpoint.steps_of(epath.Path("runs/killed")) == [2])
            raise KilledError

    with pytest.raises(KilledError):
        bertjax.train(config_of(), "runs/killed", progress=die)
    bertjax.train(config_of(), "runs/killed")
    assert array_sums("runs/killed") == array_sums("runs/electra")


def batch_of(folder):
    """A batch of two rows, and its arguments in transformers."""
    ids = np.random.default_rng(0).integers(5, 100, (2, 9)).astype(np.int32)
    mask = (np.arange(9)[None] < np.array([[9], [6]])).astype(np.int32)
    given = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask)}
    return {"input_ids": ids, "input_mask": mask}, given


def test_both_networks_are_exported_to_their_classes(library, undisturbed, largest):
    words = ["export", "runs/electra", "--to"]
    assert main([*words, "out/model"]) == 0
    assert main([*words, "out/generator", "--network", "generator"]) == 0
    batch, given = batch_of(library)
    kinds = {"model": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}
    for network, kind in kinds.items():
        written = json.loads((library / "out" / network / "config.json").read_text())
        assert written["architectures"] == [kind]
        loaded, report = getattr(transformers, kind).from_pretrained(
            f"out/{network}", output_loading_info=True
        )
        assert not any(report.values())
        model = load_network("runs/electra", network)
        hidden = functional.encode(model.config.model, model.params, batch).hidden_BxLxD
        head = functional.rtd_logits if network == "model" else functional.mlm_logits
        ours = np.asarray(head(model.config.model, model.params, hidden))
        with torch.no_grad():
            theirs = loaded.eval()(**given).logits.numpy()
        real = batch["input_mask"] > 0
        largest(f"exported {kind}", np.abs(ours - theirs)[real].max(), 1e-5)


def test_the_exported_discriminator_is_imported_and_fine_tuned(library, undisturbed):
    bertjax.export_model("runs/electra", "out/imported-from", "huggingface")
    assert main(["import", "out/imported-from", "--to", "runs/imported"]) == 0
    assert bertjax.saved_config("runs/imported").model.heads == ("rtd",)
    for source in ("runs/imported", "runs/electra"):
        words = ["--init-from", source, "--run-dir", f"{source}-good"]
        assert main(["finetune", "finetune.py", *words]) == 0
    assert bertjax.saved_config("runs/electra-good").model.heads == ("pooler",)


def test_another_run_starts_from_both_networks_and_refuses_one_without(library, undisturbed):
    start = config_of(init_from="runs/electra", train={"steps": 1})
    result = bertjax.train(start, "runs/again")
    assert result.step == 1
    bertjax.export_model("runs/electra", "out/alone", "huggingface")
    main(["import", "out/alone", "--to", "runs/alone"])
    with pytest.raises(UserError, match="generator") as error:
        bertjax.train(config_of(init_from="runs/alone"), "runs/refused")
    assert "\n" not in str(error.value)
    assert not (library / "runs" / "refused").exists()


def test_what_a_run_has_not_is_refused_in_one_line(library, undisturbed, capsys):
    bertjax.prepare(bertjax.load_config("tiny.py"))
    bertjax.train(bertjax.load_config("tiny.py"), "runs/bert")
    assert main(["export", "runs/bert", "--to", "out/none", "--network", "generator"]) == 2
    message = capsys.readouterr().err
    assert "network: found generator, expected model, which is all that a run without" in message
    assert not (library / "out" / "none").exists()
    assert main(["compile", "runs/electra/config.json"]) == 2
    assert "replaced.generator: found tied, expected none" in capsys.readouterr().err
    assert main(["fill-mask", "runs/electra", "the [MASK] sees"]) == 2


def test_a_phase_changes_the_data_s_masks_and_both_networks_go_on(library):
    data = {"dynamic_masking": True, "prepared_dir": "prepared/unmasked"}
    phases = ("steps=2", "steps=2 data.mlm_probability=0.1")
    config = config_of(data=data, phases=phases)
    bertjax.prepare(config)
    result = bertjax.train(config, "runs/phased")
    assert result.step == 4
    assert np.isfinite(result.metrics["detection_loss"])
