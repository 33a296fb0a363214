"""The forms of pretraining that the ablation compares: each changes one recipe, BERT's."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertjax.config import (
    Config,
    DataConfig,
    OptimizerConfig,
    ReplacedConfig,
    TokenizerConfig,
    TrainConfig,
    family,
)

DECAY = 0.2
"""Share of the steps in which the learning rate falls, at the end."""
WARMUP = 0.05
"""Share of the steps in which the learning rate rises, at the beginning."""


@dataclass(frozen=True)
class Sizes:
    """What all forms have in common: the sizes of model and batch, and the points of a curve."""

    vocab_size: int = 4096
    layers: int = 2
    width: int = 128
    # Four, so that a generator of a quarter of the width has one whole head.
    heads: int = 4
    length: int = 64
    # 16, so that the share of causal rows of GPT-BERT, 1/16, is one row of each batch.
    rows: int = 16
    points: int = 5
    """Number of checkpoints that are kept for the curve; the last is that of the end."""

    @property
    def tokens(self) -> int:
        """Number of tokens of a step."""
        return self.length * self.rows


@dataclass(frozen=True)
class Form:
    """One line of the tables: how it differs from BERT."""

    title: str
    says: str
    family: str = "bert"
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of the configuration that it changes, by section."""
    causal_first: float = 0.0
    """Share of the steps at the beginning in which all rows are causal."""

    @property
    def has_generator(self) -> bool:
        """True if masked words are predicted by a generator beside the model."""
        return "replaced" in self.sections


def words_in_row(length: int, rate: float) -> int:
    """Return room for the predictions of a row at this mask rate."""
    return int(rate * length) + 1


FORMS = {
    "bert": Form("BERT", "15 % of the tokens masked; norms after each sublayer; AdamW"),
    "modernbert": Form(
        "ModernBERT",
        "rotary positions, windows of 16 tokens in every second layer, norms before each"
        " sublayer, gated feed-forward, 30 % masked",
        family="modernbert",
        sections={
            # The paper has windows of 128 in rows of 1,024, in two layers of three.
            "model": {
                "local_attention": 16,
                "global_attn_every_n_layers": 2,
                "rotary_base": 10_000.0,
                "hidden_dropout_prob": 0.0,
            },
            "data": {"mlm_probability": 0.3},
        },
    ),
    "electra": Form(
        "ELECTRA",
        "replaced tokens; a generator of a quarter of the width, tied embeddings",
        family="electra",
        sections={
            "model": {"heads": ("rtd",)},
            "data": {"mask_shares": (0.85, 0.0, 0.15)},
            "replaced": {"generator": "tied", "generator_size": 0.25},
        },
    ),
    "deberta_v3": Form(
        "DeBERTa-v3",
        "replaced tokens; disentangled attention; a generator of half the layers, embeddings"
        " shared without gradients",
        family="deberta-v2",
        sections={
            # Buckets for the distances of rows of 64 tokens; the paper's rows have 512.
            "model": {"heads": ("rtd",), "relative_positions": 64},
            "data": {"mask_shares": (1.0, 0.0, 0.0)},
            "replaced": {
                "generator": "disentangled",
                "generator_size": 1.0,
                "generator_layers": 0.5,
            },
        },
    ),
    "gpt_bert": Form(
        "GPT-BERT",
        "masked next tokens, 1 row of 16 causal, mask rate from 30 % to 15 %; relative positions,"
        " gates, a mix of all layers",
        family="gpt_bert",
        sections={
            "model": {"mlm_shifted": True, "z_loss": 1e-4},
            "data": {"mlm_probability": 0.3, "mlm_probability_to": 0.15, "causal_share": 1 / 16},
        },
    ),
    "causal_then_masked": Form(
        "causal, then masked",
        "BERT; in the first quarter of the steps all rows are causal",
        causal_first=0.25,
    ),
    "falling": Form(
        "falling mask rate",
        "BERT; the mask rate falls from 30 % to 15 %",
        sections={"data": {"mlm_probability": 0.3, "mlm_probability_to": 0.15}},
    ),
    "muon": Form(
        "Muon",
        "BERT; Muon for the matrices of the layers, AdamW for the rest",
        sections={"optimizer": {"algorithm": "muon"}},
    ),
}


def configuration(name: str, seed: int, steps: int, prepared: Path, sizes: Sizes) -> Config:
    """Return the configuration of one cell: a form, a seed and a number of steps."""
    form = FORMS[name]
    data: dict[str, Any] = {"mlm_probability": 0.15, **form.sections.get("data", {})}
    # A causal row predicts all of its tokens but the first.
    is_causal = "causal_share" in data
    data["max_predictions_per_seq"] = (
        sizes.length - 1 if is_causal else words_in_row(sizes.length, data["mlm_probability"])
    )
    every = max(steps // sizes.points, 1)
    config = Config(
        tokenizer=TokenizerConfig(vocab_size=sizes.vocab_size),
        data=DataConfig(
            prepared_dir=str(prepared),
            max_seq_length=sizes.length,
            sentence_objective="none",
            dynamic_masking=True,
            dupe_factor=1,
            short_seq_probability=0.0,
            validation_fraction=0.0,
            **data,
        ),
        model=family(form.family, **_model(form, sizes)),
        replaced=ReplacedConfig(**form.sections.get("replaced", {})),
        optimizer=OptimizerConfig(
            peak_learning_rate=1.5e-3,
            schedule="wsd",
            warmup_steps=max(round(WARMUP * steps), 1),
            decay_steps=max(round(DECAY * steps), 1),
            **form.sections.get("optimizer", {}),
        ),
        train=TrainConfig(
            steps=steps,
            batch_size=sizes.rows,
            log_every_steps=5,
            # No evaluation in the run: its seconds would be counted.
            eval_every_steps=steps,
            save_every_steps=every,
            keep_checkpoints=1,
            keep_every_steps=every,
        ),
        seed=seed,
    )
    if not form.causal_first:
        return config
    first = round(form.causal_first * steps)
    masked = config.data.max_predictions_per_seq
    phases = (
        f"steps={first} data.causal_share=1 data.max_predictions_per_seq={sizes.length - 1}",
        f"data.causal_share=0 data.max_predictions_per_seq={masked}",
    )
    return dataclasses.replace(config, phases=phases)


def _model(form: Form, sizes: Sizes) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": 4 * sizes.width,
        "max_position_embeddings": sizes.length,
        # Each row is seen once, so there is nothing to keep the model from.
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        # As `tiny`: a narrow model learns faster from wider weights.
        "initializer_range": 0.06,
        "heads": ("mlm",),
        "scan_unroll": sizes.layers,
    }
    if form.family in ("modernbert", "gpt_bert"):
        # A gated sublayer has three matrices where a plain one has two.
        fields["intermediate_size"] = 8 * sizes.width // 3 // 8 * 8
    return {**fields, **form.sections.get("model", {})}
