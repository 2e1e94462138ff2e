package main

import (
	"math"
	"math/cmplx"
	"math/rand"
	"testing"
)

// naive is the transform by its definition.
func naive(vector []complex128) []complex128 {
	n := len(vector)
	result := make([]complex128, n)
	for k := range result {
		for j, value := range vector {
			result[k] += value * cmplx.Rect(1, -2*math.Pi*float64(j*k%n)/float64(n))
		}
	}
	return result
}

func TestTransformAgreesWithDefinition(t *testing.T) {
	random := rand.New(rand.NewSource(seed))
	lengths := []int{1009, 1021, 1023, 1024, 1025, 1536}
	for n := 1; n <= 70; n++ {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		vector := make([]complex128, n)
		for i := range vector {
			vector[i] = complex(random.Float64()-0.5, random.Float64()-0.5)
		}
		expected := naive(vector)
		plan := planTransform(n)
		// Twice, since the plan keeps working memory.
		for _, round := range []string{"first", "second"} {
			result := append([]complex128(nil), vector...)
			plan.forward(result)
			for k := range result {
				if error := cmplx.Abs(result[k] - expected[k]); error > 1e-11*float64(n) {
					t.Fatalf("n = %d, %s use, k = %d: %v, not %v", n, round, k, result[k], expected[k])
				}
			}
		}
	}
}

func TestTransformOfWaveIsOnePeak(t *testing.T) {
	// Large lengths, at which the definition would take too long.
	for _, n := range []int{1 << 17, 100_003} {
		const frequency = 12_345
		vector := make([]complex128, n)
		for j := range vector {
			vector[j] = cmplx.Rect(1, 2*math.Pi*float64(j*frequency%n)/float64(n))
		}
		planTransform(n).forward(vector)
		for k, value := range vector {
			expected := complex(0, 0)
			if k == frequency {
				expected = complex(float64(n), 0)
			}
			if cmplx.Abs(value-expected) > 1e-6 {
				t.Fatalf("n = %d, k = %d: %v, not %v", n, k, value, expected)
			}
		}
	}
}
