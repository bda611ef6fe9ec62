"""The figures of a soak, as Markdown, and what is missed of its musts. Pure."""

from __future__ import annotations

from collections import Counter

from bench.soak.run import Outcome
from bench.soak.samples import between, middle, slope

MOST_GROWTH = 0.10
"""The part by which memory may grow from after the warm-up to the end."""

_WINDOW = 60.0
"""Seconds whose median is compared."""


def growth(outcome: Outcome) -> tuple[float, float, float]:
    """RSS in MiB after the warm-up and at the end, and the growth as a part; nan where it was too short."""
    plan, found = outcome.plan, outcome.samples
    window = min(_WINDOW, (plan.seconds - plan.warm_up) / 3)
    first = between(found, plan.warm_up, plan.warm_up + window)
    last = between(found, found[-1].at - window, found[-1].at + 1)
    if not first or not last:
        return float("nan"), float("nan"), float("nan")
    start, end = middle(first, "rss") / 1024, middle(last, "rss") / 1024
    return start, end, end / start - 1


def missed(outcome: Outcome) -> list[str]:
    """The musts that were not kept, mismatches of the account aside."""
    found = []
    if outcome.plan.warm_up:
        start, end, grown = growth(outcome)
        if not grown <= MOST_GROWTH:
            found.append(f"RSS grew by {grown:.1%}, from {start:.1f} to {end:.1f} MiB")
    before, after = len(outcome.descriptors_before), len(outcome.descriptors_after)
    if after > before:
        more = Counter(outcome.descriptors_after) - Counter(outcome.descriptors_before)
        found.append(f"{after} descriptors at rest after the load, {before} before it; more: {dict(more)}")
    return found


def report(outcome: Outcome) -> str:
    """A table of the figures, then what differs."""
    plan, events = outcome.plan, outcome.events
    start, end, grown = growth(outcome)
    after = between(outcome.samples, plan.warm_up, float("inf"))
    musts = missed(outcome)
    codes = ", ".join(f"{code}: {count:,}" for code, count in sorted(outcome.codes.items()))
    rows = [
        ("Load", f"{outcome.load_seconds:.0f} s by {plan.clients} clients"),
        ("Requests", f"{outcome.requests:,}, {outcome.requests / max(1, outcome.load_seconds):.0f} a second"),
        ("by status", codes),
        ("Answered whole", f"{outcome.answered:,}"),
        ("Broken off by Ollama or a revoked key", f"{outcome.torn:,}"),
        ("Left by their client", f"{outcome.left:,}"),
        ("Bytes of bodies", f"{outcome.received:,} received, {outcome.sent:,} sent"),
        ("Tokens", f"{outcome.tokens[0]:,} read, {outcome.tokens[1]:,} written"),
        ("Ollama killed and started", f"{len(events.outages)} times"),
        ("Keys created", f"{events.keys}, the one before each revoked while in use"),
        ("Signing keys of the issuer changed", f"{events.signing_keys} times"),
        ("Reloads, each with another certificate", f"{events.reloads}"),
        ("Scrapes, of both forms", f"{events.scrapes}"),
        (f"RSS after the warm-up of {plan.warm_up:.0f} s", f"{start:.1f} MiB"),
        ("RSS at the end", f"{end:.1f} MiB, {grown:+.1%}; must: at most {MOST_GROWTH:+.0%}"),
        ("RSS at rest, after the load", f"{outcome.rss_at_rest / 1024:.1f} MiB"),
        ("Slope of RSS", f"{slope(after):+.1f} KiB a minute"),
        ("RSS with the processes for large bodies, at most", f"{_most(outcome, 'tree_rss') / 1024:.1f} MiB"),
        (
            "Descriptors at rest",
            f"{len(outcome.descriptors_before)} before, {len(outcome.descriptors_after)} after",
        ),
        ("Descriptors under load, at most", f"{_most(outcome, 'descriptors')}"),
        ("Threads, at most", f"{_most(outcome, 'threads')}"),
        ("Exit code after SIGTERM", f"{outcome.exit_code}"),
        ("Differences in the account", f"{len(outcome.mismatches)}"),
    ]
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    wrong = [
        *(f"MISSED: {what}" for what in musts),
        *(f"DIFFERS: {what}" for what in outcome.mismatches[:200]),
    ]
    return table if not wrong else table + "\n\n" + "\n".join(f"- {line}" for line in wrong)


def _most(outcome: Outcome, name: str) -> int:
    return max((int(getattr(sample, name)) for sample in outcome.samples), default=0)
