"""The table of `benchmark`: its rows, measured numbers, whether the target is met, and why."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from typing import Any

import jax
import numpy as np

from experiments.benchmark import peers
from experiments.benchmark.clock import Elsewhere

PLATFORMS = {"cpu": "CPU", "gpu": "GPU"}
NO_ACCELERATOR = "no accelerator was available"
SAMPLES = ("ours", "theirs")


@dataclass(frozen=True)
class Row:
    """One line of the targets, measured on its own.

    Its ratio is how many times faster than the other (`at_least`), or how many times its cost; for
    rows without another the number itself, in `unit`.
    """

    name: str
    path: str
    against: str
    target: float  # of the ratio
    at_least: bool  # whether the ratio is to be larger than the target
    unit: str  # of what each code took: "µs/atom" or "s"
    measure: Callable[..., dict[str, Any]]
    bound: str  # what the time goes into, {names} of what was measured filled in
    peer: str | None = None  # without which there is nothing to compare with

    @property
    def wanted(self) -> str:
        """The target, as text."""
        return f"{'≥' if self.at_least else '≤'} {self.target:g}"

    def measured(self, compared: bool) -> dict[str, Any]:
        """Arrays for the record; ours alone where there is no peer to compare with."""
        skipped = peers.missing(self.peer) if self.peer else None
        if self.peer and not (compared or skipped):
            skipped = f"{self.peer} is left out by --no-peers"
        elsewhere = Elsewhere()
        found = self.measure(there=not skipped) if self.peer else self.measure()
        about = {"device": device_name(), "cores_busy_elsewhere": elsewhere.cores()}
        return found | about | ({"skipped": skipped} if skipped else {})


def device_name() -> str:
    """Of the accelerator; of the processor, with its cores."""
    if jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else machine()}, {os.cpu_count()} cores"


def entry(row: Row, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A row in the summary: ratio, target, met, all that was measured, and why."""
    scale = 1e6 / float(arrays["atoms"]) if row.unit == "µs/atom" else 1.0
    found: dict[str, Any] = {}
    for code in SAMPLES:
        if code in arrays:
            found[code] = scale * float(np.median(arrays[code]))
            found[f"{code}_min"] = scale * float(np.min(arrays[code]))
    extra = {key: value.item() for key, value in arrays.items() if value.ndim == 0}
    ratio = extra.pop("ratio", None)
    if ratio is None and "theirs" in found:
        pair = found["theirs"], found["ours"]
        ratio = pair[0] / pair[1] if row.at_least else pair[1] / pair[0]
    met = None
    if ratio is not None:
        reached = ratio >= row.target if row.at_least else ratio <= row.target
        met = bool(reached and all(v for k, v in extra.items() if k.startswith("holds_")))
    judged = {"ratio": ratio, "target": row.target, "wanted": row.wanted, "met": met}
    about = {"path": row.path, "against": row.against, "unit": row.unit}
    whole = judged | about | found | extra
    return whole | {"why": why(row, whole)}


def why(row: Row, whole: Mapping[str, Any]) -> str:
    """One sentence: by what factor the target is met or missed, and what bounds the path."""
    if whole["met"] is None:
        return f"Not compared ({whole['skipped']}); {row.bound.format(**whole)}."
    ratio = whole["ratio"]
    if row.at_least:
        margin = ratio / row.target
    else:  # nothing at all is infinitely better than what was asked for
        margin = row.target / ratio if ratio else math.inf
    failed = [k.removeprefix("holds_").replace("_", " ") for k in holds(whole, False)]
    verdict = "Met" if whole["met"] else "Missed"
    by = f"{margin:.2g} times better" if margin >= 1 else f"{1 / margin:.2g} times worse"
    text = f"{verdict}, {by} than asked for" if math.isfinite(margin) else verdict
    text += f", but it does not hold: {', '.join(failed)}" if failed else ""
    return f"{text}; {row.bound.format(**whole)}."


def holds(whole: Mapping[str, Any], value: bool) -> list[str]:
    """The conditions of a row that are met, or those that are not."""
    return [k for k, v in whole.items() if k.startswith("holds_") and bool(v) is value]


def line(name: str, whole: Mapping[str, Any]) -> str:
    """The progress line of a row as it finishes."""
    times = ", ".join(f"{code} {whole[code]:.4g}" for code in SAMPLES if code in whole)
    times += f" {whole['unit']}" if times else ""
    if whole["ratio"] is None:
        return f"{name:24} {times}; skipped: {whole['skipped']}"
    verdict = "met" if whole["met"] else "MISSED"
    return f"{name:24} ratio {whole['ratio']:8.3g}  wanted {whole['wanted']:6} {verdict:6} {times}"


def markdown(
    rows: Iterable[Row], entries: Mapping[str, Mapping[str, dict[str, Any]]], preset: str
) -> str:
    """The table with a column for each platform, and the sentences.

    Args:
        rows: of the table.
        entries: platform -> name of the row -> its entry; platforms without any stay empty.
        preset: name of the preset.

    Returns:
        Markdown.
    """
    rows, devices = list(rows), {}
    for platform, title in PLATFORMS.items():
        here = entries.get(platform, {})
        device = next((e["device"] for e in here.values()), NO_ACCELERATOR)
        devices[platform] = f"{title} ({device})"
    head = ["row", "path", "against", "wanted", *devices.values()]
    table = [head, ["---"] * len(head)]
    for row in rows:
        cells = [_cell(entries.get(platform, {}).get(row.name)) for platform in PLATFORMS]
        table.append([f"`{row.name}`", row.path, row.against, row.wanted, *cells])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    sentences = [
        f"- `{row.name}`, {PLATFORMS[platform]}: {here[row.name]['why']}"
        for row in rows
        for platform, here in entries.items()
        if row.name in here
    ]
    command = f"python -m experiments.benchmark --preset {preset}"
    return (
        f"# Benchmark\n\nMade by `{command}`; no number here was typed in. Medians of calls in "
        "turn, first calls apart;\n≥ n: n times faster; ≤ n: at most n times the cost of the "
        f"other, or n itself.\n\n{text}\n\n" + "\n".join(sentences) + "\n"
    )


def _cell(whole: Mapping[str, Any] | None) -> str:
    if whole is None:
        return ""
    times = " / ".join(f"{whole[code]:.3g}" for code in SAMPLES if code in whole)
    times = f" ({times} {whole['unit']})" if times else ""
    if whole["ratio"] is None:
        return f"not compared{times}"
    verdict = "met" if whole["met"] else "missed"
    return f"**{whole['ratio']:.3g}** {verdict}{times}"
