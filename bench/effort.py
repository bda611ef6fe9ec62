"""How long and how large: the whole run, and the quick one for a first look."""

from __future__ import annotations

from dataclasses import dataclass

STREAMS = 400


@dataclass(frozen=True)
class Effort:
    """Sizes of the loads; times in seconds."""

    rounds: int
    gets_warm_up: int
    gets: int
    chunks: int  # of a stream
    pause: float  # before each chunk
    upload_mib: int
    download_mib: int
    tls_body_mib: int
    latency: float
    turns: int  # of callers that are compared on one proxy, a second each
    tokens: int  # of either kind
    large: int  # chats of 10 MiB
    pour: float


WHOLE = Effort(3, 1, 2, 150, 0.03, 4096, 1024, 1024, 3.0, 3, 2000, 7, 4.0)
QUICK = Effort(1, 0, 1, 50, 0.03, 512, 256, 128, 1.0, 1, 600, 3, 2.0)
