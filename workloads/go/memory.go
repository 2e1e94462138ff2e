// Allocating, touching and freeing memory.

package main

import (
	"fmt"
	"syscall"
)

// pageBytes is the distance of the bytes that are written: the smallest page of the architectures in use.
const pageBytes = 4096

// touchMemory allocates some MiB, writes one byte to each page, frees them, and returns the number of pages.
//
// The memory comes from the kernel and goes back to it. Go's own allocator would keep it, so that the second request
// would touch memory that is there already, and it ends the process when the kernel refuses.
func touchMemory(mib int) (int, error) {
	memory, err := syscall.Mmap(-1, 0, mib<<20, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return 0, fmt.Errorf("the kernel refuses %d MiB of memory: %w", mib, err)
	}
	pages := 0
	for at := 0; at < len(memory); at += pageBytes {
		memory[at] = 1
		pages++
	}
	if err := syscall.Munmap(memory); err != nil {
		return 0, fmt.Errorf("can't free %d MiB of memory: %w", mib, err)
	}
	return pages, nil
}
