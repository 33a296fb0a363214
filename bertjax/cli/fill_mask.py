"""`bertjax fill-mask RUN SENTENCE ... [--top-k N]`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from bertjax.cli.arguments import log_of_verb, parse_subject, quiet_libraries
from bertjax.errors import check
from bertjax.number_text import number_text


@dataclass(frozen=True)
class FillMaskCommand:
    """Print the most probable words for each [MASK] of each sentence, with their probabilities."""

    sentences: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts that contain [MASK]; write them before the options, or after -- at the end."""
    top_k: int = 5
    """Number of words to print for each [MASK]."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject(
        "fill-mask", FillMaskCommand(), words, "a run or checkpoint folder", texts="sentences"
    )
    check(
        len(command.sentences) > 0,
        where="fill-mask",
        found="no sentence",
        expected='one or more, like "The [MASK] is empty."',
    )
    check(command.top_k > 0, where="--top-k", found=command.top_k, expected="a number above 0")
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.inference.fill_mask import fill_mask
    from bertjax.parallel import compile_cache
    from bertjax.training.saved_model import load_model

    compile_cache.start()
    model = load_model(subject)
    for sentence in command.sentences:
        print(sentence)
        with log_of_verb():
            filled = fill_mask(model, sentence, top_k=command.top_k)
        for candidates in filled:
            shown = [
                f"{word} {number_text(probability, '.1%')}" for word, probability in candidates
            ]
            print("    " + "   ".join(shown))
    return 0
