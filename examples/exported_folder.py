"""What the programs beside this file share: ids of texts, and answers from a model's outputs.

A folder that `bertjax export` wrote has the tokenizer in `tokenizer.json`, its length and padding
in `tokenizer_config.json`, and the labels of a fine-tuned model in `task.json`. It needs the
packages `numpy` and `tokenizers`, nothing of bertjax.
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

SHOWN = 4  # numbers of a vector


def model_inputs(folder, texts):
    """Return input_ids, input_mask and segment_ids by name, int32 [texts, length] each."""
    settings = json.loads(Path(folder, "tokenizer_config.json").read_text())
    tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
    # A longer row is an error in an exported program.
    tokenizer.enable_truncation(settings["model_max_length"])
    pad = settings["pad_token"]
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    rows = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([row.ids for row in rows], np.int32),
        "input_mask": np.array([row.attention_mask for row in rows], np.int32),
        "segment_ids": np.array([row.type_ids for row in rows], np.int32),
    }


def print_answers(folder, texts, inputs, outputs):
    """Print a line for each text: its labels, or numbers of its vector where there is no task."""
    task_file = Path(folder, "task.json")
    task = json.loads(task_file.read_text()) if task_file.exists() else None
    for row, text in enumerate(texts):
        if task is None:
            tokens = inputs["input_mask"][row] > 0
            answer = vector_answer(np.asarray(outputs["hidden"])[row][tokens])
        else:
            answer = task_answer(task, np.asarray(outputs["logits"])[row])
        print(f"{answer}\t{text}")


def vector_answer(hidden):
    """Return the first numbers of a text's vector, the mean of its tokens' hidden states."""
    vector = hidden.mean(axis=0)
    return " ".join(f"{number:.4f}" for number in vector[:SHOWN])


def task_answer(task, logits):
    """Return the answer to one text in words; with logits of each token, to the whole row."""
    labels = task["labels"]
    if task["label_type"] == "number":
        return f"{logits[0]:.4f}"
    if task["label_type"] == "classes":
        probabilities = 1 / (1 + np.exp(-logits))
        chosen = [label for label, p in zip(labels, probabilities, strict=True) if p > 0.5]
        return ", ".join(chosen) or "none"
    if logits.ndim == 2:
        return " ".join(labels[i] for i in logits.argmax(axis=-1))
    # Less the largest one, so that no power overflows.
    powers = np.exp(logits - logits.max())
    best = int(logits.argmax())
    return f"{labels[best]} {powers[best] / powers.sum():.4f}"
