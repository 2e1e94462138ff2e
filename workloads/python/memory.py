"""Allocating, touching and freeing memory."""

from __future__ import annotations

import mmap

# Distance of the bytes that are written: the smallest page of the architectures in use.
PAGE_BYTES = 4096


def touch(mib: int) -> int:
    """Allocates some MiB, writes one byte to each page, frees them, and returns the number of
    pages.

    The memory comes from the kernel and goes back to it. A `bytearray` would come from an allocator
    that keeps some.
    """
    length = mib << 20
    try:
        memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryRefusedError(f"the kernel refuses {mib} MiB of memory: {error}") from error
    pages = 0
    with memory:
        for at in range(0, length, PAGE_BYTES):
            memory[at] = 1
            pages += 1
    return pages


class MemoryRefusedError(Exception):
    """An amount of memory that can't be had."""
