// The Fourier transform, which the standard library lacks.

package main

import (
	"math"
	"math/bits"
	"math/cmplx"
)

// transform computes the discrete Fourier transform X[k] = sum over j of x[j] exp(-2 pi i j k / n) for one length n.
//
// Powers of two are transformed by the radix-2 algorithm of Cooley and Tukey, all other lengths by Bluestein's: it
// turns the transform into a convolution, which is computed by transforms of a power of two of at least 2n-1.
type transform struct {
	// roots are exp(-2 pi i j / size) for j below size/2, where size is the power of two.
	roots []complex128
	// chirp is exp(-pi i j^2 / n) for j below n; nil for a power of two, as are the two below.
	chirp []complex128
	// filter is the transform of what the vector times the chirp is convolved with, divided by the size.
	filter []complex128
	// padded is where the convolution takes place.
	padded []complex128
}

// planTransform prepares all that does not depend on the vector. n must be at least 1.
func planTransform(n int) *transform {
	if n&(n-1) == 0 {
		return &transform{roots: unitRoots(n)}
	}
	size := 1 << bits.Len(uint(2*n-2))
	plan := &transform{
		roots:  unitRoots(size),
		chirp:  make([]complex128, n),
		filter: make([]complex128, size),
		padded: make([]complex128, size),
	}
	scale := complex(1/float64(size), 0)
	for j := range plan.chirp {
		// The angle repeats every 2n; reducing the square keeps it exact.
		plan.chirp[j] = unit(-float64(j*j%(2*n)) / float64(2*n))
		value := cmplx.Conj(plan.chirp[j]) * scale
		plan.filter[j] = value
		plan.filter[(size-j)%size] = value
	}
	plan.powerOfTwo(plan.filter)
	// Written so that the transform takes no page faults.
	copy(plan.padded, plan.filter)
	return plan
}

// forward transforms the vector, whose length must be the planned one, in place.
func (t *transform) forward(vector []complex128) {
	if t.chirp == nil {
		t.powerOfTwo(vector)
		return
	}
	padded := t.padded
	for j, value := range vector {
		padded[j] = value * t.chirp[j]
	}
	for j := len(vector); j < len(padded); j++ {
		padded[j] = 0
	}
	t.powerOfTwo(padded)
	// The inverse transform is the conjugate of the forward transform of the conjugate.
	for j, value := range t.filter {
		padded[j] = cmplx.Conj(padded[j] * value)
	}
	t.powerOfTwo(padded)
	for j := range vector {
		vector[j] = cmplx.Conj(padded[j]) * t.chirp[j]
	}
}

// powerOfTwo transforms a vector of the length that the roots are for, in place.
func (t *transform) powerOfTwo(vector []complex128) {
	n := len(vector)
	if n == 1 {
		return
	}
	shift := 64 - bits.TrailingZeros(uint(n))
	for i := range vector {
		if j := int(bits.Reverse64(uint64(i)) >> shift); i < j {
			vector[i], vector[j] = vector[j], vector[i]
		}
	}
	for half := 1; half < n; half *= 2 {
		stride := n / (2 * half)
		for start := 0; start < n; start += 2 * half {
			low := vector[start : start+half]
			high := vector[start+half : start+2*half][:len(low)]
			for j := range low {
				odd := high[j] * t.roots[j*stride]
				low[j], high[j] = low[j]+odd, low[j]-odd
			}
		}
	}
}

// unitRoots returns exp(-2 pi i j / n) for j below n/2.
func unitRoots(n int) []complex128 {
	roots := make([]complex128, n/2)
	for j := range roots {
		roots[j] = unit(-float64(j) / float64(n))
	}
	return roots
}

// unit returns the number of absolute value 1 at an angle given in turns.
func unit(turns float64) complex128 {
	sin, cos := math.Sincos(2 * math.Pi * turns)
	return complex(cos, sin)
}
