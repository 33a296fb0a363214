"""Remarks on a prepared folder, where held-out losses may say less of the corpus than expected."""

from collections.abc import Iterator

from bertjax.data.records.manifest import FILE, SPLITS, Manifest
from bertjax.errors import check

LARGE_SHARE = 0.5
"""Share of a split's tokens above which one document is said to outweigh the others."""
# Of two documents one has always half of the tokens; it is said from three quarters on.
LARGE_FACTOR = 1.5
"""Such a document also has more than so many times the mean number of tokens."""
FACTOR = 2.0
"""Factor between the held-out share in tokens and the fraction in documents that is said."""
# One percent: less are names and quotations in a text of another language.
MIN_SCRIPT_SHARE = 0.01
"""Share of a split's letters from which its script counts as one of the split's own."""
MISSING = 0.1
"""A script is missing in a split where its share is this part of that in the other, or less."""


def remarks(manifest: Manifest) -> list[str]:
    """Return a line for each thing about the splits that a reader of the losses should know.

    They follow from the counts in the manifest; folders of earlier versions lack some of these.
    """
    return [
        *_cut_documents(manifest),
        *_moved_documents(manifest),
        *_large_documents(manifest),
        *_heldout_share(manifest),
        *_missing_scripts(manifest),
    ]


def _count(manifest: Manifest, name: str) -> int:
    """Return a count that every preparation makes; raise `UserError` where it is missing."""
    check(name in manifest.counts, where=f"{FILE}: counts", found=f"no {name}", expected="one")
    return manifest.counts[name]


def _cut_documents(manifest: Manifest) -> Iterator[str]:
    cuts = manifest.counts.get("long_document_cuts", 0)
    if cuts:
        yield (
            f"documents of more than about a million characters were cut in {cuts:,} places; the "
            "parts count as documents of their own: they may be in different splits, and one the "
            "random next of another"
        )


def _moved_documents(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    for split in SPLITS:
        moved = counts.get(f"{split}_moved_documents", 0)
        if moved:
            documents = sum(_count(manifest, f"{each}_documents") for each in SPLITS)
            yield (
                f"few documents: {moved} of {documents} moved to split {split}, which had too few "
                "by data.validation_fraction"
            )


def _large_documents(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    for split in SPLITS:
        tokens = _count(manifest, f"{split}_tokens")
        documents = _count(manifest, f"{split}_documents")
        largest = counts.get(f"{split}_largest_document_tokens", 0)
        if largest > LARGE_SHARE * tokens and largest * documents > LARGE_FACTOR * tokens:
            yield (
                f"one of {documents:,} documents has {largest / tokens:.0%} of the tokens of split "
                f"{split} (data.split_documents cuts long documents)"
            )


def _heldout_share(manifest: Manifest) -> Iterator[str]:
    fraction = manifest.settings["data"]["validation_fraction"]
    heldout = _count(manifest, "validation_tokens")
    tokens = heldout + _count(manifest, "train_tokens")
    if not fraction or not tokens:
        return
    share = heldout / tokens
    if not fraction / FACTOR <= share <= fraction * FACTOR:
        yield (
            f"held-out documents have {share:.1%} of the tokens, where data.validation_fraction is "
            f"{fraction:.1%} of the documents"
        )


def _missing_scripts(manifest: Manifest) -> Iterator[str]:
    scripts = manifest.scripts
    if not manifest.split("validation") or not scripts:
        return
    for split, other in (("train", "validation"), ("validation", "train")):
        shares, other_shares = _shares(scripts[split]), _shares(scripts[other])
        for script, share in shares.items():
            if share < MIN_SCRIPT_SHARE or other_shares.get(script, 0) > MISSING * share:
                continue
            yield (
                f"{script} letters are {share:.1%} of split {split} and "
                f"{other_shares.get(script, 0):.1%} of split {other}, so held-out losses "
                f"{_consequence(split)}; languages of one script are not told apart here"
            )


def _consequence(split: str) -> str:
    return (
        "do not tell how well they are learned" if split == "train" else "are partly of other text"
    )


def _shares(counts: dict[str, int]) -> dict[str, float]:
    letters = sum(counts.values())
    return {script: count / letters for script, count in counts.items()}
