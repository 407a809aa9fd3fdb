"""The training noise: Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller in IEEE single precision.

An independent implementation of what docs/MATH.md defines, bit for bit: the counter is (block, row, epoch,
stream), the key the seed, and every operation is rounded to float32 in the written order.
"""

from __future__ import annotations

import numpy as np

REPARAMETERIZE = 1
CORRUPT = 6
PERMUTE = 7
PROBE = 8
PRIOR = 9
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF

F = np.float32
LOG_COEFFICIENTS = [
    F(c)
    for c in (
        7.0376836e-2,
        -1.151461e-1,
        1.1676999e-1,
        -1.2420141e-1,
        1.4249323e-1,
        -1.6668058e-1,
        2.0000715e-1,
        -2.4999994e-1,
        3.333333e-1,
    )
]


def philox(counter: tuple[int, int, int, int], key: int) -> tuple[int, int, int, int]:
    """Four words for a 128-bit counter and a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key & WORD, key >> 32
    for _ in range(10):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & WORD, (p0 >> 32) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def log(u: np.float32) -> np.float32:
    """Natural logarithm of u in (0, 1]: the polynomial of Cephes' `logf`."""
    mantissa, exponent = np.frexp(u)
    exponent = int(exponent)
    if mantissa < F(0.70710678):
        exponent -= 1
        mantissa = mantissa + mantissa
    x = F(mantissa) - F(1)
    z = x * x
    p = LOG_COEFFICIENTS[0]
    for c in LOG_COEFFICIENTS[1:]:
        p = p * x + c
    e = F(exponent)
    y = p * x * z - F(2.1219444e-4) * e - F(0.5) * z
    return x + y + F(0.6933594) * e


def normal_pair(radius: int, angle: int) -> tuple[np.float32, np.float32]:
    """Two standard normal variates from two words."""
    u = (F(radius >> 9) + F(0.5)) * F(1 / 8388608)
    r = np.sqrt(F(-2) * log(u))
    position = ((angle << 2) & WORD) >> 8
    t = (F(position) * F(1 / 16777216) - F(0.5)) * F(np.pi / 2)
    z = t * t
    sin = ((F(-1.9515296e-4) * z + F(8.332161e-3)) * z - F(1.6666655e-1)) * z * t + t
    cos = ((F(2.4433157e-5) * z - F(1.3887316e-3)) * z + F(4.1666646e-2)) * z * z - F(0.5) * z + F(1)
    x, y = [(cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos)][angle >> 30]
    return r * x, r * y


def normal(seed: int, epoch: int, rows: int, width: int, stream: int = REPARAMETERIZE) -> np.ndarray:
    """Normal numbers of rows 0..rows in `epoch`, [rows, width]; element j comes from block j / 4."""
    out = np.empty((rows, width), np.float32)
    for row in range(rows):
        for block in range(-(-width // 4)):
            a, b, c, d = philox((block, row, epoch, stream), seed)
            values = (*normal_pair(a, b), *normal_pair(c, d))
            piece = out[row, 4 * block : 4 * block + 4]
            piece[:] = values[: len(piece)]
    return out


def words(seed: int, epoch: int, rows: int, units: list[int], stream: int) -> np.ndarray:
    """The word of each unit of rows 0..rows, [rows, len(units)]: word u mod 4 of block u / 4."""
    return np.array(
        [[philox((u // 4, row, epoch, stream), seed)[u % 4] for u in units] for row in range(rows)], np.uint64
    )


def marks(seed: int, epoch: int, rows: int, units: list[int], share: float) -> np.ndarray:
    """Whether each unit is corrupted: the upper 24 bits of its word are below `share` of 2^24."""
    return words(seed, epoch, rows, units, CORRUPT) >> np.uint64(8) < round(share * 2**24)


def donors(seed: int, epoch: int, rows: int, units: list[int]) -> np.ndarray:
    """The row that each permuted unit is taken from."""
    return (words(seed, epoch, rows, units, PERMUTE) * np.uint64(rows) >> np.uint64(32)).astype(np.int64)


def moves(seed: int, epoch: int, rows: int, distance: int) -> list[tuple[int, int]]:
    """Pixels down and to the right by which each row moves if it does: a place of the square but its middle."""
    side = 2 * distance + 1
    places = [place for place in range(side * side) if place != side * side // 2]
    picked = words(seed, epoch, rows, [0], PERMUTE)[:, 0] * np.uint64(len(places)) >> np.uint64(32)
    return [(places[i] // side - distance, places[i] % side - distance) for i in picked.astype(int)]


def signs(seed: int, epoch: int, rows: int, width: int) -> np.ndarray:
    """Random signs, [rows, width]: -1 where the highest bit of the word is set."""
    return 1.0 - 2.0 * (words(seed, epoch, rows, list(range(width)), PROBE) >> np.uint64(31)).astype(np.float64)


def self_check() -> None:
    """The published vectors of the Random123 distribution."""
    assert philox((0, 0, 0, 0), 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox((WORD,) * 4, (1 << 64) - 1) == (0x408F276D, 0x41C8_3B0E, 0xA20BC7C6, 0x6D5451FD)
