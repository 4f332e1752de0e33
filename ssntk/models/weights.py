"""Arrays of weights from the files in which networks are published."""

import importlib
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ssntk.errors import as_choice
from ssntk.files import legible
from ssntk.models.weight_files.flax import read_flax
from ssntk.models.weight_files.gathered import Gathered, Refused, damaged
from ssntk.models.weight_files.hdf5 import MAGIC, read_hdf5
from ssntk.models.weight_files.mat5 import read_mat5
from ssntk.models.weight_files.mat73 import read_mat73
from ssntk.models.weight_files.plain import read_npy, read_safetensors
from ssntk.models.weight_files.pt import LEGACY, check_pt, read_pt
from ssntk.models.weight_files.zipped import kind_of_archive, read_keras, read_npz
from ssntk.notices import warn

# The formats of the argument `format`.
FORMATS = ("npz", "npy", "safetensors", "mat", "h5", "keras", "msgpack", "pt")
READERS: dict[str, Callable[[Gathered], None]] = {
    "npz": read_npz,
    "npy": read_npy,
    "safetensors": read_safetensors,
    "mat5": read_mat5,
    "mat73": read_mat73,
    "h5": read_hdf5,
    "keras": read_keras,
    "msgpack": read_flax,
    "pt": read_pt,
}
# The libraries that formats need, with how to install each.
LIBRARIES = {
    "safetensors": ("safetensors", "install ssntk[weights]"),
    "mat73": ("h5py", "install ssntk[weights]"),
    "h5": ("h5py", "install ssntk[weights]"),
    "keras": ("h5py", "install ssntk[weights]"),
    "msgpack": ("msgpack", "install ssntk[weights]"),
    "pt": ("torch", "install it, or where it is, save the arrays by safetensors.torch.save_file or numpy.savez"),
}
# Some versions of MATLAB wrote another number than 7.3 for the same format.
MAT5, MAT73 = b"MATLAB 5.0 MAT-file", b"MATLAB 7."


def load_weights(path: Any, *, format: Any = None) -> dict[str, np.ndarray]:
    """The arrays of a file of weights, by their names. Nothing in the file is ever run: no pickle is read.

    | file | written by | names |
    |---|---|---|
    | .npz, .npy | `numpy.savez`; `numpy.save` | as they are; the one array of a .npy file is called weight |
    | .safetensors | safetensors | as they are |
    | .pt, .pth | `torch.save` of a state_dict | names of dicts in dicts are joined by a dot, "encoder.weight" |
    | .h5, .keras | Keras, h5py | names of groups are joined by /, "layers/gru/cell/vars/0" |
    | .msgpack | flax | names of dicts are joined by /, "params/cell/kernel" |
    | .mat | MATLAB, Octave, `scipy.io.savemat` | names of structs and their fields are joined by / |

    `.pt` needs PyTorch. `.safetensors`, `.h5`, `.keras`, `.msgpack` and the `.mat` files of MATLAB's version 7.3 need
    `ssntk[weights]`. The names of [`CTRNN.from_weights`][ssntk.CTRNN.from_weights] can be passed to it as they are, and
    those of PyTorch to [`from_torch`][].

    **Arguments:**

    - `path`: the file. Its format is told by its first bytes, whatever it is called.
    - `format`: the format, if it is not to be told: `"npz"`, `"npy"`, `"safetensors"`, `"mat"`, `"h5"`, `"keras"`,
      `"msgpack"` or `"pt"`.

    **Returns:** a dict from names to NumPy arrays, of the types that they have in the file; bfloat16 becomes float32.
    Shapes are those of the file: MATLAB's vectors stay (1, n) or (n, 1), and its sparse matrices become arrays.
    Text, `None` and Python's own numbers are left out. There is a warning that names cells and struct arrays of MATLAB, and
    sparse or quantised tensors of PyTorch, which are left out too.

    Raises `ValueError`, which names `path` and says what to do, if the file is none of these or is damaged, and if it
    holds no floating-point numbers, a pickle, objects of MATLAB, or links to other files. Also raises it, before anything is
    read, if the file declares more than it holds, or than fits into memory. Raises `ImportError` if a library is missing,
    and `OSError` if the file cannot be read.

    **Example:**

    ```python
    np.savez("weights.npz", weight=np.eye(2) / 2, bias=np.zeros(2))
    weights = ssntk.load_weights("weights.npz")
    print({name: array.shape for name, array in weights.items()})  # {'weight': (2, 2), 'bias': (2,)}
    network = ssntk.CTRNN.from_weights(**weights)
    ```
    """
    if format is not None:
        as_choice(format, "format", FORMATS)
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"path must be the path of a file, got {type(path).__name__}")
    file = pathlib.Path(path)
    if file.is_dir():
        raise ValueError(f"path must be a file of weights, got the folder {_shown(file)}: pass a file in it")
    try:
        arrays = numbers_of(file, format)
    except Refused as error:
        raise ValueError(f"path {_shown(file)} {error}") from error.__cause__
    if not any(array.dtype.kind in "fc" for array in arrays.values()):
        held = ", ".join(f"{name} of {array.dtype}" for name, array in list(arrays.items())[:6]) or "no arrays of numbers"
        raise ValueError(f"path {_shown(file)} holds no floating-point numbers: it holds {held}")
    return arrays


