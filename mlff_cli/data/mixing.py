"""Seeded scrambling of integers: hashes, and permutations that are never written down.

A permutation of range(n) is a Feistel network on pairs (x, y) with z = x + a y, a b >= n:

    x <- x + F_1(y) mod a,    y <- y + F_2(x) mod b,    ... ,    all of it again while z >= n

(Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Any part of it is computed by
itself, in memory that does not depend on n. Small domains are sorted by hashes instead.
"""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
SMALL = 4096  # domains that are sorted; the network is not yet uniform on tiny ones
_ROUNDS = 3  # changes of both halves
_BLOCK = 1 << 15  # numbers permuted at a time, which fit into the processor's cache


def mix(x: np.ndarray) -> np.ndarray:
    """Scramble uint64 values (the finaliser of splitmix64); wraps around on purpose."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def key(*words: int | np.ndarray) -> np.ndarray:
    """A uint64 of some integers, array by array; the order of the words matters."""
    state = np.zeros(1, dtype="uint64")
    for word in words:
        state = mix(state * np.uint64(3) + mix(np.atleast_1d(word).astype("uint64") + GOLDEN))
    return state


def permuted(x: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Images of some numbers under random permutations of range(n).

    Args:
        x: (m,) integers in range(n).
        n: size of the domain.
        keys: uint64, (m,) or (1,): which permutation; equal keys name the same one.

    Returns:
        (m,) int64.
    """
    x = np.asarray(x)
    keys = np.broadcast_to(keys, x.shape)
    function = _sorted if n <= SMALL else _walked
    images = np.empty(len(x), dtype="int64")
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        images[part] = function(x[part], n, keys[part])
    return images


def _sorted(x: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Order of n hashes per key: every permutation is equally likely."""
    images = np.empty(len(x), dtype="int64")
    strange = mix(np.arange(n, dtype="uint64") + GOLDEN)
    unique, which = np.unique(keys, return_inverse=True)
    at_once = max(1, _BLOCK // n)
    for start in range(0, len(unique), at_once):
        order = np.argsort(mix(strange ^ unique[start : start + at_once, None]), axis=1)
        here = (which >= start) & (which < start + at_once)
        images[here] = order[which[here] - start, x[here]]
    return images


def _walked(x: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """The Feistel network, which needs halves of some size to be random."""
    bits = np.uint64(n.bit_length() // 2)
    low_mask, b = (np.uint64(1) << bits) - np.uint64(1), np.uint64(-(-n // (1 << int(bits))))
    half = np.uint64(32)
    images = x.astype("uint64")
    walking = np.arange(len(images))
    while len(walking):
        low, high = images[walking] & low_mask, images[walking] >> bits
        salt = keys[walking]
        for _ in range(_ROUNDS):
            low = (low + mix(high ^ salt)) & low_mask
            salt = salt + GOLDEN
            high = high + ((mix(low ^ salt) >> half) * b >> half)
            high -= b * (high >= b)
            salt = salt + GOLDEN
        images[walking] = low | high << bits
        walking = walking[images[walking] >= n]
    return images.astype("int64")
