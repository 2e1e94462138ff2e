// The Fourier transform, which the standard library lacks.

/**
 * Computes the discrete Fourier transform X[k] = sum over j of x[j] exp(-2 pi i j k / n) for one
 * length n.
 *
 * Powers of two are transformed by the radix-2 algorithm of Cooley and Tukey, all other lengths by
 * Bluestein's: it turns the transform into a convolution, which is computed by transforms of a
 * power of two of at least 2n-1. Complex vectors are pairs of arrays.
 */
export class Transform {
    /** Prepares all that does not depend on the vector. */
    constructor(n) {
        this.n = n;
        this.size = 1;
        const isPowerOfTwo = (n & (n - 1)) === 0;
        while (this.size < (isPowerOfTwo ? n : 2 * n - 1)) {
            this.size *= 2;
        }
        // exp(-2 pi i j / size) for j below size/2.
        this.roots = newVector(this.size / 2);
        for (let j = 0; j < this.size / 2; j++) {
            setUnit(this.roots, j, -j / this.size);
        }
        if (!isPowerOfTwo) {
            this.#prepareConvolution();
        }
    }

    #prepareConvolution() {
        const { n, size } = this;
        // exp(-pi i j^2 / n) for j below n.
        this.chirp = newVector(n);
        // The transform of what the vector times the chirp is convolved with, divided by the size.
        this.filter = newVector(size);
        const { chirp, filter } = this;
        for (let j = 0; j < n; j++) {
            // The angle repeats every 2n; reducing the square keeps it exact.
            setUnit(chirp, j, -((j * j) % (2 * n)) / (2 * n));
            const mirrored = (size - j) % size;
            filter.real[j] = filter.real[mirrored] = chirp.real[j] / size;
            filter.imaginary[j] = filter.imaginary[mirrored] = -chirp.imaginary[j] / size;
        }
        powerOfTwo(filter.real, filter.imaginary, this.roots);
        // Where the convolution takes place. Written so that the transform takes no page faults.
        this.padded = { real: filter.real.slice(), imaginary: filter.imaginary.slice() };
    }

    /** Transforms the vector, whose length must be the planned one, in place. */
    forward(real, imaginary) {
        if (this.chirp === undefined) {
            powerOfTwo(real, imaginary, this.roots);
            return;
        }
        const { n, size, chirp, filter, padded, roots } = this;
        for (let j = 0; j < n; j++) {
            padded.real[j] = real[j] * chirp.real[j] - imaginary[j] * chirp.imaginary[j];
            padded.imaginary[j] = real[j] * chirp.imaginary[j] + imaginary[j] * chirp.real[j];
        }
        padded.real.fill(0, n);
        padded.imaginary.fill(0, n);
        powerOfTwo(padded.real, padded.imaginary, roots);
        // The inverse transform is the conjugate of the forward transform of the conjugate.
        for (let j = 0; j < size; j++) {
            const a = padded.real[j];
            const b = padded.imaginary[j];
            padded.real[j] = a * filter.real[j] - b * filter.imaginary[j];
            padded.imaginary[j] = -(a * filter.imaginary[j] + b * filter.real[j]);
        }
        powerOfTwo(padded.real, padded.imaginary, roots);
        for (let j = 0; j < n; j++) {
            const a = padded.real[j];
            const b = -padded.imaginary[j];
            real[j] = a * chirp.real[j] - b * chirp.imaginary[j];
            imaginary[j] = a * chirp.imaginary[j] + b * chirp.real[j];
        }
    }
}

/** Transforms a vector of the length that the roots are for, in place. */
function powerOfTwo(real, imaginary, roots) {
    const n = real.length;
    reverseBits(real);
    reverseBits(imaginary);
    for (let half = 1; half < n; half *= 2) {
        const stride = n / (2 * half);
        for (let start = 0; start < n; start += 2 * half) {
            for (let j = 0; j < half; j++) {
                const low = start + j;
                const high = low + half;
                const c = roots.real[j * stride];
                const s = roots.imaginary[j * stride];
                const a = real[high] * c - imaginary[high] * s;
                const b = real[high] * s + imaginary[high] * c;
                real[high] = real[low] - a;
                imaginary[high] = imaginary[low] - b;
                real[low] += a;
                imaginary[low] += b;
            }
        }
    }
}

/**
 * Puts each element where the reversed bits of its index point. The length must be a power of two.
 */
function reverseBits(values) {
    const n = values.length;
    let reversed = 0;
    for (let i = 0; i < n; i++) {
        if (i < reversed) {
            const value = values[i];
            values[i] = values[reversed];
            values[reversed] = value;
        }
        // Adds one at the other end.
        let bit = n >> 1;
        while (bit > 0 && reversed & bit) {
            reversed ^= bit;
            bit >>= 1;
        }
        reversed |= bit;
    }
}

function newVector(length) {
    return { real: new Float64Array(length), imaginary: new Float64Array(length) };
}

/** Sets an element to the number of absolute value 1 at an angle given in turns. */
function setUnit({ real, imaginary }, at, turns) {
    real[at] = Math.cos(2 * Math.PI * turns);
    imaginary[at] = Math.sin(2 * Math.PI * turns);
}
