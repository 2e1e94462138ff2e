import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fibonacci, multiply, randomNumbers } from '../compute.js';
import { Transform } from '../fft.js';

test('Fibonacci numbers are known', () => {
    // The last is the first beyond 2^64, less 2^64.
    const known = [
        [1, 1n],
        [2, 1n],
        [3, 2n],
        [10, 55n],
        [94, 1_293_530_146_158_671_551n],
    ];
    for (const [n, value] of known) {
        assert.equal(fibonacci(n), value, `n = ${n}`);
    }
});

test('a product is the sum over rows and columns', () => {
    // Sizes around the tile's, and entries small enough for every sum to be exact.
    for (const n of [1, 2, 3, 127, 128, 129]) {
        const a = Float64Array.from({ length: n * n }, (_, i) => (i % 7) - 3);
        const b = Float64Array.from({ length: n * n }, (_, i) => (i % 11) - 5);
        const product = new Float64Array(n * n);
        multiply(a, b, product, n);
        for (let i = 0; i < n; i++) {
            for (let j = 0; j < n; j++) {
                let expected = 0;
                for (let k = 0; k < n; k++) {
                    expected += a[i * n + k] * b[k * n + j];
                }
                assert.equal(product[i * n + j], expected, `n = ${n}, row ${i}, column ${j}`);
            }
        }
    }
});

test('a transform agrees with the definition', () => {
    const random = randomNumbers();
    const lengths = [...Array(70).keys()].map((i) => i + 1).concat(1009, 1024, 1025);
    for (const n of lengths) {
        const real = Float64Array.from({ length: n }, () => random.next().value - 0.5);
        const imaginary = Float64Array.from({ length: n }, () => random.next().value - 0.5);
        const transform = new Transform(n);
        // Twice, since it keeps working memory.
        for (const round of ['first', 'second']) {
            const [re, im] = [real.slice(), imaginary.slice()];
            transform.forward(re, im);
            for (let k = 0; k < n; k++) {
                let [a, b] = [0, 0];
                for (let j = 0; j < n; j++) {
                    const angle = (-2 * Math.PI * ((j * k) % n)) / n;
                    a += real[j] * Math.cos(angle) - imaginary[j] * Math.sin(angle);
                    b += real[j] * Math.sin(angle) + imaginary[j] * Math.cos(angle);
                }
                const error = Math.hypot(re[k] - a, im[k] - b);
                assert.ok(error < 1e-11 * n, `n = ${n}, ${round} use, k = ${k}: off by ${error}`);
            }
        }
    }
});
