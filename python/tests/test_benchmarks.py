# SPDX-License-Identifier: MIT
"""What the benchmarks share: ratios, and README's table."""
import json
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples" / "benchmarks"))
    import run
    import timing
    yield timing, run
    for name in ("run", "timing"):
        del sys.modules[name]


def testRatiosAreOfEachRoundAndPerItem(benchmarks):
    timing, _ = benchmarks
    times = {"ours": [2.0, 4.0, 6.0], "theirs": [2.0, 8.0, 18.0]}  # a machine that gets slower
    row = timing.makeRow("work", times, ("theirs", "ours"), "ms", {"ours": 4, "theirs": 2}, required=">= 4")
    assert row["ratio"]["median"] == 4 and row["ratio"]["quartiles"] == [3, 5] and row["reached"]
    assert row["alternatives"]["ours"]["median"] == 1000
    assert timing.makeRow("work", times, ("theirs", "ours"), "1/s", {"ours": 4})["alternatives"]["ours"]["median"] == 1
    assert not timing.makeRow("work", times, ("theirs", "ours"), required="<= 1.9")["reached"]
    assert "NOT REACHED" in timing.formatRow(timing.makeRow("work", times, ("theirs", "ours"), required="<= 1.9"))


def testTurnsAlternate(benchmarks):
    timing, _ = benchmarks
    calls = []
    times = timing.timeInTurns({name: lambda name=name: calls.append(name) for name in "ab"}, 0.0, rounds=3, turn=0.0)
    assert "".join(calls) == "aabb" + "ab" * 3 and len(times["a"]) == len(times["b"]) == 3


def testShortActionsAreRepeated(benchmarks):
    timing, _ = benchmarks
    now, calls = 0.0, {"short": 0, "long": 0}

    def call(name, seconds):
        nonlocal now
        calls[name] += 1
        now += seconds

    times = timing.timeInTurns({"short": lambda: call("short", 0.001), "long": lambda: call("long", 0.03)}, 0.0, rounds=2,
                               clock=lambda: now)
    assert calls == {"short": 2 + 2 * 10, "long": 2 + 2}
    assert times["short"] == pytest.approx([0.001, 0.001]) and times["long"] == pytest.approx([0.03, 0.03])


def testTableShowsTheClosestPeer(benchmarks):
    timing, run = benchmarks
    for required, shown in ((">= 2", "slow"), ("<= 60", "quick")):
        rows = [timing.makeRow("a step", {"ours": [1.0], name: [seconds]}, (name, "ours"), "s", required=required)
                for name, seconds in (("slow", 3.0), ("quick", 5.0))]
        rows.append(timing.makeRow("another", {"ours": [1.0], "slow": [3.0]}, ("slow", "ours"), "s"))
        assert [row["ratio of times"][0] for row in run.selectRows(rows)] == [shown]


def testTableReplacesWhatIsBetweenTheMarkers(benchmarks, tmp_path):
    timing, run = benchmarks
    row = timing.makeRow("a step", {"ours": [2.0], "theirs": [3.0]}, ("theirs", "ours"), "s", required=">= 1.4")
    result = {"benchmark": "force", "machine": {"cores": 2, "processor": "P", "OpenMM": "8", "torch": "2", "date": "D"}, "short": False,
              "rows": [row]}
    (tmp_path / "force.json").write_text(json.dumps(result))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{run.MARKERS[0]}\nold\n{run.MARKERS[1]}\nafter\n")
    for _ in range(2):
        run.writeTable(readme, tmp_path)
        text = readme.read_text()
        assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
        assert "| `force.py`: a step | theirs 3; ours 2 s | **1.5** theirs / ours | 1.5 - 1.5 | >= 1.4 |" in text.splitlines()
    (tmp_path / "force.json").write_text(json.dumps(result | {"short": True}))
    with pytest.raises(SystemExit, match="--short"):
        run.writeTable(readme, tmp_path)


def testReadmeHasAPlaceForTheTable(benchmarks):
    _, run = benchmarks
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [text.count(marker) for marker in run.MARKERS] == [1, 1]
