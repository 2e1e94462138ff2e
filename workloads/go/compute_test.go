package main

import "testing"

func TestFibonacci(t *testing.T) {
	// The last is the first beyond 2^64, less 2^64.
	for n, value := range map[uint64]uint64{
		1: 1, 2: 1, 3: 2, 10: 55, 90: 2_880_067_194_370_816_120, 94: 1_293_530_146_158_671_551,
	} {
		if got := fibonacci(n); got != value {
			t.Errorf("fibonacci(%d) is %d, not %d", n, got, value)
		}
	}
}

func TestProductIsSumOverRowsAndColumns(t *testing.T) {
	// Sizes around the tile's, and entries small enough for every sum to be exact.
	for _, n := range []int{1, 2, 3, tile - 1, tile, tile + 1} {
		a, b, product := make([]float64, n*n), make([]float64, n*n), make([]float64, n*n)
		for i := range a {
			a[i], b[i] = float64(i%7-3), float64(i%11-5)
		}
		multiply(a, b, product, n)
		for i := 0; i < n; i++ {
			for j := 0; j < n; j++ {
				expected := 0.0
				for k := 0; k < n; k++ {
					expected += a[i*n+k] * b[k*n+j]
				}
				if product[i*n+j] != expected {
					t.Fatalf("n = %d, row %d, column %d: %v, not %v", n, i, j, product[i*n+j], expected)
				}
			}
		}
	}
}
