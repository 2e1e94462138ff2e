"""Pure computing: Fibonacci numbers, a matrix product, and the timing of a Fourier transform.

Plainly written: how slow a loop is belongs to the language that is looked at.
"""

from __future__ import annotations

import time
from operator import mul

from fft import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Matrix = list[list[float]]


def random_numbers() -> Iterator[float]:
    """Numbers from 0 to 1, of a linear congruential generator with the same seed in every run.

    Not by `random`: importing it asks the kernel for entropy, for which a guest that has just
    booted may wait.
    """
    state = 1
    while True:
        state = (state * 1_664_525 + 1_013_904_223) & 0xFFFF_FFFF
        yield state / (1 << 32)


def fibonacci(n: int) -> int:
    """The nth Fibonacci number modulo 2^64 (the first two are 1), by n - 1 additions."""
    previous, current = 0, 1
    for _ in range(n - 1):
        previous, current = current, (previous + current) & 0xFFFF_FFFF_FFFF_FFFF
    return current


def fourier_transform_time(n: int) -> int:
    """Nanoseconds of the forward Fourier transform of a random complex vector of length n."""
    random = random_numbers()
    vector = [complex(next(random), next(random)) for _ in range(n)]
    transform = Transform(n)
    start = time.monotonic_ns()
    transform.forward(vector)
    return time.monotonic_ns() - start


def matrix_square_time(n: int) -> int:
    """Nanoseconds of squaring a random matrix with n rows and columns."""
    random = random_numbers()
    matrix = [[next(random) for _ in range(n)] for _ in range(n)]
    start = time.monotonic_ns()
    multiply(matrix, matrix)
    return time.monotonic_ns() - start


def multiply(a: Matrix, b: Matrix) -> Matrix:
    """The product of two square matrices, which are lists of rows."""
    columns = list(zip(*b))
    return [[sum(map(mul, row, column)) for column in columns] for row in a]
