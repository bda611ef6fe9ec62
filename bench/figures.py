"""What is promised: every figure with the ratio or value that it must reach and the one it aims at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A bound on our median, or on its ratio to that of `against`; an upper one unless `at_least`."""

    must: float
    aim: float | None = None
    against: str | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Figure:
    """One line of a table: the value `name` of the load `load`."""

    load: str
    name: str
    title: str
    unit: str
    limits: tuple[Limit, ...] = ()


_GET = (Limit(0.5, 0.35, "Caddy"), Limit(2.2, 1.6, "nginx"))
_STREAMS = (Limit(0.8, 0.6, "Caddy"), Limit(1.5, 1.25, "nginx"))
_GROWTH = (Limit(32, 8),)
_BODY = (Limit(1.2, 0.8, "Caddy"),)

PROMISED = (
    Figure("small-get", "cpu_us", "CPU for a small GET", "µs", _GET),
    Figure("small-get-tls", "cpu_us", "CPU for a small GET, TLS", "µs", _GET),
    Figure("bad-key", "cpu_us", "CPU for a 401, well-formed unknown key", "µs", (Limit(0.9, 0.5, "Caddy"),)),
    Figure("garbage-key", "cpu_us", "CPU for a 401, garbage for a key", "µs", (Limit(0.9, 0.5, "Caddy"),)),
    Figure("streams", "cpu_s", "CPU for all chunks of 400 streams", "s", _STREAMS),
    Figure("streams-tls", "cpu_s", "CPU for all chunks of 400 streams, TLS", "s", _STREAMS),
    Figure(
        "small-get", "rate", "Small GETs a second", "", (Limit(20, 50, "FastAPI + httpx", at_least=True),)
    ),
    Figure("latency", "added_p50_ms", "Latency added at low load, p50", "ms", (Limit(0.5, 0.25),)),
    Figure("latency", "added_p99_ms", "Latency added at low load, p99", "ms", (Limit(2, 1),)),
    Figure("start", "rss_mb", "Memory (RSS) after start", "MB", (Limit(80, 55),)),
    Figure("streams-tls", "stream_kb", "Memory (RSS) of an open TLS stream", "KB", (Limit(48, 40),)),
    Figure("upload", "growth_mib", "Memory growth, large upload", "MiB", _GROWTH),
    Figure("upload", "cpu_s_per_gib", "CPU a GiB, large upload", "s", _BODY),
    Figure("download", "growth_mib", "Memory growth, large response", "MiB", _GROWTH),
    Figure("download", "cpu_s_per_gib", "CPU a GiB, large response", "s", _BODY),
    Figure("cached-jwt", "ratio", "CPU for a GET with a cached JWT, to one with a key", "x", (Limit(1.1),)),
    Figure("first-jwt", "rs256_ms", "CPU that a first RS256 token adds", "ms", (Limit(1),)),
    Figure("first-jwt", "es256_ms", "CPU that a first ES256 token adds", "ms", (Limit(1),)),
    Figure("small-guarded", "parse_ms", "CPU that the guard adds, chat of 1 KiB", "ms", (Limit(0.1),)),
    Figure(
        "large-guarded", "picture_ms", "Time that the guard adds, 10 MiB with a picture", "ms", (Limit(60),)
    ),
    Figure("large-guarded", "text_ms", "Time that the guard adds, 10 MiB of text", "ms", (Limit(60),)),
    Figure(
        "neighbour",
        "guarded_p99_ms",
        "A neighbour's GET while guarded 10 MiB pour in, p99",
        "ms",
        (Limit(20),),
    ),
)

BESIDE = (
    Figure("small-get", "rate", "small GETs a second", ""),
    Figure("small-get-tls", "rate", "small GETs a second, TLS", ""),
    Figure("bad-key", "rate", "401s a second", ""),
    Figure("streams", "seconds", "seconds for all streams", "s"),
    Figure("streams", "reads_per_chunk", "reads a chunk (1: nothing merged)", ""),
    Figure("streams", "stream_kb", "memory of an open stream", "KB"),
    Figure("streams", "load_cpu_s", "CPU of the load itself", "s"),
    Figure("streams-tls", "seconds", "seconds for all streams, TLS", "s"),
    Figure("streams-tls", "reads_per_chunk", "reads a chunk, TLS", ""),
    Figure("streams-tls", "load_cpu_s", "CPU of the load itself, TLS", "s"),
    Figure("latency", "proxy_p50_ms", "round trip, p50", "ms"),
    Figure("latency", "direct_p50_ms", "the same straight to the fake Ollama", "ms"),
    Figure("latency-tls", "added_p50_ms", "latency added, TLS, p50", "ms"),
    Figure("latency-tls", "added_p99_ms", "latency added, TLS, p99", "ms"),
    Figure("upload", "gib_per_s", "large upload, GiB a second", ""),
    Figure("download", "gib_per_s", "large response, GiB a second", ""),
    Figure("upload-tls", "cpu_s_per_gib", "CPU a GiB, upload, TLS", "s"),
    Figure("upload-tls", "growth_mib", "memory growth, upload, TLS", "MiB"),
    Figure("download-tls", "cpu_s_per_gib", "CPU a GiB, response, TLS", "s"),
    Figure("download-tls", "growth_mib", "memory growth, response, TLS", "MiB"),
    Figure("cached-jwt", "token_us", "CPU for a GET with a cached JWT", "µs"),
    Figure("cached-jwt", "key_us", "the same with a key, in turns", "µs"),
    Figure("small-guarded", "free_us", "CPU for a chat of 1 KiB, not guarded", "µs"),
    Figure("small-guarded", "scan_ms", "CPU that the guard adds to it, the usual key", "ms"),
    Figure("large-guarded", "picture_free_ms", "chat of 10 MiB with a picture, not guarded", "ms"),
    Figure("large-guarded", "picture_first_ms", "the first guarded one, which starts a process", "ms"),
    Figure("large-guarded", "scan_ms", "time that the guard adds to 10 MiB of text, the usual key", "ms"),
    Figure("large-guarded", "numbers_ms", "time that the guard adds to 10 MiB of numbers", "ms"),
    Figure("neighbour", "guarded_p50_ms", "neighbour's GET, guarded 10 MiB pour in, p50", "ms"),
    Figure("neighbour", "guarded_max_ms", "the same, longest", "ms"),
    Figure("neighbour", "free_p50_ms", "neighbour's GET, 10 MiB that nobody guards pour in, p50", "ms"),
    Figure("neighbour", "free_p99_ms", "the same, p99", "ms"),
    Figure("neighbour", "free_max_ms", "the same, longest", "ms"),
    Figure("neighbour", "guarded_per_s", "guarded chats of 10 MiB a second", ""),
    Figure("neighbour", "guarded_cpu_ms", "CPU for each of them", "ms"),
    Figure("neighbour", "free_per_s", "chats of 10 MiB a second that nobody guards", ""),
    Figure("neighbour", "free_cpu_ms", "CPU for each of them, not guarded", "ms"),
)
"""Not promised, but needed to judge what is: rates, and `direct`, the load straight on the fake Ollama."""
