"""Twenty steps of ELECTRA beside PyTorch's, written from the paper with the modules of transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.interop.checkpoints.model_config import huggingface_config
from bertjax.interop.checkpoints.tensor_mapping import Tensors, export_tensors, import_params
from bertjax.interop.checkpoints.tensor_names import torch_dialect
from bertjax.model import functional
from bertjax.model.functional import GENERATOR
from bertjax.model.layout import ANYWHERE
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.pretraining import pretraining
from bertjax.training.replaced import losses, networks
from bertjax.training.step import MASKS, TrainState, gradients, random_key, train_step
from tests.training.replaced.models import MODEL, detection_batch, detection_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

STEPS = 20
CONFIG = detection_config(
    dataclasses.replace(MODEL, hidden_size=32, embedding_size=24, initializer_range=0.1),
    train={"steps": STEPS},
    optimizer={
        "warmup_steps": 4,
        "peak_learning_rate": 2e-3,
        "weight_decay": 0.1,
        # Adam divides a gradient by its size: with a small epsilon, rounding of what is nearly 0
        # becomes a whole step, and the two runs part.
        "eps": 1e-2,
    },
)
NAMES = {"discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}


def torch_networks(objective, params):
    """Both networks in PyTorch with our parameters and one module of embeddings."""
    own = {name: leaves for name, leaves in params.items() if name != GENERATOR}
    found = {}
    for name, config, leaves in (
        ("discriminator", objective.model, own),
        ("generator", objective.generator, networks.generator_params(params)),
    ):
        values = huggingface_config("electra", config, 0)
        del values["model_type"]
        settings = transformers.ElectraConfig(**values, attn_implementation="eager")
        network = getattr(transformers, NAMES[name])(settings).eval()
        tensors = export_tensors(leaves, torch_dialect("electra"))
        loaded = {key: torch.tensor(np.array(array)) for key, array in tensors}
        missing = network.load_state_dict(loaded, strict=False)
        assert not missing.unexpected_keys
        found[name] = network
    discriminator, generator = found["discriminator"], found["generator"]
    # PyTorch gives the row of padding no gradient, but a generator may draw this word too.
    discriminator.electra.embeddings.word_embeddings.padding_idx = None
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    return discriminator, generator


def paper_step(discriminator, generator, batch, samples):
    """The two losses of the paper's section 2, each a mean, and the weighted sum of section 3.1."""
    seen = {
        "attention_mask": torch.tensor(batch["input_mask"]).long(),
        "token_type_ids": torch.tensor(batch["segment_ids"]).long(),
    }
    rows, columns = np.nonzero(batch["masked_lm_weights"])
    places = batch["masked_lm_positions"][rows, columns]
    true = torch.tensor(batch["masked_lm_ids"][rows, columns]).long()
    ids = torch.tensor(batch["input_ids"]).long()
    predicted = generator(input_ids=ids, **seen).logits[rows, places]
    of_generator = torch.nn.functional.cross_entropy(predicted, true)
    drawn = torch.tensor(samples[rows, columns]).long()
    corrupted, labels = ids.clone(), torch.zeros(ids.shape)
    corrupted[rows, places] = drawn
    labels[rows, places] = (drawn != true).float()
    logits = discriminator(input_ids=corrupted, **seen).logits
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    of_discriminator = each[seen["attention_mask"] > 0].mean()
    return of_generator, of_discriminator, of_generator + 50.0 * of_discriminator


def torch_gradients(objective, discriminator, generator):
    """The gradients of both networks, as ours."""
    trees = []
    for network, config in (
        (discriminator, objective.model),
        (generator, objective.generator),
    ):
        found = {name: p.grad.numpy() for name, p in network.named_parameters()}
        shapes = {name: array.shape for name, array in found.items()}
        tensors = Tensors("the reference", shapes, found.__getitem__)
        trees.append(import_params(config, torch_dialect("electra"), tensors))
    own, theirs = trees
    kept = {
        name: leaves for name, leaves in theirs["embeddings"].items() if name == networks.PROJECTION
    }
    return {**own, GENERATOR: {**theirs, "embeddings": kept}}


