"""Builds the program that reads requests as Ollama does. Without Go, tests skip; with CI=true they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from .reader import SOURCE, OllamaReader


@pytest.fixture(scope="session")
def ollama_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaReader]:
    go = shutil.which("go", path=os.environ["PATH"] + os.pathsep + "/usr/local/go/bin")
    if go is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no Go, which Ollama's reading of a body is taken from", pytrace=False)
        pytest.skip("there is no Go, which Ollama's reading of a body is taken from")
    program = tmp_path_factory.mktemp("ollama_reader") / "reader"
    subprocess.run(
        [go, "build", "-o", program, "."], cwd=SOURCE, check=True, env={**os.environ, "GOTOOLCHAIN": "local"}
    )
    reader = OllamaReader(program)
    yield reader
    reader.close()
