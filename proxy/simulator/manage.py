"""The routes that change models: pull, create, copy, delete. Only names change: there are no weights."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from starlette.responses import Response

from proxy.simulator import names
from proxy.simulator.body import Body
from proxy.simulator.errors import MalformedError, OllamaError
from proxy.simulator.generation import Simulation
from proxy.simulator.go_json import encode, json_response
from proxy.simulator.live import Chunks
from proxy.simulator.models import Model
from proxy.simulator.names import Name
from proxy.simulator.native import NDJSON

_PULL_STEPS = 10

Progress = dict[str, object]


async def pull(simulation: Simulation, body: Body) -> Response:
    """Every valid name can be pulled, from nowhere: nothing is asked of any registry."""
    name = names.parse(_named(body))
    if name is None:
        raise OllamaError(400, "invalid model name")
    return await _progress(simulation, body, name, None, _pulling(name))


async def create(simulation: Simulation, body: Body) -> Response:
    name = names.parse(_named(body))
    if name is None:
        raise OllamaError(400, "invalid model name")
    steps: list[Progress] = []
    like: Model | None = None
    if body.text("from"):
        source = names.parse(body.text("from"))
        if source is None:
            raise OllamaError(400, "invalid model name")
        like = simulation.catalogue.find(source)
        if like is None:  # Ollama pulls what is missing
            steps += _pulling(source)[:-1]
        steps.append({"status": f"using existing layer sha256:{Model(source).digest}"})
    elif body.mapping("files"):
        digests = [str(digest) for digest in body.mapping("files").values()]
        for digest in digests:
            if digest not in simulation.blobs:
                raise OllamaError(500, f"open blobs/{digest.replace(':', '-')}: no such file or directory")
        steps.append({"status": "parsing GGUF"})
        steps += [{"status": f"using existing layer {digest}"} for digest in digests]
    else:
        raise OllamaError(400, "neither 'from' or 'files' was specified")
    steps += [{"status": "writing manifest"}, {"status": "success"}]
    return await _progress(simulation, body, name, like, steps)


async def copy(simulation: Simulation, body: Body) -> Response:
    source, destination = names.parse(body.text("source")), names.parse(body.text("destination"))
    if source is None:
        raise OllamaError(400, f"source {json.dumps(body.text('source'))} is invalid")
    if destination is None:
        raise OllamaError(400, f"destination {json.dumps(body.text('destination'))} is invalid")
    model = simulation.catalogue.find(source)
    if model is None:
        raise OllamaError(404, f"model {json.dumps(body.text('source'))} not found")
    simulation.catalogue.add(destination, like=model)
    return Response()


async def delete(simulation: Simulation, body: Body) -> Response:
    named = _named(body)
    if not named:
        raise MalformedError("model is required")
    name = names.parse(named)
    if name is None:
        raise OllamaError(400, f"name {json.dumps(named)} is invalid")
    if simulation.catalogue.find(name) is None:
        raise OllamaError(404, f"model '{named}' not found")
    simulation.catalogue.remove(name)
    return Response()


def _named(body: Body) -> str:
    return body.text("model") or body.text("name")


def _pulling(name: Name) -> list[Progress]:
    model = Model(name)
    layer = {
        "status": f"pulling {model.digest[:12]}",
        "digest": f"sha256:{model.digest}",
        "total": model.size,
    }
    steps: list[Progress] = [{"status": "pulling manifest"}, layer]
    steps += [layer | {"completed": model.size * step // _PULL_STEPS} for step in range(1, _PULL_STEPS + 1)]
    ends = ("verifying sha256 digest", "writing manifest", "success")
    return steps + [{"status": end} for end in ends]


async def _progress(
    simulation: Simulation, body: Body, name: Name, like: Model | None, steps: list[Progress]
) -> Response:
    """Give the steps at the pace of tokens; the model exists once they are through."""
    lines = _lines(simulation, name, like, steps)
    if body.flag("stream", True):
        return Chunks(lines, NDJSON)
    async for _ in lines:
        pass
    return json_response(steps[-1])


async def _lines(
    simulation: Simulation, name: Name, like: Model | None, steps: list[Progress]
) -> AsyncGenerator[bytes, None]:
    with simulation.counted():
        async for step in simulation.paced(steps):
            if step is steps[-1]:
                simulation.catalogue.add(name, like)
            yield encode(step) + b"\n"
