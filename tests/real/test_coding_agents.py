"""Claude Code and Continue, whole, with a key for one model, before a real Ollama."""

from __future__ import annotations

from pathlib import Path

from ..clients.programs import command, run
from ..wire.site import Site
from .conftest import url_of


def test_claude_code_answers(site: Site, limited: str, brief_model: str, tmp_path: Path) -> None:
    done = run(
        [*command("claude"), "-p", "Why is the sky blue?"],
        tmp_path,
        ANTHROPIC_BASE_URL=url_of(site),
        ANTHROPIC_AUTH_TOKEN=limited,
        ANTHROPIC_MODEL=brief_model,
        NODE_EXTRA_CA_CERTS=str(site.config.parent / "data" / "tls.crt"),
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def test_continue_answers(site: Site, limited: str, brief_model: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"""\
name: test
version: 1.0.0
schema: v1
models:
  - name: brief
    provider: ollama
    model: {brief_model}
    apiBase: {url_of(site)}
    apiKey: {limited}
    requestOptions:
      caBundlePath: {site.config.parent / "data" / "tls.crt"}
""")
    done = run([*command("cn"), "-p", "Why is the sky blue?", "--config", "config.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
