// Pure computing: Fibonacci numbers, a matrix product, and the timing of a Fourier transform.

package main

import (
	"math/rand"
	"runtime"
	"time"
)

// seed of all pseudo-random input: the same in every run, and no wait for the entropy of a guest that has just booted.
const seed = 1

// tile is the side of the square of b in multiply that stays in a cache of 256 KiB while all rows of a pass by.
const tile = 128

// fibonacci returns the nth Fibonacci number modulo 2^64 (the first two are 1), by n-1 additions.
func fibonacci(n uint64) uint64 {
	previous, current := uint64(0), uint64(1)
	for i := uint64(1); i < n; i++ {
		previous, current = current, previous+current
	}
	return current
}

// fourierTransformTime returns the time of the forward Fourier transform of a random complex vector of length n.
func fourierTransformTime(n int) time.Duration {
	random := rand.New(rand.NewSource(seed))
	vector := make([]complex128, n)
	for i := range vector {
		vector[i] = complex(random.Float64(), random.Float64())
	}
	transform := planTransform(n)
	start := time.Now()
	transform.forward(vector)
	elapsed := time.Since(start)
	runtime.KeepAlive(vector)
	return elapsed
}

// matrixSquareTime returns the time of squaring a random matrix with n rows and columns.
func matrixSquareTime(n int) time.Duration {
	random := rand.New(rand.NewSource(seed))
	matrix, square := make([]float64, n*n), make([]float64, n*n)
	for i := range matrix {
		matrix[i] = random.Float64()
		// Written so that the multiplication takes no page faults.
		square[i] = 0
	}
	start := time.Now()
	multiply(matrix, matrix, square, n)
	elapsed := time.Since(start)
	runtime.KeepAlive(square)
	return elapsed
}

// multiply adds the product of the row-major n by n matrices a and b to sum.
func multiply(a, b, sum []float64, n int) {
	for firstK := 0; firstK < n; firstK += tile {
		endK := smaller(firstK+tile, n)
		for firstJ := 0; firstJ < n; firstJ += tile {
			endJ := smaller(firstJ+tile, n)
			for i := 0; i < n; i++ {
				row := sum[i*n+firstJ : i*n+endJ]
				for k := firstK; k < endK; k++ {
					factor := a[i*n+k]
					for j, value := range b[k*n+firstJ : k*n+endJ][:len(row)] {
						row[j] += factor * value
					}
				}
			}
		}
	}
}

func smaller(a, b int) int {
	if a < b {
		return a
	}
	return b
}
