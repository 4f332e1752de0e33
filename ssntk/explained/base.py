"""Sentences about a result: a function of its class."""

import functools

from ssntk.results import short

# A number as it appears in a sentence.
say = functools.partial(short, digits=4)


@functools.singledispatch
def sentences(result: object) -> list[str]:
    """The sentences about a result; none if there are none for its class."""
    return []
