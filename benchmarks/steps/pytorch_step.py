"""Training step of `transformers` in PyTorch, for `benchmarks/step.py`: SDPA and fused AdamW."""

from contextlib import nullcontext

import numpy as np
import torch
import transformers
from pytorch_families import MODELS
from pytorch_families import loss_of as family_loss
from torch import nn
from transformers import BertConfig, BertForPreTraining
from worker import Job, Step, serve


def bert(job: Job) -> nn.Module:
    config = BertConfig(
        **job["model"],
        max_position_embeddings=max(512, job["length"]),
        attn_implementation="sdpa",
    )
    return BertForPreTraining(config)


def make(job: Job) -> Step:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    is_bert = job["family"] == "bert"
    model = bert(job) if is_bert else MODELS[job["family"]](job["model"])
    model = model.to(device).train()
    # Not biases and the scales of norms.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, eps=1e-6, fused=True)
    given = np.load(job["batch"])
    batch = {
        "input_ids": given["input_ids"],
        "attention_mask": given["input_mask"],
        "token_type_ids": given["segment_ids"],
        "labels": given["labels"],
        "next_sentence_label": given["next_sentence_labels"],
    }
    tensors = {name: torch.from_numpy(values).long().to(device) for name, values in batch.items()}
    half = job["dtype"] == "bfloat16"

    def loss_of() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            return model(**tensors).loss if is_bert else family_loss(model, tensors)

    forward = torch.compile(loss_of) if job["compiled"] else loss_of

    def run(count: int) -> float:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss = forward()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return loss.item()

    peak = torch.cuda.max_memory_allocated if device == "cuda" else lambda: None
    return Step(
        run, peak, {"with": f"torch {torch.__version__}, transformers {transformers.__version__}"}
    )


if __name__ == "__main__":
    serve(make)
