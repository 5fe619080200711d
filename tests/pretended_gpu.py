"""A pretended GPU: its tensors are computed on the processor, but mixing them with others is an error, as on CUDA.

Without a GPU at hand, a tensor left on the wrong device shows up first in somebody's Colab. Under `pretended_gpu()`
`torch.cuda.is_available()` is true, `.to("cuda")` marks a copy, and what is computed from marked tensors is marked.
Known of CUDA's rules: the tensors of one operation lie on one device, but for those of no dimension (numbers), for the
source of a copy, and for the index of a tensor on the GPU; numpy takes none of its tensors; a generator of the
processor draws none. Speed, memory and kernels that CUDA lacks are not pretended.

python tests/pretended_gpu.py NOTEBOOK ... runs notebooks so, without changing them; it exits at the first error.
"""

import contextlib
import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}
COPIES = {Tensor.copy_, Tensor.__setitem__}  # may read from another device
OF_THE_PROCESSOR = {Tensor.numpy, Tensor.__array__}
NO_OPERATION = {"__set__", "_make_subclass", "_has_compatible_shallow_copy_type", "untyped_storage", "size", "dim"}


def on_gpu(x):
    """True if a tensor is marked; views share their storage, and so its mark."""
    with torch._C.DisableTorchFunction():
        return getattr(x.untyped_storage(), "on_gpu", False)


def marked(result):
    """`result` of an operation on the pretended GPU, its tensors marked."""
    for x in tensors(result):
        with torch._C.DisableTorchFunction():
            x.untyped_storage().on_gpu = True
    return result


def tensors(nest):
    """The tensors of a nest of lists, tuples and dicts, one by one."""
    if isinstance(nest, Tensor):
        yield nest
    elif isinstance(nest, list | tuple | dict):
        for part in nest.values() if isinstance(nest, dict) else nest:
            yield from tensors(part)


def moved(x, target, dtype, options):
    """`x.to(...)`: a copy if the device changes, so that the mark of one is not that of the other."""
    before = on_gpu(x)
    result = x.to(dtype or x.dtype, **options)
    if target not in (None, before) and result.data_ptr() == x.data_ptr():
        result = result.clone()
    return marked(result) if (before if target is None else target) else result


class Pretence(TorchFunctionMode):
    """Sees every call of torch from Python."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", str(func))
        if func == Tensor.device.__get__:
            return GPU if on_gpu(args[0]) else func(*args)
        if func == Tensor.grad.__get__:
            gradient = func(*args)
            return marked(gradient) if gradient is not None and on_gpu(args[0]) else gradient
        if func in MOVES:
            wanted = [*args[1:], kwargs.pop("device", None)]
            target = {Tensor.cpu: False, Tensor.cuda: True}.get(func)
            for value in wanted:
                if isinstance(value, str | torch.device):
                    target = torch.device(value).type == "cuda"
                elif isinstance(value, Tensor):
                    target = on_gpu(value)
                    wanted.append(value.dtype)
            kinds = [value for value in [*wanted, kwargs.pop("dtype", None)] if isinstance(value, torch.dtype)]
            return moved(args[0], target, kinds[0] if kinds else None,
                         {k: v for k, v in kwargs.items() if k == "memory_format"})
        if name == "__deepcopy__":  # its memo holds tensors of both
            return marked(func(*args)) if on_gpu(args[0]) else func(*args)
        if name in NO_OPERATION:
            return func(*args, **kwargs)
        given = list(tensors([args, kwargs]))
        there = [on_gpu(x) for x in given]
        gpu = any(there)
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type != "meta":
            gpu, kwargs["device"] = torch.device(kwargs["device"]).type == "cuda", "cpu"
        if gpu and func in OF_THE_PROCESSOR:
            raise TypeError(f"{name}: a tensor on the pretended GPU; .cpu() first")
        if gpu and isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError(f"{name}: a generator of the processor, and a tensor on the pretended GPU")
        astray = [x for x, is_there in zip(given, there, strict=True) if x.dim() and not is_there]
        if any(there) and astray and func not in COPIES and not (func == Tensor.__getitem__ and there[0]):
            raise RuntimeError(f"{name}: tensors on two devices, astray {[tuple(x.shape) for x in astray]}")
        result = func(*args, **kwargs)
        return marked(result) if gpu and func not in COPIES else result


@contextlib.contextmanager
def pretended_gpu():
    """Within it, this machine says that it has a GPU."""
    with mock.patch("torch.cuda.is_available", return_value=True), \
            mock.patch("torch.cuda.is_bf16_supported", return_value=True), \
            mock.patch("torch.cuda.is_current_stream_capturing", return_value=False), \
            mock.patch("torch.optim.Optimizer._accelerator_graph_capture_health_check", create=True), \
            Pretence():
        yield


def run_notebook(path):
    """Run the code cells of a notebook on the pretended GPU, in its folder; exits with the error of a cell."""
    import matplotlib.pyplot as plt
    from IPython.core.interactiveshell import InteractiveShell

    path = Path(path).resolve()
    os.chdir(path.parent)
    sys.path.insert(0, str(path.parent))
    shell = InteractiveShell()
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    with pretended_gpu():
        for number, cell in enumerate(cells, 1):
            result = shell.run_cell("".join(cell["source"]))
            plt.close("all")
            if not result.success:
                sys.exit(f"{path.name}: code cell {number} of {len(cells)} failed on the pretended GPU")
    print(f"{path.name}: all {len(cells)} code cells ran on the pretended GPU")


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "Agg"
    for notebook in sys.argv[1:]:
        run_notebook(notebook)
