"""Digests of the examples of tasks, by which a run that goes on knows its data again."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from bertjax.finetuning.evaluate import Split
from bertjax.tasks.task import EncodedExamples


def training_digest(train: Mapping[str, EncodedExamples]) -> str:
    """Return the SHA-256 of all training rows with their targets, hexadecimal; rows are by task."""
    digest = hashlib.sha256()
    # By name, as batches are drawn: the order of `finetune.tasks` changes no batch.
    for name, encoded in sorted(train.items()):
        digest.update(name.encode())
        _add(digest, encoded)
    return digest.hexdigest()


def validation_digests(splits: Iterable[Split]) -> dict[str, str]:
    """Return the SHA-256 of the rows of each validation set with their targets, by its name."""
    digests = {}
    for split in splits:
        digest = hashlib.sha256()
        _add(digest, split.encoded)
        digests[" ".join(["validation of", split.task, split.name]).strip()] = digest.hexdigest()
    return digests


def _add(digest: "hashlib._Hash", encoded: EncodedExamples) -> None:
    arrays = [encoded.ids, encoded.offsets]
    arrays += [*encoded.targets.values(), *encoded.token_targets.values()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
