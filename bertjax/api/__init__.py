"""The functions behind the verbs `prepare`, `train`, `finetune`, `evaluate` and `predict`.

Each composes rooms of lower floors that do not know one another: `finetune` imports a model of
another program, trains it, evaluates it and writes its report. `bertjax` offers them by name.
"""
