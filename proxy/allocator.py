"""Makes glibc keep the memory of large bodies in flight, instead of asking the kernel for each piece."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT = 16 * 1024 * 1024
_MAPPED = 256 * 1024
"""Bytes. The event loop gives each TLS connection a buffer of this size and touches only its beginning:
mapped, it costs what is touched. Pieces of a body are smaller, and still come from memory that is kept."""


def keep_freed_memory() -> None:
    """Set the trim and mmap thresholds, see mallopt(3): two thirds of the CPU of a large upload."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
    mallopt(_M_MMAP_THRESHOLD, _MAPPED)
