// Pure computing: Fibonacci numbers, a matrix product, and the timing of a Fourier transform.

import { Transform } from './fft.js';

/**
 * Side of the square of `b` in `multiply` that stays in a cache of 256 KiB while all rows of `a`
 * pass by.
 */
const TILE = 128;

/**
 * Numbers from 0 to 1, of a linear congruential generator with the same seed in every run: no run
 * waits for the entropy of a guest that has just booted. `Math.random` can't be seeded.
 */
export function* randomNumbers() {
    let state = 1;
    for (;;) {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        yield state / 2 ** 32;
    }
}

/**
 * The `n`th Fibonacci number modulo 2^64 (the first two are 1), by `n - 1` additions.
 *
 * V8 compiles this form, a sum that is cut to 64 bits before anything else is done with it, to one
 * addition of machine words. It allocates nothing, and is no slower than sums of two halves of 32
 * bits.
 */
export function fibonacci(n) {
    let previous = 0n;
    let current = 1n;
    for (let i = 1; i < n; i++) {
        const sum = BigInt.asUintN(64, previous + current);
        previous = current;
        current = sum;
    }
    return current;
}

/** Nanoseconds of the forward Fourier transform of a random complex vector of length `n`. */
export function fourierTransformTime(n) {
    const transform = new Transform(n);
    const real = new Float64Array(n);
    const imaginary = new Float64Array(n);
    const random = randomNumbers();
    for (let i = 0; i < n; i++) {
        real[i] = random.next().value;
        imaginary[i] = random.next().value;
    }
    const start = process.hrtime.bigint();
    transform.forward(real, imaginary);
    return process.hrtime.bigint() - start;
}

/** Nanoseconds of squaring a random matrix with `n` rows and columns. */
export function matrixSquareTime(n) {
    const matrix = new Float64Array(n * n);
    const random = randomNumbers();
    for (let i = 0; i < n * n; i++) {
        matrix[i] = random.next().value;
    }
    // Written so that the multiplication takes no page faults.
    const square = new Float64Array(n * n).fill(0);
    const start = process.hrtime.bigint();
    multiply(matrix, matrix, square, n);
    return process.hrtime.bigint() - start;
}

/** Adds the product of the row-major `n` by `n` matrices `a` and `b` to `sum`. */
export function multiply(a, b, sum, n) {
    for (let firstK = 0; firstK < n; firstK += TILE) {
        const endK = Math.min(firstK + TILE, n);
        for (let firstJ = 0; firstJ < n; firstJ += TILE) {
            const endJ = Math.min(firstJ + TILE, n);
            for (let i = 0; i < n; i++) {
                const row = sum.subarray(i * n + firstJ, i * n + endJ);
                for (let k = firstK; k < endK; k++) {
                    const factor = a[i * n + k];
                    const start = k * n + firstJ;
                    for (let j = 0; j < row.length; j++) {
                        row[j] += factor * b[start + j];
                    }
                }
            }
        }
    }
}
