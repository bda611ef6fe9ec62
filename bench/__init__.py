"""The side-by-side benchmark: this proxy, nginx and Caddy in front of one fake Ollama.

`python -m bench` measures in interleaved rounds and prints the tables; `--write` keeps them in
docs/benchmarks.md.

    figures.py        what is promised: each figure with its must and its aim
    measurements.py   how each is taken: start a proxy, warm it, put a load on it, read its CPU and memory
    token_measurements.py, guard_measurements.py   the same for JWTs and for guarded bodies
    plan.py           which load is put on which proxy
    effort.py         how long and how large the loads are
    rounds.py         who is measured when
    report.py         medians, ratios, verdicts, as Markdown
    document.py       where docs/benchmarks.md takes them in
    upstream.py       the fake Ollama
    load/             what puts load on a proxy
    proxies/          what is measured, each started by the command an operator would use
    process.py, procfs.py, machine.py, certificate.py, tokens.py   the ground under them
"""
