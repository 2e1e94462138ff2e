from __future__ import annotations

import cmath
import unittest

from compute import fibonacci, multiply, random_numbers
from fft import Transform


class FibonacciTest(unittest.TestCase):
    def test_numbers_are_known(self) -> None:
        # The last is the first beyond 2^64, less 2^64.
        known = {1: 1, 2: 1, 3: 2, 10: 55, 94: 1_293_530_146_158_671_551}
        for n, value in known.items():
            self.assertEqual(fibonacci(n), value, n)


class MatrixTest(unittest.TestCase):
    def test_product_is_sum_over_rows_and_columns(self) -> None:
        for n in (1, 2, 3, 20):
            # Small enough for every sum to be exact.
            a = [[float((i * n + j) % 7 - 3) for j in range(n)] for i in range(n)]
            b = [[float((i * n + j) % 11 - 5) for j in range(n)] for i in range(n)]
            expected = [
                [sum(a[i][k] * b[k][j] for k in range(n)) for j in range(n)] for i in range(n)
            ]
            self.assertEqual(multiply(a, b), expected)


class TransformTest(unittest.TestCase):
    def test_agrees_with_definition(self) -> None:
        random = random_numbers()
        for n in (*range(1, 71), 509, 512, 513):
            vector = [complex(next(random) - 0.5, next(random) - 0.5) for _ in range(n)]
            roots = [cmath.rect(1, -2 * cmath.pi * j / n) for j in range(n)]
            result = Transform(n).forward(vector)
            self.assertEqual(len(result), n)
            for k, value in enumerate(result):
                expected = sum(x * roots[j * k % n] for j, x in enumerate(vector))
                self.assertLess(abs(value - expected), 1e-11 * n, (n, k))


if __name__ == "__main__":
    unittest.main()