def differences(ours, theirs):
    """The largest difference of each network's gradients, as a share of its module's largest one.

    A bias is compared with its kernel: that of keys is 0 but for rounding, and that of the last
    layer a sum of terms that nearly cancel.
    """
    own = dict(jax.tree_util.tree_leaves_with_path(ours))
    sizes, found = {}, {"the generator": 0.0, "the discriminator": 0.0}
    for path, value in jax.tree_util.tree_leaves_with_path(theirs):
        sizes[path[:-1]] = max(sizes.get(path[:-1], 0.0), np.abs(value).max())
    for path, value in jax.tree_util.tree_leaves_with_path(theirs):
        name = "the generator" if path[0].key == GENERATOR else "the discriminator"
        difference = np.abs(own[path] - value).max() / sizes[path[:-1]]
        found[name] = max(found[name], difference)
    return found


def torch_optimizer(discriminator, generator):
    """AdamW with the linear schedule of `CONFIG`, written with PyTorch's own parts."""
    c = CONFIG.optimizer
    named = {}
    for network in (discriminator, generator):
        named |= {id(p): (name, p) for name, p in network.named_parameters()}
    groups = [{"params": [], "weight_decay": c.weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in named.values():
        is_spared = "LayerNorm" in name or name.endswith("bias")
        groups[int(is_spared)]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, lr=c.peak_learning_rate, betas=(c.b1, c.b2), eps=c.eps)
    warmup = c.warmup_steps

    def rate(step):
        return step / warmup if step < warmup else (STEPS - step) / (STEPS - warmup)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def samples_of(objective, params, batch):
    """The words that our step draws."""
    own = networks.generator_params(params)
    hidden = functional.encode(objective.generator, own, batch).hidden_BxLxD
    logits = functional.mlm_logits(objective.generator, own, hidden, batch["masked_lm_positions"])
    return losses.sampled(logits, batch[losses.SEEDS], ANYWHERE)


@pytest.mark.slow
def test_twenty_steps_of_electra_follow_the_paper_in_pytorch(largest):
    objective = pretraining(CONFIG)
    params = objective.init(jax.random.key(1))
    # No parameter has its initial value 0 or 1.
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), params
    )
    discriminator, generator = torch_networks(objective, params)
    optimizer, schedule = torch_optimizer(discriminator, generator)
    step = jax.jit(lambda state, batch: train_step(CONFIG, state, batch))
    graded = jax.jit(lambda params, batch: gradients(CONFIG, params, batch, None)[0])
    draw = jax.jit(lambda params, batch: samples_of(objective, params, batch))
    state = TrainState(jnp.int32(0), params, make_optimizer(CONFIG.optimizer).init(params))
    seen = []
    for number in range(STEPS):
        batch = detection_batch(seed=number)
        prepared = objective.prepare(batch, random_key(CONFIG.seed, number, MASKS), number)
        samples = np.asarray(draw(state.params, prepared))
        optimizer.zero_grad()
        expected = paper_step(discriminator, generator, batch, samples)
        expected[2].backward()
        theirs = torch_gradients(objective, discriminator, generator)
        ours = graded(state.params, prepared)
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for name, difference in differences(ours, theirs).items():
            largest(f"ELECTRA: gradients of {name}, relative", difference, 1e-4)
        torch.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]],
            CONFIG.optimizer.max_grad_norm,
        )
        optimizer.step()
        schedule.step()
        state, metrics = step(state, batch)
        for name, value in zip(("mlm_loss", "detection_loss", "loss"), expected, strict=True):
            difference = abs(float(metrics[name]) - value.item()) / value.item()
            largest("ELECTRA: losses, relative", difference, 1e-5)
        seen.append(float(metrics["loss"]))
    assert seen[-1] < seen[0]
