"""Twenty steps of DeBERTa-v3 beside PyTorch's: embeddings shared without sharing gradients."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import bertjax
from bertjax.interop.checkpoints.model_config import huggingface_config
from bertjax.interop.checkpoints.tensor_mapping import Tensors, export_tensors, import_params
from bertjax.interop.checkpoints.tensor_names import torch_dialect
from bertjax.model import functional
from bertjax.model.functional import GENERATOR
from bertjax.training import checkpoint
from bertjax.training.pretraining import pretraining
from bertjax.training.replaced import networks, sharing
from bertjax.training.saved_model import load_network
from tests.tiny_library import write_library
from tests.training.checkpoints import KilledError, array_sums
from tests.training.replaced.models import RELATIVE, detection_config
from tests.training.replaced.paper_steps import OPTIMIZER, STEPS, assert_steps_follow
from tests.training.replaced.test_networks import batch_of
from tests.waiting import until

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = detection_config(
    RELATIVE,
    generator="disentangled",
    generator_size=1.0,
    replaced={"generator_layers": 0.5},
    train={"steps": STEPS},
    optimizer=OPTIMIZER,
)


class Discriminator(torch.nn.Module):
    """DeBERTa with ELECTRA's head, and a table that is the generator's and a difference."""

    def __init__(self, encoder, generator, hidden):
        super().__init__()
        self.encoder = encoder
        self.dense = torch.nn.Linear(hidden, hidden)
        self.output = torch.nn.Linear(hidden, 1)
        self.words = [generator.deberta.embeddings.word_embeddings.weight]
        table = encoder.embeddings.word_embeddings.weight
        self.difference = torch.nn.Parameter(table.detach() - self.words[0].detach())
        del encoder.embeddings.word_embeddings.weight

    def forward(self, input_ids, attention_mask, token_type_ids):
        words = self.encoder.embeddings.word_embeddings
        words.weight = self.words[0].detach() + self.difference
        words.padding_idx = None
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        scores = self.output(torch.nn.functional.gelu(self.dense(hidden)))[..., 0]
        return transformers.utils.ModelOutput(logits=scores)


def loaded(kind, config, leaves, prefixed):
    values = huggingface_config("deberta-v2", config, 0)
    del values["model_type"]
    network = getattr(transformers, kind)(transformers.DebertaV2Config(**values)).eval()
    dialect = torch_dialect("deberta-v2")
    tensors = export_tensors(leaves, dialect, prefixed=prefixed)
    found = {name: torch.tensor(np.array(array)) for name, array in tensors}
    assert not network.load_state_dict(found, strict=False).unexpected_keys
    return network


def torch_networks(objective, params):
    own = networks.generator_params(params)
    generator = loaded("DebertaV2ForMaskedLM", objective.generator, own, prefixed=True)
    generator.deberta.embeddings.word_embeddings.padding_idx = None
    leaves = {name: params[name] for name in ("embeddings", "encoder")}
    encoder = loaded("DebertaV2Model", objective.model, leaves, prefixed=False)
    discriminator = Discriminator(encoder, generator, objective.model.hidden_size).eval()
    with torch.no_grad():
        for layer, name in ((discriminator.dense, "dense"), (discriminator.output, "output")):
            layer.weight.copy_(torch.tensor(np.array(params["rtd"][name]["kernel"]).T))
            layer.bias.copy_(torch.tensor(np.array(params["rtd"][name]["bias"])))
    return discriminator, generator


def imported(config, found, prefixed):
    shapes = {name: array.shape for name, array in found.items()}
    tensors = Tensors("the reference", shapes, found.__getitem__)
    return import_params(config, torch_dialect("deberta-v2"), tensors)


def torch_gradients(objective, discriminator, generator):
    """The gradients of both networks, as ours: that of the table is the difference's."""
    theirs = {name: p.grad.numpy() for name, p in generator.named_parameters()}
    found = {name: p.grad.numpy() for name, p in discriminator.encoder.named_parameters()}
    found["embeddings.word_embeddings.weight"] = discriminator.difference.grad.numpy()
    encoder = dataclasses.replace(objective.model, heads=())
    rtd = {}
    for layer, name in ((discriminator.dense, "dense"), (discriminator.output, "output")):
        rtd[name] = {"kernel": layer.weight.grad.numpy().T, "bias": layer.bias.grad.numpy()}
    generated = imported(objective.generator, theirs, True)
    return {**imported(encoder, found, False), "rtd": rtd, GENERATOR: generated}


