"""The log of everything that is not a request: the proxy's own events, libraries' warnings, tracebacks."""

from __future__ import annotations

import json
import logging
import traceback

from proxy.observe.access_log import timestamp
from proxy.observe.log_stream import LogStream

log = logging.getLogger("ollama_auth_proxy")
"""The project's own logger. Fields beside the text go in ``extra={"fields": {...}}``."""


_warnings = logging.getLogger("ollama_auth_proxy.configuration")


def warn(text: str) -> None:
    """Tell of a danger in the configuration, whatever log.level says."""
    _warnings.warning(text)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": timestamp(record.created),
            "event": getattr(record, "event", "log"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str, separators=(",", ":"))


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        text = f"{timestamp(record.created)} {record.levelname.lower()} {record.getMessage()}{fields}"
        if record.exc_info is not None and record.exc_info[0] is not None:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return text


class _StreamHandler(logging.Handler):
    def __init__(self, stream: LogStream) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._stream.write(self.format(record).encode("utf-8", "replace") + b"\n")
        except Exception:
            self.handleError(record)


def configure(stream: LogStream, log_format: str, level: str = "info") -> None:
    """Send all logging, libraries' and warnings included, to ``stream`` as ``json`` or ``text``.

    ``level`` is that of the project's own logger; audit lines are told whatever it is. Libraries tell
    warnings and what is worse: at ``debug`` some of them would log bytes that pass.
    """
    handler = _StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    if level == "error":
        root.setLevel(logging.ERROR)
    log.setLevel(level.upper())
    logging.getLogger("ollama_auth_proxy.audit").setLevel(logging.INFO)
    _warnings.setLevel(logging.WARNING)
    logging.captureWarnings(True)
