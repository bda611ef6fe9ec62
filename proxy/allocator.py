"""Makes glibc keep the memory of large bodies in flight, instead of asking the kernel for each piece."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_THRESHOLD = 16 * 1024 * 1024


def keep_freed_memory() -> None:
    """Raise the trim and mmap thresholds, see mallopt(3): two thirds of the CPU of a large upload."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(_M_TRIM_THRESHOLD, _THRESHOLD)
    mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
