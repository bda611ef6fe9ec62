"""The commands. Results go to stdout, everything else to stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage or invalid configuration. What a command needs is imported
inside it, so that ``version`` and ``--help`` answer at once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli import doctor, health, keys, usage
from proxy.cli.terminal import AsJson, ConfigFile, load_config, say, show

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""TLS, API keys and metrics in front of Ollama.

    \b
    Try it, without any configuration:
        ollama-auth-proxy quickstart

    \b
    Run it for good:
        ollama-auth-proxy check-config --config config.toml
        ollama-auth-proxy keys create laptop --config config.toml
        ollama-auth-proxy serve --config config.toml
    """,
)
app.add_typer(keys.app, name="keys")


@app.command()
def quickstart(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where certificate and keys are kept.")] = Path(
        "data"
    ),
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients connect.")
    ] = "127.0.0.1:8443",
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ollama. Without it: the one at 127.0.0.1:11434, else a built-in simulator."
        ),
    ] = None,
) -> None:
    """Try the proxy, without any configuration.

    It makes a certificate and a key for inference, and prints a curl command that works when pasted.

    \b
    Example:
        ollama-auth-proxy quickstart --upstream http://127.0.0.1:11434

    Next: paste the curl command; then write a configuration and use 'serve'.
    """
    from proxy.quickstart import quickstart as run

    raise typer.Exit(run(data, listen, upstream))


@app.command()
def serve(config: ConfigFile = None) -> None:
    """Run the proxy until SIGTERM. Open streams may then finish, for listen.drain_timeout.

    It reads the configuration again on SIGHUP, and within 10 seconds when a file changes.

    \b
    Example:
        ollama-auth-proxy serve --config config.toml

    Next: 'ollama-auth-proxy keys create NAME' makes a key for each client.
    """
    from proxy.config import file_to_read, load
    from proxy.config.follow import files_of, signatures

    file, environ = file_to_read(config, os.environ), dict(os.environ)
    first = signatures([file])
    loaded = load_config(config)
    first |= signatures(files_of(loaded))
    from proxy.app import serve as run
    from proxy.replica import Source

    raise typer.Exit(run(loaded, Source(file, lambda: load(file, environ), first)))


@app.command()
def check_config(config: ConfigFile = None) -> None:
    """Say all that is wrong with a configuration. Nothing is started.

    \b
    Example:
        ollama-auth-proxy check-config --config config.toml

    Next: 'ollama-auth-proxy serve' with the same file.
    """
    from proxy.config import file_to_read

    loaded = load_config(config)
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    show(f"ok: {file_to_read(config, os.environ)}")


app.command("usage")(usage.show_usage)
app.command("doctor")(doctor.doctor)
app.command("health")(health.health)


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version.

    \b
    Example:
        ollama-auth-proxy version --json
    """
    from importlib.metadata import version as version_of

    number = version_of("ollama-auth-proxy")
    show(json.dumps({"version": number}) if as_json else number)
