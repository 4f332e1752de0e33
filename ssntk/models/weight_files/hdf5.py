"""Arrays of HDF5 files, such as Keras's. What an HDF5 file says of other files is never followed."""

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssntk.models.weight_files.gathered import SHRINKS, Gathered, Refused, damaged, is_numeric

MAGIC = b"\x89HDF\r\n\x1a\n"
DEEPEST = 100


def read_hdf5(into: Gathered, source: Any = None, size: int | None = None) -> None:
    """All numeric arrays of an HDF5 file, with the names of their groups, joined by /. `source`: the file, or its bytes."""
    import h5py

    with damaged("HDF5 file"), h5py.File(into.file if source is None else source, "r") as held:
        stay_inside(into, held)
        for name, dataset in datasets(into, held):
            array = read_dataset(into, name, dataset, into.size if size is None else size)
            if array is not None:
                into.add(name, array)


def stay_inside(into: Gathered, held: Any) -> None:
    """Raise `Refused` if any link leads out of the file. Only links that cannot do so are followed meanwhile."""
    import h5py

    waiting, seen = [held], set()
    while waiting:
        group = waiting.pop()
        # Identifiers of one object are equal, whichever link led to it.
        if group.id in seen:
            continue
        seen.add(group.id)
        for name in group:
            into.see()
            try:
                link = group.get(name, getlink=True)
            except TypeError as error:
                raise Refused(f"holds the link {group.name}/{name} of an unknown kind: copy what it leads to") from error
            if isinstance(link, h5py.ExternalLink):
                where = f"{_joined(group.name, name)} in {link.filename}"
                raise Refused(f"holds a link to another file, {where}: copy the arrays into one file")
            # Opening a dataset opens no other file, whatever it says of its storage.
            below = group.get(name) if isinstance(link, h5py.HardLink) else None
            if isinstance(below, h5py.Group):
                waiting.append(below)
    into.again()


def datasets(into: Gathered, group: Any, name: str = "", inside: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The datasets below a group, by their names. A link back to a group that this one lies in adds nothing."""
    import h5py

    inside = (*inside, group.id)
    if len(inside) > DEEPEST:
        raise Refused(f"holds groups more than {DEEPEST} deep")
    for one in group:
        into.see()
        below = _joined(name, one)
        # A soft link may lead to nothing.
        found = group.get(one)
        if isinstance(found, h5py.Dataset):
            yield below, found
        elif isinstance(found, h5py.Group) and found.id not in inside:
            yield from datasets(into, found, below, inside)


def _joined(group: str, name: str) -> str:
    return f"{group.strip('/')}/{name}".lstrip("/")


def read_dataset(into: Gathered, name: str, dataset: Any, size: int) -> np.ndarray | None:
    """The numbers of a dataset; `None` if it holds none. Its storage is looked at before its shape is asked for."""
    import h5py

    made = dataset.id.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL:
        raise Refused(f"holds {name} as a view of other files: copy the arrays into one file")
    if made.get_external_count():
        raise Refused(f"holds {name} outside, in {made.get_external(0)[0]!r}: copy the arrays into one file")
    shape, dtype = dataset.shape, dataset.dtype
    if shape is None or dtype.subdtype is not None or not is_numeric(dtype):
        return None
    into.room(shape, dtype, name)
    check_storage(name, dataset, made, shape, dtype, size)
    return read_numbers(name, dataset, made)


def check_storage(name: str, dataset: Any, made: Any, shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    """Raise `Refused` if a dataset declares more numbers than lie in the file."""
    import h5py

    asked, stored = math.prod(shape) * dtype.itemsize, dataset.id.get_storage_size()
    # Numbers may be stored with fewer bytes than they have in memory, but not with fewer than one in eight.
    most = stored * (SHRINKS if made.get_nfilters() else 8)
    whole = stored <= size and asked <= most
    if whole and asked and made.get_layout() == h5py.h5d.CHUNKED:
        chunks = math.prod(-(-length // chunk) for length, chunk in zip(shape, made.get_chunk(), strict=True))
        whole = dataset.id.get_num_chunks() >= chunks
    if not whole:
        raise Refused(f"declares {asked} bytes for {name} and holds {min(stored, size)}")


def read_numbers(name: str, dataset: Any, made: Any) -> np.ndarray:
    """The array of a dataset. What is compressed in it is unpacked here: HDF5 itself may crash at damaged chunks."""
    import h5py

    if not made.get_nfilters():
        return np.asarray(dataset[()])
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if not set(filters) <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE} or made.get_layout() != h5py.h5d.CHUNKED:
        raise Refused(f"holds {name} in a compression that is not read here: save it with gzip, or without")
    if dataset.id.get_type() != h5py.h5t.py_create(dataset.dtype):
        raise Refused(f"holds {name} in numbers of a form of their own: save it as float32")
    array, chunk, found = np.zeros(dataset.shape, dataset.dtype), made.get_chunk(), []
    dataset.id.chunk_iter(lambda one: found.append(one))
    for one in found:
        if one.size > dataset.id.get_storage_size():
            raise Refused(f"is damaged: a part of {name} declares {one.size} bytes")
        mask, data = dataset.id.read_direct_chunk(one.chunk_offset)
        for i, code in reversed(list(enumerate(filters))):
            if not mask >> i & 1:
                data = _unfiltered(data, code == h5py.h5z.FILTER_DEFLATE, math.prod(chunk), dataset.dtype.itemsize)
        part = np.frombuffer(data, dataset.dtype).reshape(chunk)
        # Chunks at the edges are whole too, and stand out.
        inside = [slice(at, at + length) for at, length in zip(one.chunk_offset, chunk, strict=True)]
        target = array[tuple(inside)]
        target[...] = part[tuple(slice(length) for length in target.shape)]
    return array


def _unfiltered(data: bytes, deflated: bool, count: int, each: int) -> bytes:
    """The bytes of a chunk before they were compressed, or before those of a kind were put together."""
    if deflated:
        packer = zlib.decompressobj()
        data = packer.decompress(data, count * each + 1)
        if not packer.eof:
            raise Refused("is damaged: what is compressed in it ends too early, or is longer than it declares")
    if len(data) != count * each:
        raise Refused(f"is damaged: a part of {count * each} bytes holds {len(data)}")
    return data if deflated else np.frombuffer(data, np.uint8).reshape(each, count).T.tobytes()
