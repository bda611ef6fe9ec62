"""The soak: minutes of mixed load on the real program, and an account of every request and byte at the end.

`python -m bench.soak` runs it for 15 minutes; `--write` keeps the figures in docs/soak.md.

    mix.py        what clients do: every dialect, credential and refusal, and clients that leave
    client.py     one connection of a client, and what it records of each exchange
    unrest.py     what goes on beside them: Ollama killed, keys and signing keys changed, reloads, scrapes
    site.py       the proxy and the simulator, each a process, and the commands of an operator
    issuer.py     an issuer of JWTs that changes its signing key
    samples.py    memory, descriptors and threads, once a second
    account.py    whether clients, access log, metrics and ledger tell the same
    run.py        all of these together
    report.py     the figures, as Markdown, and what is missed
"""
