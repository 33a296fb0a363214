"""Run an exported model in `transformers`, by PyTorch.

    bertjax export runs/topics --to exported
    pip install transformers torch
    python examples/run_transformers.py exported "A first text." "A second one."

It prints the label of each text and its probability. Of a model that is not fine-tuned it prints
the first numbers of each text's vector.
"""

import sys

import torch
import transformers
from exported_folder import task_answer, vector_answer

# `problem_type` in config.json, and what `task.json` beside an exported program calls it.
LABEL_TYPES = {"regression": "number", "multi_label_classification": "classes"}


def main(folder, texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    # The class that the export names, such as BertForSequenceClassification.
    model_class = getattr(transformers, config.architectures[0])
    model = model_class.from_pretrained(folder).eval()
    inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    has_task = "logits" in outputs and "id2label" in config.to_diff_dict()
    labels = [config.id2label[i] for i in sorted(config.id2label)]
    kind = LABEL_TYPES.get(config.problem_type, "class")
    for row, text in enumerate(texts):
        if has_task:
            task = {"labels": labels, "label_type": kind}
            answer = task_answer(task, outputs.logits[row].numpy())
        else:
            tokens = inputs["attention_mask"][row].bool()
            answer = vector_answer(outputs.hidden_states[-1][row][tokens].numpy())
        print(f"{answer}\t{text}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