@pytest.mark.slow
def test_twenty_steps_of_deberta_v3_follow_the_paper_in_pytorch(largest):
    """Both networks have an optimizer of their own, which clips their gradients by themselves."""
    assert_steps_follow(largest, "DeBERTa-v3", CONFIG, torch_networks, torch_gradients, joint=False)


def test_the_difference_begins_with_0_and_is_all_that_the_discriminator_trains_of_the_table():
    params = pretraining(CONFIG).init(jax.random.key(0))
    assert not np.any(sharing.as_trained(params)["embeddings"]["word"]["embedding"])
    updates = jax.tree.map(jnp.ones_like, params)
    table = sharing.of_table(updates)["embeddings"]["word"]["embedding"]
    assert np.all(np.asarray(table) == 2)
    assert np.all(np.asarray(updates[GENERATOR]["embeddings"]["word"]["embedding"]) == 1)


def test_each_network_is_clipped_by_itself():
    gradients = {"rtd": jnp.full(4, 3.0), GENERATOR: jnp.full(4, 0.25)}
    clipped = sharing.clipped_apart(gradients, 1.0)
    np.testing.assert_allclose(clipped["rtd"], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(clipped[GENERATOR], gradients[GENERATOR])
    assert sharing.clipped_apart(gradients, 0.0) == gradients


def tiny_run():
    """The configuration of a short run on the prepared text of `write_library`."""
    config = bertjax.load_config("tiny.py").replace(
        data={"sentence_objective": "none"},
        train={"steps": 4, "eval_every_steps": 2, "save_every_steps": 2},
        optimizer={"peak_learning_rate": 1e-3},
    )
    model = dataclasses.replace(RELATIVE, vocab_size=120, max_position_embeddings=32)
    replaced = {"generator": "disentangled", "generator_size": 1.0, "generator_layers": 0.5}
    return config.replace(model=model, replaced=replaced)


def die(stage, done, total):
    if stage == "train" and done == 3:
        until(lambda: checkpoint.steps_of(epath.Path("runs/killed")) == [2])
        raise KilledError


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_and_both_networks_are_exported(tmp_path, largest):
    write_library(tmp_path)
    with contextlib.chdir(tmp_path):
        config = tiny_run()
        bertjax.prepare(config)
        result = bertjax.train(config, "runs/deberta")
        with pytest.raises(KilledError):
            bertjax.train(config, "runs/killed", progress=die)
        bertjax.train(config, "runs/killed")
        assert array_sums("runs/killed") == array_sums("runs/deberta")
        evaluated = bertjax.evaluate("runs/deberta").metrics
        assert evaluated["detection_loss"] == pytest.approx(result.metrics["detection_loss"])
        batch, given = batch_of(tmp_path)
        kinds = {"model": "DebertaV2Model", "generator": "DebertaV2ForMaskedLM"}
        for network, kind in kinds.items():
            folder = f"out/{network}"
            bertjax.export_model("runs/deberta", folder, "huggingface", network=network)
            loaded, report = getattr(transformers, kind).from_pretrained(
                folder, output_loading_info=True
            )
            assert not any(report.values())
            model = load_network("runs/deberta", network)
            ours = functional.encode(model.config.model, model.params, batch).hidden_BxLxD
            if network == "generator":
                ours = functional.mlm_logits(model.config.model, model.params, ours)
            with torch.no_grad():
                theirs = loaded.eval()(**given)[0].numpy()
            real = batch["input_mask"] > 0
            largest(f"exported {kind}", np.abs(np.asarray(ours) - theirs)[real].max(), 1e-5)
