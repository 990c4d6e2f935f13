"""What may be given as an option: a number above zero, and a value for one tower or for both."""

import math
from numbers import Integral, Real


def check_positive(**numbers):
    """ValueError for the first of them that is no finite number above zero; a count must be whole."""
    for name, value in numbers.items():
        if not isinstance(value, Real) or not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}: give a number above zero")
        if name in ("steps", "samples", "batch_size", "shard") and not isinstance(value, Integral):
            raise ValueError(f"{name} is {value}: give a whole number")


def both(name, value, default=(None, None)):
    """An option as an (image, text) pair: one value serves both, None takes the default's own."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} is {value!r}: give one value, or a pair (image, text)")
    return tuple(own if given is None else given for given, own in zip(pair, default, strict=True))