def numbers_of(file: pathlib.Path, format: str | None = None) -> dict[str, np.ndarray]:
    """The numeric arrays of a file, as `load_weights` describes, of any type. Raises `Refused` instead of `ValueError`."""
    # A pipe or a device may never end.
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise Refused("is no file that holds something: pass a plain file")
    into = Gathered(file)
    kind = _kind(into, format)
    if kind == "pt":
        check_pt(into)
    _need(kind)
    with warnings.catch_warnings():
        # Libraries warn of what is refused here in a sentence, or is none of the user's concern.
        warnings.simplefilter("ignore")
        READERS[kind](into)
    if into.left_out:
        warn(f"path {_shown(file)} holds {', '.join(into.left_out[:20])}: left out, since these are no arrays of numbers")
    return into.arrays


def _shown(path: Any) -> str:
    return legible(str(path))


def _need(kind: str) -> None:
    """Raise `ImportError`, which says what to install, if the library of a format is missing."""
    if kind in LIBRARIES:
        library, how = LIBRARIES[kind]
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise ImportError(f"ssntk.load_weights needs {library} for such files: {how}") from error


def _kind(into: Gathered, format: str | None) -> str:
    """The name of the reader of a file, by its first bytes or by `format`."""
    with into.file.open("rb") as stream:
        begins = stream.read(32)
    if not begins:
        raise Refused("is empty")
    if format == "mat":
        return "mat73" if begins.startswith(MAT73) or _hdf5(into) else "mat5"
    if format is not None:
        return format
    if begins.startswith(b"\x93NUMPY"):
        return "npy"
    for magic, kind in ((MAT5, "mat5"), (MAT73, "mat73"), (LEGACY, "pt")):
        if begins.startswith(magic):
            return kind
    if begins.startswith(b"PK"):
        return _archive(into)
    if _pickle(begins):
        raise Refused(
            "is a pickle, which can run anything when it is read: load it where you trust it, and save its arrays by "
            "numpy.savez"
        )
    mapped = 0x80 <= begins[0] <= 0x8F or begins[0] in (0xDE, 0xDF)
    if begins[8:9] == b"{" and not (mapped and int.from_bytes(begins[:8], "little") > into.size):
        return "safetensors"
    if _hdf5(into):
        return "h5"
    if mapped:
        return "msgpack"
    raise Refused(
        f"begins with {begins[:8]!r} and is no file of weights that is known here: save its arrays by numpy.savez, or "
        f"pass format=, one of {', '.join(FORMATS)}"
    )


def _pickle(begins: bytes) -> bool:
    """Whether a file begins as a pickle of protocol 2 or later does, which says its protocol first."""
    return begins[0] == 0x80 and len(begins) > 1 and 2 <= begins[1] <= 5


def _hdf5(into: Gathered) -> bool:
    """Whether HDF5 begins at byte 0, 512, 1024, 2048 and so on, as it may."""
    at = 0
    with into.file.open("rb") as stream:
        while at < into.size:
            stream.seek(at)
            if stream.read(len(MAGIC)) == MAGIC:
                return True
            at = 2 * at or 512
    return False


def _archive(into: Gathered) -> str:
    with damaged("zip archive"), zipfile.ZipFile(into.file) as archive:
        names = archive.namelist()
    kind = kind_of_archive(names)
    if kind is None:
        raise Refused(f"is an archive of {', '.join(names[:6])}, and holds no weights that are known here: unpack it first")
    return kind
