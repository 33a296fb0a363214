"""`bertjax fill-mask RUN SENTENCE ... [--top-k N]`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import ModelConfig
from bertjax.errors import check

if TYPE_CHECKING:
    from bertjax.data.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class FillMaskCommand:
    """Print the likeliest words for each [MASK] of each sentence, with their probabilities."""

    sentences: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Text with [MASK] in it."""
    top_k: int = 5
    """Words to print for each [MASK]."""


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "fill-mask", "a run or checkpoint folder")
    command = parse("fill-mask RUN", FillMaskCommand(), rest)
    check(
        len(command.sentences) > 0,
        where="fill-mask",
        found="no sentence",
        expected='one or more, like "The [MASK] is empty."',
    )
    check(command.top_k > 0, where="--top-k", found=command.top_k, expected="a number above 0")
    quiet_libraries()
    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.parallel import compile_cache
    from bertjax.training.saved_model import load_model

    compile_cache.start()
    loaded = load_model(subject)
    tokenizer = load_tokenizer(loaded.run_dir / "tokenizer")
    for sentence in command.sentences:
        print(sentence)
        for found in fill_mask(
            loaded.config.model, loaded.params, tokenizer, sentence, command.top_k
        ):
            print("    " + "   ".join(f"{word} {probability:.1%}" for word, probability in found))
    return 0


def fill_mask(
    config: ModelConfig, params: Any, tokenizer: "Tokenizer", sentence: str, top_k: int
) -> list[list[tuple[str, float]]]:
    """For each `[MASK]` of `sentence`, the `top_k` likeliest pieces with their probabilities, best
    first.

    Special tokens are never proposed. Raises `UserError` when the sentence has no mask or is
    longer than the model's positions.
    """
    import jax

    from bertjax.model import functional

    inner = tokenizer.encode_with_masks(sentence)
    ids = np.concatenate([[tokenizer.cls_id], inner, [tokenizer.sep_id]]).astype(np.int32)
    (masked,) = np.nonzero(ids == tokenizer.mask_id)
    check(len(masked) > 0, where=f"{sentence!r}", found="no [MASK]", expected="one or more")
    limit = config.max_length
    check(
        len(ids) <= limit,
        where=f"{sentence!r}",
        found=f"{len(ids)} ids",
        expected=f"at most {limit} (model.max_position_embeddings)",
    )

    hidden = functional.encode(config, params, {"input_ids": ids[None]}).hidden_BxLxD
    logits_MxV = np.array(
        functional.mlm_logits(config, params, hidden, masked[None].astype(np.int32))[0]
    )
    logits_MxV[:, tokenizer.vocab_size :] = -np.inf
    logits_MxV[:, tokenizer.special_ids] = -np.inf
    probabilities = np.asarray(jax.nn.softmax(logits_MxV, axis=-1))
    best = np.argsort(-probabilities, axis=-1)[:, :top_k]
    return [
        [(tokenizer.decode([i]), float(row[i])) for i in ids]
        for row, ids in zip(probabilities, best, strict=True)
    ]
