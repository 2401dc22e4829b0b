# SPDX-License-Identifier: MIT
"""Summaries as JSON and as a page with figures."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }} td {{ padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #ddd }}
img {{ max-width: 100%; margin: 1rem 0 }}
</style></head><body><h1>{title}</h1><table>{rows}</table>{figures}</body></html>
"""


def writeText(file: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def writeJson(file: Path, summary: Mapping[str, Any]) -> None:
    writeText(file, json.dumps(_finite(summary), indent=2, ensure_ascii=False) + "\n")


def flatten(summary: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Lines to show: {"populations: left": "0.98 +- 0.01"}."""
    lines = {}
    for key, value in summary.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and {"value", "standardError"} <= value.keys():
            lines[name] = f"{value['value']:.4g} ± {value['standardError']:.2g}"
            rest = {k: v for k, v in value.items() if k not in ("value", "standardError")}
            lines |= flatten(rest, f"{name}, ")
        elif isinstance(value, Mapping):
            lines |= flatten(value, f"{name}: ")
        else:
            lines[name] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return lines


def writeReport(file: Path, title: str, summary: Mapping[str, Any], figures: Mapping[str, str]) -> None:
    """A page with a table and figures, which lie beside it. figures: {caption: file name}."""
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in flatten(summary).items())
    images = "".join(f'<h2>{html.escape(caption)}</h2><img src="{html.escape(name)}" alt="{html.escape(caption)}">'
                     for caption, name in figures.items())
    writeText(file, _PAGE.format(title=html.escape(title), rows=rows, figures=images))
