"""Our optimizer and training step beside PyTorch's on the same numbers."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config import MeshConfig
from bertjax.parallel.mesh import make_mesh
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.optimization.schedules import make_schedule
from bertjax.training.step import TrainState, jit_train_step

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tests.factory import SMALL_MODEL, random_batch, small_config, unrepeated  # noqa: E402
from tests.reference import params_of, reference_batch, reference_model, tensors_of  # noqa: E402

MODEL = dataclasses.replace(
    SMALL_MODEL, hidden_size=32, num_attention_heads=4, initializer_range=0.1
)
CONFIG = small_config(
    model=MODEL,
    train={"steps": 10, "batch_size": 8},
    optimizer={
        "warmup_steps": 4,
        "peak_learning_rate": 5e-3,
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
    },
)


def torch_optimizer(model):
    """AdamW, the schedule and the clipping of `CONFIG`, written with PyTorch's own parts."""
    c = CONFIG.optimizer
    spared = [
        p for name, p in model.named_parameters() if "LayerNorm" in name or name.endswith("bias")
    ]
    decayed = [
        p
        for name, p in model.named_parameters()
        if not ("LayerNorm" in name or name.endswith("bias"))
    ]
    groups = [
        {"params": decayed, "weight_decay": c.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=c.peak_learning_rate, betas=(c.b1, c.b2), eps=c.eps)
    steps, warmup = CONFIG.train.steps, c.warmup_steps
    rate = lambda step: step / warmup if step < warmup else (steps - step) / (steps - warmup)  # noqa: E731
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def torch_step(model, optimizer, schedule):
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CONFIG.optimizer.max_grad_norm)
    optimizer.step()
    schedule.step()
    return float(norm)


def test_adamw_with_warmup_decay_mask_and_clipping_is_pytorchs_on_the_same_gradients(largest):
    model = reference_model(MODEL, 0)
    params = params_of(MODEL, model)
    optimizer, schedule = torch_optimizer(model)
    ours, state = make_optimizer(CONFIG.optimizer), None
    rates = make_schedule(CONFIG.optimizer, CONFIG.train.steps)
    norms = []
    for step in range(6):
        torch.manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * (0.001 if step == 2 else 1.0)
        gradients = params_of(MODEL, model, gradients=True)  # before clipping, which is in place
        gradients = jax.tree.map(np.array, gradients)
        state = ours.init(params) if state is None else state
        updates, state = ours.update(gradients, state, params)
        rate = float(rates(step))
        params = jax.tree.map(lambda p, u, rate=rate: p + rate * u, params, updates)
        norms.append(torch_step(model, optimizer, schedule))
    assert (
        min(norms) < CONFIG.optimizer.max_grad_norm < max(norms)
    )  # some were clipped and some not
    theirs = {name: p.detach().numpy() for name, p in model.named_parameters()}
    for name, value in tensors_of(params).items():
        largest(
            "AdamW, parameters after six steps", float(np.abs(value - theirs[name]).max()), 1e-6
        )


def test_ten_steps_of_training_follow_pytorchs_loss(largest):
    model = reference_model(MODEL, 1)
    params = params_of(MODEL, model)
    optimizer, schedule = torch_optimizer(model)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    step = jit_train_step(CONFIG, mesh)
    state = TrainState(np.int32(0), params, make_optimizer(CONFIG.optimizer).init(params))
    losses = []
    for i in range(CONFIG.train.steps):
        batch = unrepeated(random_batch(np.random.default_rng(i), 8))
        state, metrics = step(state, batch)
        optimizer.zero_grad()
        expected = model(**reference_batch(batch)).loss
        expected.backward()
        norm = torch_step(model, optimizer, schedule)
        losses.append(expected.item())
        largest("ten steps: loss", abs(float(metrics["loss"]) - expected.item()), 1e-4)
        largest(
            "ten steps: gradient norm, relative",
            abs(float(metrics["grad_norm"]) - norm) / norm,
            1e-4,
        )
    assert losses[-1] < losses[0]
