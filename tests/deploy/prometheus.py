"""A real Prometheus, run with the configuration and the rules that are shipped."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from ..clients.programs import cannot_run
from ..wire.site import free_port

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
START_TIMEOUT = 30.0


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    found = shutil.which(name)
    if found is None:
        cannot_run(f"there is no {name}; on Debian, apt-get install --no-install-recommends prometheus")
    return found


class Prometheus:
    """Scrapes one proxy every second, and evaluates our rules as often, on a free loopback port."""

    def __init__(self, directory: Path, ops_port: int, token: str) -> None:
        shipped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        (scrape,) = shipped["scrape_configs"]
        scrape["static_configs"] = [{"targets": [f"127.0.0.1:{ops_port}"]}]
        scrape["authorization"]["credentials_file"] = str(directory / "token")
        (directory / "token").write_text(token)
        (directory / "prometheus.yml").write_text(yaml.safe_dump(shipped))
        for file in shipped["rule_files"]:
            shutil.copy(FOLDER / file, directory / file)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = directory / "prometheus.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    "--enable-feature=exemplar-storage",
                ],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=10)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            assert self.process.poll() is None, f"Prometheus did not start:\n{self.log.read_text()}"
            try:
                if self.client.get("/-/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"Prometheus is not ready:\n{self.log.read_text()}")
            time.sleep(0.05)

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of its HTTP API; fails with what Prometheus says is wrong."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer['error']}"
        return answer["data"]

    def at(self, expr: str, when: float) -> list[float]:
        """The numbers of an expression at a unix second, without those that are NaN."""
        result = self.get("query", query=expr, time=when)["result"]
        return _numbers(sample["value"] for sample in result)

    def between(self, expr: str, start: float, end: float) -> list[float]:
        """The same, of every second between two, as a graph shows them."""
        result = self.get("query_range", query=expr, start=start, end=end, step=1)["result"]
        return _numbers(value for series in result for value in series["values"])

    def wait_for(self, expr: str, timeout: float = 15.0) -> float:
        """Wait until an expression has a result, and return the unix second at which it had."""
        deadline = time.monotonic() + timeout
        while True:
            now = time.time()
            if self.get("query", query=expr, time=now)["result"]:
                return now
            assert time.monotonic() < deadline, f"never: {expr}"
            time.sleep(0.1)

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(20)


def _numbers(values: Any) -> list[float]:
    numbers = [float(text) for _, text in values]
    return [number for number in numbers if not math.isnan(number)]
