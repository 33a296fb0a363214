"""The functions behind the verbs `prepare`, `train`, `finetune`, `evaluate` and `predict`.

Each function combines packages that do not import one another: `finetune`, for example, imports a
model of other software, trains and evaluates it, and writes its report. All are available as
`bertjax.NAME`.
"""
