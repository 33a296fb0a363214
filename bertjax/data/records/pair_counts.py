"""Counts of pairs of sentences in a manifest, and the shares that they give."""

from bertjax.data.records.manifest import Manifest

# Of `next_sentence`. In the manifest the name of the split stands before each: `train_random_next`.
PAIRS_WITH_NEXT = "pairs_with_next"
"""Pairs whose A has a next sentence in its document."""
RANDOM_NEXT = "random_next"
"""Those of them with a random B: half of them, by chance."""
PAIRS_WITHOUT_NEXT = "pairs_without_next"
"""Pairs whose A ends its document; their B is always random."""
# Of `sentence_order`.
PAIRS = "pairs"
SWAPPED = "swapped_pairs"
"""Those of them with B before A."""
UNMADE_PAIRS = "unmade_pairs"
"""Sentences of one token without a neighbor left; one token cannot be split into A and B."""


def describe_pairs(manifest: Manifest, split: str) -> str:
    """Return the shares of pairs by kind, in one line.

    Empty where there is nothing to say: without a sentence objective, for a split without shards,
    and in manifests of earlier versions, which have no such counts.
    """
    objective = manifest.settings["data"]["sentence_objective"]
    if objective == "none" or not manifest.split(split):
        return ""
    title = objective.replace("_", " ")

    def count(name: str) -> int:
        return manifest.counts.get(f"{split}_{name}", 0)

    if not manifest.schemas[split].sentences:
        if objective == "sentence_order":
            return f"{title}: no pairs, for no document of the split has two tokens"
        if count("documents") == 1:
            return f"{title}: no pairs, for the split has one document"
        return f"{title}: no pairs, for nearly all documents of the split have one sentence"

    if f"{split}_{PAIRS_WITH_NEXT}" in manifest.counts:
        with_next, without = count(PAIRS_WITH_NEXT), count(PAIRS_WITHOUT_NEXT)
        return (
            f"{title}: {_share(count(RANDOM_NEXT), with_next)} random of the pairs with a next "
            f"sentence, {_share(without, with_next + without)} of all pairs have none"
        )
    if f"{split}_{PAIRS}" in manifest.counts:
        pairs, unmade = count(PAIRS), count(UNMADE_PAIRS)
        return (
            f"{title}: {_share(count(SWAPPED), pairs)} of the pairs swapped, "
            f"{_share(unmade, pairs + unmade)} of all not made, of one token"
        )
    return ""


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"
