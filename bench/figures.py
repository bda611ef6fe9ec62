"""What is promised: every figure with the ratio or value that it must reach and the one it aims at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A bound on our median, or on its ratio to that of `against`; an upper one unless `at_least`."""

    must: float
    aim: float
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
)
"""Not promised, but needed to judge what is: rates, and `direct`, the load straight on the fake Ollama."""
