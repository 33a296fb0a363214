"""Training step of the last Flax BERT of `transformers` (4.57), for `benchmarks/step.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import transformers
from transformers import BertConfig, FlaxBertForPreTraining
from worker import Job, Step, serve


def make(job: Job) -> Step:
    config = BertConfig(**job["model"], max_position_embeddings=max(512, job["length"]))
    model = FlaxBertForPreTraining(
        config, input_shape=(1, job["length"]), seed=0, dtype=jnp.dtype(job["dtype"])
    )

    def decays(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key not in ("bias", "scale"), params
        )

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-4, eps=1e-6, weight_decay=0.01, mask=decays)
    )
    given = dict(np.load(job["batch"]))
    batch = {name: jax.device_put(values.astype(np.int32)) for name, values in given.items()}

    def loss_of(params, key):
        scores = model(
            batch["input_ids"],
            attention_mask=batch["input_mask"],
            token_type_ids=batch["segment_ids"],
            params=params,
            dropout_rng=key,
            train=True,
        )
        labels = batch["labels"]
        each = optax.softmax_cross_entropy_with_integer_labels(
            scores[0].astype(jnp.float32), jnp.maximum(labels, 0)
        )
        masked = jnp.where(labels >= 0, each, 0).sum() / (labels >= 0).sum()
        pairs = scores[1].astype(jnp.float32)
        return (
            masked
            + optax.softmax_cross_entropy_with_integer_labels(
                pairs, batch["next_sentence_labels"]
            ).mean()
        )

    @jax.jit(donate_argnums=0)
    def step(state):
        params, moments, number = state
        loss, gradient = jax.value_and_grad(loss_of)(
            params, jax.random.fold_in(jax.random.key(0), number)
        )
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments, number + 1), loss

    state = (model.params, optimizer.init(model.params), jnp.int32(0))

    def run(count: int) -> float:
        nonlocal state
        for _ in range(count):
            state, loss = step(state)
        return float(loss)

    def peak() -> int | None:
        stats = jax.devices()[0].memory_stats()
        return None if stats is None else stats.get("peak_bytes_in_use")

    return Step(
        run, peak, {"with": f"jax {jax.__version__}, transformers {transformers.__version__}"}
    )


if __name__ == "__main__":
    serve(make)
