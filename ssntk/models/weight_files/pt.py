"""The .pt files of PyTorch, read by PyTorch itself with `weights_only=True`, which runs nothing."""

import importlib
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ssntk.models.weight_files.gathered import Gathered, Refused, damaged
from ssntk.models.weight_files.zipped import members

# How the files that PyTorch wrote before 1.6 begin: a pickle of a certain number.
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
SAFE = {"torch", "collections", "numpy", "_codecs"}
INSTEAD = "save a state_dict, torch.save(net.state_dict(), path)"
# What a state_dict may hold besides tensors.
BUILTINS = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "complex", "bytearray")}
DEEPEST = 100


def check_pt(into: Gathered) -> None:
    """Raise `Refused` for what is known to be no weights. PyTorch need not be installed for this."""
    with into.file.open("rb") as stream:
        begins = stream.read(len(LEGACY))
    if begins == LEGACY:
        return
    if not begins.startswith(b"PK"):
        raise Refused(f"is no file that torch.save wrote: {INSTEAD}")
    with damaged(".pt file"), zipfile.ZipFile(into.file) as archive:
        held = members(into, archive)
        names = [one.filename for one in held]
        if any(name.split("/")[-1] == "constants.pkl" or "/code/" in name for name in names):
            raise Refused(f"is a TorchScript archive, which holds a program: load it by torch.jit.load, and {INSTEAD}")
        into.room((2 * sum(one.file_size for one in held),), np.uint8, "the whole of it")
        (pickle,) = [name for name in names if name.split("/")[-1] == "data.pkl"]
        _check_pickle(archive.read(pickle))


def _check_pickle(data: bytes) -> None:
    """Raise `Refused` if a pickle names what no state_dict needs. Its instructions are listed, and none is carried out."""
    for code, value, _ in pickletools.genops(data):
        if code.name in ("INST", "STACK_GLOBAL"):
            raise Refused(
                "holds a pickle of another protocol than 2, which torch.save has: save it without pickle_protocol="
            )
        if code.name == "GLOBAL":
            module, _, name = str(value).partition(" ")
            if module.partition(".")[0] not in SAFE and f"{module}.{name}" not in BUILTINS:
                raise Refused(f"holds a pickle that asks for {module}.{name}, which is not run: {INSTEAD}")


def read_pt(into: Gathered) -> None:
    """The tensors of a .pt file, with the names of the dicts they lie in, joined by a dot."""
    torch: Any = importlib.import_module("torch")
    with damaged(".pt file"):
        try:
            held = torch.load(into.file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise Refused(f"is damaged, or holds more than weights ({_said(error)}): {INSTEAD}") from error
        if isinstance(held, torch.Tensor):
            held = {"weight": held}
        _count(into, held)
        for name, tensor in _tensors(into, held, "", torch.Tensor):
            array = _array(into, name, tensor, torch)
            if array is not None:
                into.add(name, array)


def _said(error: Exception) -> str:
    """Why PyTorch does not read a file. Its advice to read it without `weights_only` is left out."""
    found = re.search(r"Unsupported .*?(?= was not|\. |\n|$)", str(error)) if "weights_only" in str(error) else None
    lines = [line for line in str(error).splitlines() if line.strip() and "eights" not in line]
    return (found.group() if found else (lines or [type(error).__name__])[0])[:200].strip()


def _parts(held: Any) -> Iterable[tuple[Any, Any]]:
    """The names and parts of a dict, the numbers and parts of a list, and nothing of anything else."""
    return held.items() if isinstance(held, Mapping) else enumerate(held) if isinstance(held, (list, tuple)) else ()


def _count(into: Gathered, held: Any) -> None:
    """Count the parts of all dicts and lists once, wherever they are named."""
    waiting, seen = [held], set()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            for _, part in _parts(one):
                into.see()
                waiting.append(part)
    into.again()


def _tensors(into: Gathered, held: Any, name: str, kind: type, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > DEEPEST:
        raise Refused(f"holds dicts more than {DEEPEST} deep")
    if isinstance(held, kind):
        yield name, held
        return
    for one, value in _parts(held):
        into.see()
        yield from _tensors(into, value, f"{name}.{one}" if name else str(one), kind, depth + 1)


def _array(into: Gathered, name: str, tensor: Any, torch: Any) -> np.ndarray | None:
    """A tensor as an array; `None` if NumPy has no such numbers, which is said."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        into.left_out.append(f"{name} (a tensor that is sparse, quantised or without data)")
        return None
    # A view may repeat one number any number of times.
    if tensor.numel() * tensor.element_size() > into.size:
        raise Refused(f"declares {tensor.numel() * tensor.element_size()} bytes for {name}, which cannot be in {into.size}")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype.is_floating_point and tensor.element_size() < 4 and tensor.dtype != torch.float16:
        tensor = tensor.float()
    into.room(tuple(tensor.shape), np.uint8, name)
    return np.array(tensor.contiguous().numpy())
