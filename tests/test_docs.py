"""What the documents say is so: generated pages, commands, links, names, and the snippets, which are run."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from proxy.cli import app
from proxy.config.changes import NEED_A_RESTART
from proxy.config.issuers import JwtTable
from proxy.config.sources import known, options
from proxy.errors import ERRORS
from proxy.identity.api_keys import issue
from proxy.observe.access_log import Entry, as_json
from proxy.observe.audit import Audit
from proxy.policy.routes import ROUTES, Scope
from proxy.quickstart import _SETTINGS

from .clients.programs import NAMES, cannot_run, npm_packages, put_on_path
from .test_architecture import MAY_IMPORT

ROOT = Path(__file__).parents[1]
PROXY = ROOT / "proxy"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "deploy").rglob("README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
OPERATIONS = ROOT / "docs" / "operations.md"
METRICS = ROOT / "docs" / "metrics.md"
PROGRAM = "ollama-auth-proxy"
START_TIMEOUT = 30.0

every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def code_in(page: Path) -> list[str]:
    """Every piece of code on a page: the lines of blocks, and what stands between backticks."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^ *```.*?\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    +(\S.*)$", rest, re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", rest)
    return [line.strip() for block in blocks for line in block.splitlines()] + indented + inline


# Generated pages


def test_the_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_route_and_every_error_is_on_its_page() -> None:
    routes, errors = ((ROOT / "docs" / page).read_text("utf-8") for page in ("routes.md", "errors.md"))
    assert [route for route in ROUTES if f"| `{route.method}` | `{route.path}` |" not in routes] == []
    assert [code for code, row in ERRORS.items() if f"| {row.status} | `{code}` |" not in errors] == []


def test_every_option_is_on_its_page_with_its_variable_and_whether_it_needs_a_restart() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for table, keys in options().items():
        section = text.split(f"\n## [{table}]\n")[1].split("\n## ")[0]
        for key in keys:
            if (table, key) == ("auth", "jwt"):
                continue
            row = next(line for line in section.splitlines() if line.startswith(f"| `{key}` |"))
            assert f"`OLLAMA_PROXY_{table.upper()}__{key.upper()}`" in row
            assert row.endswith("| after a restart |") == (f"{table}.{key}" in NEED_A_RESTART), row
            explanation = section.split(f"\n### {table}.{key}\n")[1].split("\n### ")[0]
            assert len(explanation.strip()) > 20, key
    for key in JwtTable.model_fields:
        assert len(text.split(f"\n### auth.jwt.{key}\n")[1].split("\n### ")[0].strip()) > 10, key


