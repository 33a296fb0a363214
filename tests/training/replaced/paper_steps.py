"""Steps of replaced-token detection in PyTorch, written from the papers, beside bertjax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model import functional
from bertjax.model.functional import GENERATOR
from bertjax.model.layout import ANYWHERE
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.pretraining import pretraining
from bertjax.training.replaced import losses, networks
from bertjax.training.step import MASKS, TrainState, gradients, random_key, train_step
from tests.training.replaced.models import detection_batch

torch = pytest.importorskip("torch")

STEPS = 20
OPTIMIZER = {
    "warmup_steps": 4,
    "peak_learning_rate": 2e-3,
    "weight_decay": 0.1,
    # Adam divides a gradient by its size: with a small epsilon, rounding of what is nearly 0 becomes a
    # whole step, and the two runs part.
    "eps": 1e-2,
}
"""Settings of the runs that are compared."""


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


def torch_optimizer(c, *networks_of_torch):
    """AdamW with the linear schedule of an `OptimizerConfig`, written with PyTorch's own parts.

    What the networks have in common is in it once.
    """
    named = {}
    for network in networks_of_torch:
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


def noisy_params(objective):
    """New parameters, none of which has its initial value 0 or 1."""
    params = objective.init(jax.random.key(1))
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), params)


def samples_of(objective, params, batch):
    """The words that our step draws."""
    own = networks.generator_params(params)
    hidden = functional.encode(objective.generator, own, batch).hidden_BxLxD
    logits = functional.mlm_logits(objective.generator, own, hidden, batch["masked_lm_positions"])
    return losses.sampled(logits, batch[losses.SEEDS], ANYWHERE)


def assert_steps_follow(largest, title, config, torch_networks, torch_gradients, joint):
    """Train both implementations on the same words and compare gradients and losses at each step.

    `joint`: one optimizer, which clips both networks' gradients together; otherwise one for each.
    """
    objective = pretraining(config)
    params = noisy_params(objective)
    both = torch_networks(objective, params)
    groups = [both] if joint else [(network,) for network in both]
    optimizers = [torch_optimizer(config.optimizer, *group) for group in groups]
    step = jax.jit(lambda state, batch: train_step(config, state, batch))
    graded = jax.jit(lambda params, batch: gradients(config, params, batch, None)[0])
    draw = jax.jit(lambda params, batch: samples_of(objective, params, batch))
    state = TrainState(jnp.int32(0), params, make_optimizer(config.optimizer).init(params))
    seen = []
    for number in range(STEPS):
        batch = detection_batch(seed=number)
        prepared = objective.prepare(batch, random_key(config.seed, number, MASKS), number)
        samples = np.asarray(draw(state.params, prepared))
        for optimizer, _ in optimizers:
            optimizer.zero_grad()
        expected = paper_step(*both, batch, samples)
        expected[2].backward()
        theirs = torch_gradients(objective, *both)
        ours = graded(state.params, prepared)
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for name, difference in differences(ours, theirs).items():
            largest(f"{title}: gradients of {name}, relative", difference, 1e-4)
        for optimizer, schedule in optimizers:
            own = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(own, config.optimizer.max_grad_norm)
            optimizer.step()
            schedule.step()
        state, metrics = step(state, batch)
        for name, value in zip(("mlm_loss", "detection_loss", "loss"), expected, strict=True):
            difference = abs(float(metrics[name]) - value.item()) / value.item()
            largest(f"{title}: losses, relative", difference, 1e-5)
        seen.append(float(metrics["loss"]))
    assert seen[-1] < seen[0]
