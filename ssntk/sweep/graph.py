"""The hash of parts that hold each other.

Each part is described by itself, and hashed after the parts that it holds. So it does not matter whether two equal parts are
one object. Only parts that refer to each other in a circle are numbered, in the order in which they are met.
"""

import functools
import hashlib
import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ssntk.nouns import AnyArray

PLAIN = (bool, int, float, complex, str, bytes)
# Wrappers that hold a function, call it, and compute the same.
AROUND = (type(jax.jit(len)), type(functools.lru_cache(len)), type(eqx.filter_jit(lambda: None)))


class Unordered(tuple):
    """Parts whose order does not matter."""


class Node:
    """One part: its description, and the parts that it holds."""

    def __init__(self):
        self.text, self.held = bytearray(), []
        self.unordered = False
        # Filled in while all parts are walked.
        self.below: list[Node] = []
        self.hash: bytes | None = None
        self.number, self.low, self.circle = -1, -1, -1

    def put(self, kind: str, data: bytes | str = b"") -> None:
        data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        self.text += f"{kind} {len(data)} ".encode() + data

    def add(self, value: Any) -> None:
        while type(value) in AROUND:
            value = value.__wrapped__
        if isinstance(value, np.generic):
            self.scalar(value)
        elif value is None or value is ... or type(value) in PLAIN:
            self.plain(value, type(value))
        elif type(value) in (np.ndarray, np.memmap) or isinstance(value, jax.Array):
            self.array(value)
        else:
            self.put("held")
            self.held.append(value)

    def many(self, kind: str, values: Any) -> None:
        values = tuple(values)
        self.put(kind, str(len(values)))
        for value in values:
            self.add(value)

    def plain(self, value: Any, kind: Any) -> None:
        if kind is str or kind is bytes:
            self.put(kind.__name__, value)
        elif kind is int:
            self.put("int", format(int(value), "x"))
        else:
            # Each number has exactly one shortest text that gives it back.
            self.put(kind.__name__, repr(kind(value)) if kind in PLAIN else repr(value))

    def scalar(self, value: np.generic) -> None:
        if isinstance(value, (np.bool_, np.float64, np.complex128, np.integer, np.str_, np.bytes_)):
            self.add(value.item())
        else:
            self.array(np.asarray(value))

    def array(self, value: AnyArray) -> None:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            self.put("key", str(jax.random.key_impl(value)))
            value = jax.random.key_data(value)
        value = np.asarray(value)
        if value.dtype.hasobject:
            self.many("objects", (value.shape, str(value.dtype), value.ravel().tolist()))
        elif value.dtype.names is not None:
            self.many("fields", (value.shape, [(name, value[name]) for name in value.dtype.names]))
        elif value.dtype.char in "gG":
            # Some of their bytes are padding and not part of the number.
            self.many("array", (value.dtype.name, value.shape, [repr(one) for one in value.ravel()]))
        else:
            value = value.astype(value.dtype.newbyteorder("="), copy=False)
            self.put("array", f"{dtype_name(value.dtype)} {value.shape} ".encode() + value.tobytes())


def dtype_name(value: np.dtype) -> str:
    # For times, the name says the unit. For structures, the text says the fields.
    return value.name if value.names is None else str(value)


def hashed(root: object, described: Callable[[object, Node], None]) -> bytes:
    """The hash of a structure. `described` writes the description of one part into its node.

    Parts are walked by Tarjan's algorithm. It finishes a part after all parts that it holds, and each circle as a whole.
    """
    nodes: dict[int, Node] = {}
    # Python may give the address of an object to another one once the first is gone, so all are kept alive.
    alive: list[object] = []

    def node_of(value: object) -> Node:
        if id(value) not in nodes:
            nodes[id(value)] = Node()
            alive.append(value)
            described(value, nodes[id(value)])
        return nodes[id(value)]

    top, count = Node(), 0
    top.add(root)
    path: list[tuple[Node, int]] = [(top, 0)]
    waiting: list[Node] = []
    while path:
        node, at = path.pop()
        if at == 0:
            node.number = node.low = count
            count += 1
            waiting.append(node)
        else:
            node.low = min(node.low, node.below[at - 1].low)
        for i in range(at, len(node.held)):
            below = node_of(node.held[i])
            node.below.append(below)
            if below.number < 0:
                path += [(node, i + 1), (below, 0)]
                break
            if below.circle < 0:
                node.low = min(node.low, below.number)
        else:
            if node.low == node.number:
                while True:
                    member = waiting.pop()
                    member.circle = node.number
                    # A finished part has no more influence on the parts that hold it.
                    member.low = sys.maxsize
                    if member is node:
                        break
    return _hash(top)


def _hash(top: Node) -> bytes:
    """The hash of a node, from the hashes of the nodes below. Each is computed once."""
    todo = [top]
    while todo:
        node = todo[-1]
        if node.hash is not None:
            todo.pop()
            continue
        members = _members(node)
        unknown = [one for member in members for one in member.below if one.circle != node.circle and one.hash is None]
        if unknown:
            todo += unknown
            continue
        numbers = {id(member): i for i, member in enumerate(members)}
        sha = hashlib.sha256()
        for member in members:
            parts = [
                below.hash or b"" if below.circle != node.circle else f"member {numbers[id(below)]}".encode()
                for below in _sorted(member)
            ]
            for part in (bytes(member.text), *(sorted(parts) if member.unordered else parts)):
                sha.update(f"{len(part)} ".encode() + part)
        node.hash = sha.digest()
        todo.pop()
    assert top.hash is not None
    return top.hash


def _members(node: Node) -> list[Node]:
    """The parts of a node's circle, in the order in which they are met from the node."""
    members, seen = [node], {id(node)}
    for member in members:
        for below in _sorted(member):
            if below.circle == node.circle and id(below) not in seen:
                seen.add(id(below))
                members.append(below)
    return members


def _sorted(node: Node) -> list[Node]:
    return sorted(node.below, key=lambda below: bytes(below.text)) if node.unordered else node.below