def test_the_questions_on_the_page_of_metrics_are_ones_that_prometheus_understands(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        cannot_run("there is no promtool; on Debian, apt-get install --no-install-recommends prometheus")
    asked = re.findall(r"^```promql\n(.*?)^```$", METRICS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(asked) > 10
    rules = [{"record": f"question:{number}", "expr": expr} for number, expr in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "docs", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Commands


def command_lines() -> list[str]:
    found = {code for page in PAGES for code in code_in(page) if code.startswith(f"{PROGRAM} ")}
    return sorted(found)


def find_command(words: list[str]) -> tuple[Any, list[str], list[str]]:
    """The command that the words begin with, its names, and the words behind them."""
    command: Any = typer.main.get_command(app)
    names: list[str] = []
    while words and words[0] in getattr(command, "commands", {}):
        names.append(words[0])
        command = command.commands[words[0]]
        words = words[1:]
    return command, names, words


def commands() -> dict[str, Any]:
    """The commands that can be run, by their names."""
    top: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in top.commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {n}": c for n, c in inner.items()} if inner else {name: command}
    return found


def test_the_documents_show_command_lines() -> None:
    assert len(command_lines()) > len(commands())


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_is_one_that_the_program_takes(line: str) -> None:
    synopsis = "[" in line
    line = re.split(r" [>|] ", line)[0]  # what the shell does with its output
    words = shlex.split(line.replace("...", "").translate(str.maketrans("[]", "  ")))[1:]
    command, names, rest = find_command(words)
    assert names, f"no such command: {line}"
    assert CliRunner().invoke(app, [*names, "--help"]).exit_code == 0
    if synopsis:
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= options
    else:
        command.make_context(names[-1], rest)  # parses, and raises what the user would be told


def test_the_readme_lists_every_command_with_every_option() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    for name, command in commands().items():
        row = next((line for line in lines if line.startswith(f"| `{PROGRAM} {name} ")), None)
        row = row or next((line for line in lines if line.startswith(f"| `{PROGRAM} {name}`")), None)
        assert row, f"the README has no row for {name}"
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in row, f"{name} {parameter.opts[0]}"


# Links and names


@every_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_alert_leads_to_its_steps() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text("utf-8"))
    alerts = {
        rule["alert"]: rule["annotations"]["runbook"]
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    incidents = OPERATIONS.read_text("utf-8").split("\n## Incidents\n")[1]
    steps = {slug(part.partition("\n")[0]): part for part in incidents.split("\n### ")[1:]}
    assert alerts
    for alert, runbook in alerts.items():
        page, _, anchor = runbook.partition("#")
        assert page == "docs/operations.md"
        assert f"`{alert}`" in steps[anchor], alert


def test_the_figures_for_sizing_are_those_that_were_measured() -> None:
    """Rounded, and within a quarter, since every run of the benchmark has others."""
    measured = dict(re.findall(r"^\| (\w.*?) +\| ([\d.]+ \S+) ", benchmarks(), re.MULTILINE))
    told = OPERATIONS.read_text("utf-8").split("\n## Sizing\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w.*?) \| ([\d.]+) (\S+) \|$", told, re.MULTILINE)
    assert len(rows) > 5
    for figure, value, unit in rows:
        number, its_unit = measured[figure].split()
        assert (unit, float(value)) == (its_unit, pytest.approx(float(number), rel=0.25)), figure


def benchmarks() -> str:
    return (ROOT / "docs" / "benchmarks.md").read_text("utf-8")


def test_the_lines_of_the_log_are_shown_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", OPERATIONS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    shown = [json.loads(line) for block in blocks for line in block.splitlines()]
    asked = Entry(b"1", "::1", "GET", "/", 200, None, None, None, 0, 0, 0.0, 0.0, 0.0, None, None, "ok")
    requests = [line for line in shown if "event" not in line]
    audits = [line for line in shown if "event" in line]
    assert requests
    assert audits
    for line in requests:
        assert list(line) == list(json.loads(as_json(asked, 0.0)))
    for line in audits:
        assert list(line) == ["time", "event", "level", "logger", "message", *audited(line["action"], caplog)]


def audited(action: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The members of an audit line of this kind."""
    caplog.set_level(logging.INFO)
    caplog.clear()
    audit = Audit()
    _, key = issue("laptop", 0)
    _, other = issue("laptop", 1)
    audit.keys({}, {key.id: key})
    audit.keys({key.id: key}, {key.id: replace(key, cloud=True)})
    audit.keys({key.id: key}, {key.id: replace(key, secrets=other.secrets)})
    audit.keys({key.id: key}, {})
    audit.configured([], [])
    audit.configuration_refused([])
    audit.refused("invalid_credentials", "::1", b"1", None, None)
    told = {record.fields["action"]: list(record.fields) for record in caplog.records}  # type: ignore[attr-defined]
    text = OPERATIONS.read_text("utf-8")
    assert [name for name in told if f"`{name}`" not in text] == []
    return told[action]


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = {
        code
        for code in code_in(page)
        if re.fullmatch(r"(?:proxy|tests|config|docs|bench|deploy)/[\w./-]*", code)
    }
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@every_page
def test_every_option_that_is_named_exists(page: Path) -> None:
    tables = "|".join({table for table, _ in known()})
    for code in code_in(page):
        if option := re.fullmatch(rf"({tables})\.([a-z_]+)", code):
            assert (option[1], option[2]) in known(), code


@every_page
def test_every_scope_in_an_example_exists(page: Path) -> None:
    named = set(re.findall(r"--scope ([a-z]+)", page.read_text("utf-8")))
    assert named <= {scope.value for scope in Scope}


def test_every_module_has_its_place_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    modules = [
        str(file.relative_to(ROOT))
        for file in PROXY.rglob("*.py")
        if file.name != "__init__.py" and not {"migrations", "simulator"} & set(file.relative_to(PROXY).parts)
    ]
    assert [module for module in sorted(modules) if f"`{module}`" not in text] == []


def test_the_architecture_tells_who_may_import_whom_as_it_is_held() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text.split("| room | may import |")[1].split("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines()[2:]]
    told = {
        room: set(re.findall(r"`(\w+)`", imported))
        for rooms, imported in rows
        for room in re.findall(r"`(\w+)`", rooms)
    }
    rooms = {file.relative_to(PROXY).parts[0].removesuffix(".py") for file in PROXY.rglob("*.py")} - {
        "__init__"
    }
    assert told == {room: MAY_IMPORT[room] & rooms for room in rooms}


# Snippets, run against a proxy as `make run` starts it


@dataclass(frozen=True)
class Snippet:
    """A block that is marked with ``<!-- tested: prints TEXT -->``."""

    page: str
    prints: str
    language: str
    code: str


def snippets() -> list[Snippet]:
    pattern = r"^ *<!-- tested: prints ([^\n]+) -->\n *```(\w+)\n(.*?)^ *```$"
    return [
        Snippet(page.name, prints, language, code)
        for page in PAGES
        for prints, language, code in re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    ]


@dataclass(frozen=True)
class Running:
    """A quickstart on free ports, in front of a simulator; the documents' ports are 8443 and 9464."""

    folder: Path
    port: int
    ops_port: int
    upstream: str
    pasted: str

    def run(self, language: str, code: str) -> subprocess.CompletedProcess[str]:
        code = code.replace("localhost:8443", f"localhost:{self.port}")
        code = code.replace("127.0.0.1:9464", f"127.0.0.1:{self.ops_port}")
        programs = {"sh": ["sh", "-eu", "-c"], "python": [sys.executable, "-c"]}
        self.bring_clients(code)
        folders = [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        return subprocess.run(
            [*programs[language], code],
            cwd=self.folder,
            env={
                "PATH": os.pathsep.join(folders),
                "HOME": str(self.folder),
                # The configuration that the documents name has the documents' ports.
                "OLLAMA_PROXY_LISTEN__ADDRESS": f"127.0.0.1:{self.port}",
                "OLLAMA_PROXY_OPS__ADDRESS": f"127.0.0.1:{self.ops_port}",
                "OLLAMA_PROXY_UPSTREAM__URL": self.upstream,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def bring_clients(self, code: str) -> None:
        """Put the programs and npm packages that the code uses where it finds them."""
        (self.folder / "bin").mkdir(exist_ok=True)
        for name in NAMES:
            if re.search(rf"^{name} ", code, re.MULTILINE):
                put_on_path(self.folder / "bin", name)
        modules = self.folder / "node_modules"
        if re.search("^node ", code, re.MULTILINE) and not modules.exists():
            modules.symlink_to(npm_packages())


def first_match(stream: IO[str], pattern: str) -> re.Match[str]:
    lines = []
    for line in stream:
        lines.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"{pattern!r} was not printed, but:\n{''.join(lines)}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "config", folder / "config")
    # What it makes by itself, and one option that docs/clients.md tells to set.
    (folder / "data").mkdir(mode=0o700)
    (folder / "data" / "config.toml").write_text(f"{_SETTINGS}\n[auth]\npath_keys = true\n")

    with ExitStack() as stack:

        def start(*arguments: str) -> tuple[IO[str], IO[str]]:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(end, process)
            assert process.stdout
            assert process.stderr
            return process.stdout, process.stderr

        _, said = start("proxy.simulator", "--listen", "127.0.0.1:0", "--tokens-per-second", "1000")
        url = first_match(said, r"http://127\.0\.0\.1:\d+")[0]
        printed, said = start("proxy", "quickstart", "--listen", "127.0.0.1:0", "--upstream", url)
        ports = first_match(said, r"https://localhost:(\d+), metrics at http://127\.0\.0\.1:(\d+)/")
        pasted = first_match(printed, "^curl .+")[0]
        wait_until_ready(f"http://127.0.0.1:{ports[2]}/readyz")
        yield Running(folder, int(ports[1]), int(ports[2]), url, pasted)


def wait_until_ready(url: str) -> None:
    """The first look at Ollama comes a moment after the start."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(100):
        try:
            with opener.open(url, timeout=5):
                return
        except urllib.error.HTTPError:
            time.sleep(0.05)
    raise AssertionError("the proxy is not ready")


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=START_TIMEOUT)
    finally:
        process.kill()


def test_the_curl_line_that_quickstart_prints_streams_an_answer(running: Running) -> None:
    done = running.run("sh", running.pasted)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 10
    assert '"done":true' in done.stdout.splitlines()[-1]


def test_the_documents_have_a_snippet_for_every_client() -> None:
    tested = "".join(snippet.code for snippet in snippets() if snippet.page == "clients.md")
    python = ("import ollama", "import openai", "import anthropic", "langchain_ollama", "langchain_openai")
    node = ('from "ollama"', 'from "openai"', 'from "@anthropic-ai/sdk"')
    for word in ("curl ", *python, *node, *(f"\n{name} " for name in NAMES)):
        assert word in tested, word


@pytest.mark.parametrize("snippet", snippets(), ids=lambda snippet: f"{snippet.page}: {snippet.prints}")
def test_every_snippet_that_is_marked_as_tested_works(snippet: Snippet, running: Running) -> None:
    done = running.run(snippet.language, snippet.code)
    assert done.returncode == 0, done.stderr
    assert snippet.prints in done.stdout


def exposed_by(running: Running) -> set[str]:
    done = running.run("sh", "curl -s http://127.0.0.1:9464/metrics")
    return set(re.findall(r"^# TYPE (\w+)", done.stdout, re.MULTILINE))


def test_every_metric_that_the_documents_name_exists(running: Running) -> None:
    exposed = exposed_by(running)
    samples = {f"{name}{part}" for name in exposed for part in ("", "_bucket", "_count", "_sum")}
    code = {code for page in PAGES for code in code_in(page)}
    named = {
        name
        for text in code
        for name in re.findall(r"\b(?:ollama_proxy|gen_ai_server|gen_ai_client)_\w*[a-z]\b", text)
    }
    assert named
    assert named - samples == set()


def test_the_page_of_metrics_has_every_metric_that_is_exposed_and_no_other(running: Running) -> None:
    headings = re.findall(r"^### (\w+)$", METRICS.read_text("utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(exposed_by(running))


def test_a_backup_is_restored_into_a_running_proxy(running: Running) -> None:
    if shutil.which("sqlite3") is None:
        cannot_run("there is no sqlite3; on Debian, apt-get install sqlite3")
    back_up, restore = (
        re.findall(rf"<!-- tested: {name} -->\n```sh\n(.*?)```", OPERATIONS.read_text("utf-8"), re.DOTALL)[0]
        for name in ("back up", "restore")
    )
    ask = "curl -s --cacert data/tls.crt https://localhost:8443/api/version -H 'Authorization: Bearer KEY'"
    create = f"{PROGRAM} keys create NAME --config config/config.toml"
    before = running.run("sh", create.replace("NAME", "before")).stdout.strip()
    done = running.run("sh", back_up)
    assert done.stdout == "ok\n", done.stderr
    assert (running.folder / "backup.db").stat().st_mode & 0o077 == 0
    after = running.run("sh", create.replace("NAME", "after")).stdout.strip()
    wait_for(lambda: "version" in running.run("sh", ask.replace("KEY", after)).stdout)
    assert running.run("sh", restore).returncode == 0
    wait_for(lambda: "invalid_credentials" in running.run("sh", ask.replace("KEY", after)).stdout)
    assert '"version"' in running.run("sh", ask.replace("KEY", before)).stdout


def wait_for(happens: Callable[[], bool]) -> None:
    """A running proxy follows its store within 2 seconds."""
    deadline = time.monotonic() + 5
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)
