"""Tensors in files that PyTorch has pickled. No pickle is executed."""

import zipfile

import numpy as np
from etils import epath

from bertjax.errors import UserError, check, needs_extra, one_line
from bertjax.interop.checkpoints.opened_files import (
    check_float,
    check_local,
    check_size,
    current_names,
)
from bertjax.interop.checkpoints.tensor_mapping import Tensors


def open_torch(path: epath.Path) -> Tensors:
    with needs_extra("torch"):
        import torch
    check_local(path, "file")
    try:
        # Never plain unpickling: a pickle is a program. Zipped ones are mapped, older ones read.
        zipped = zipfile.is_zipfile(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except Exception as error:  # its unpickler raises any exception on damaged bytes
        raise UserError(
            f"{path}: found no whole file of PyTorch weights "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    check(
        isinstance(tensors, dict) and all(isinstance(key, str) for key in tensors),
        where=str(path),
        found=f"a {type(tensors).__name__}",
        expected="tensors by name",
    )
    for name, tensor in tensors.items():
        _check_torch_tensor(tensor, f"{path}: {name}")
    names = current_names(path, tensors)

    def read(name: str) -> np.ndarray:
        tensor = tensors[names[name]]
        check_float(str(tensor.dtype).removeprefix("torch."), str(path), name)
        # Detached: a saved `nn.Parameter` asks for gradients, and numpy refuses such.
        return tensor.detach().to(torch.float32).numpy()

    shapes = {new: tuple(tensors[old].shape) for new, old in names.items()}
    return Tensors(str(path), shapes, read, file_names=names)


def _check_torch_tensor(tensor: object, where: str) -> None:
    """Raise `UserError` for what is no dense tensor with all its numbers in the file."""
    import torch

    # A sparse tensor has no such array, and one of the device `meta` no numbers at all.
    dense = (
        isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
    )
    check(dense, where=where, found=f"a {type(tensor).__name__}", expected="a dense tensor")
    assert isinstance(tensor, torch.Tensor)
    # With strides of 0, a few bytes would become a tensor of terabytes.
    held = tensor.untyped_storage().nbytes()
    check_size(where, tensor.shape, tensor.element_size(), held)
