"""File name and memory fields of an answer of `bertjax compile`, for code that only reads it."""

FILE = "compile.json"
MEMORY = {
    "parameters": "parameters",
    "optimizer": "optimizer",
    "batch": "batch",
    "activations": "activations and temporaries",
    "code": "program",
    "padding": "padding and outputs",
}
"""Label of each field of `memory.Memory` that is a part of the total."""
