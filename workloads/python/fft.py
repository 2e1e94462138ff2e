"""The Fourier transform, which the standard library lacks."""

from __future__ import annotations

import cmath

TYPE_CHECKING = False
if TYPE_CHECKING:
    Vector = list[complex]


class Transform:
    """Computes the discrete Fourier transform X[k] = sum over j of x[j] exp(-2 pi i j k / n) for
    one length n.

    Powers of two are transformed by the radix-2 algorithm of Cooley and Tukey, all other lengths by
    Bluestein's: it turns the transform into a convolution, which is computed by transforms of a
    power of two of at least 2n-1.
    """

    def __init__(self, n: int) -> None:
        """Prepares all that does not depend on the vector."""
        is_power_of_two = n & (n - 1) == 0
        size = n if is_power_of_two else 1 << (2 * n - 2).bit_length()
        self._size = size
        # exp(-2 pi i j / size) for j below size/2.
        self._roots = [_unit(-j / size) for j in range(size // 2)]
        # exp(-pi i j^2 / n) for j below n. The angle repeats every 2n; reducing the square keeps it
        # exact.
        self._chirp: Vector = []
        # The transform of what the vector times the chirp is convolved with, divided by the size.
        self._filter: Vector = []
        if not is_power_of_two:
            self._chirp = [_unit(-(j * j % (2 * n)) / (2 * n)) for j in range(n)]
            side = [value.conjugate() / size for value in self._chirp]
            convolved = side + [0j] * (size - 2 * n + 1) + side[:0:-1]
            self._filter = _power_of_two(convolved, self._roots)

    def forward(self, vector: Vector) -> Vector:
        """The transform of a vector, whose length must be the planned one."""
        roots = self._roots
        if not self._chirp:
            return _power_of_two(vector, roots)
        chirped = [value * factor for value, factor in zip(vector, self._chirp)]
        chirped += [0j] * (self._size - len(vector))
        transformed = _power_of_two(chirped, roots)
        # The inverse transform is the conjugate of the forward transform of the conjugate.
        product = [(a * b).conjugate() for a, b in zip(transformed, self._filter)]
        convolution = _power_of_two(product, roots)
        return [value.conjugate() * factor for value, factor in zip(convolution, self._chirp)]


def _power_of_two(vector: Vector, roots: Vector) -> Vector:
    """The transform of a vector of the length that the roots are for."""
    if len(vector) == 1:
        return vector
    even = _power_of_two(vector[::2], roots[::2])
    odd = _power_of_two(vector[1::2], roots[::2])
    turned = [value * root for value, root in zip(odd, roots)]
    low = [a + b for a, b in zip(even, turned)]
    high = [a - b for a, b in zip(even, turned)]
    return low + high


def _unit(turns: float) -> complex:
    """The number of absolute value 1 at an angle given in turns."""
    return cmath.rect(1, 2 * cmath.pi * turns)
