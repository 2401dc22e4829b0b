# SPDX-License-Identifier: MIT
from types import SimpleNamespace

import pytest
from openmmflow.reporters import JumpReporter, repairCsv

HEADER = ",".join(JumpReporter.columns)


class Integrator:
    """Counts as the real one does, without a Context."""

    def __init__(self):
        self.trials = self.accepted = 0

    def getJumpStatistics(self):
        return SimpleNamespace(trials=self.trials, accepted=self.accepted, nonFinite=2, failed=1)

    def getLogAlphaQuantiles(self, probabilities):
        return [100 * p for p in probabilities]


def makeSimulation(step=0):
    return SimpleNamespace(currentStep=step, integrator=Integrator())


def report(reporter, simulation, step, trials, accepted):
    simulation.currentStep = step
    simulation.integrator.trials, simulation.integrator.accepted = trials, accepted
    reporter.report(simulation, None)


def testWritesTotalsAndTheAcceptanceSinceTheLastLine(tmp_path):
    file, simulation = tmp_path / "jumps.csv", makeSimulation()
    reporter = JumpReporter(file, 10)
    report(reporter, simulation, 10, 4, 1)
    report(reporter, simulation, 20, 8, 4)
    assert file.read_text().splitlines() == [HEADER, "10,4,1,0.25,2,1,5,25,50,75,95", "20,8,4,0.75,2,1,5,25,50,75,95"]


def testAcceptanceIsNanWithoutTrialsAndSurvivesAReset(tmp_path):
    file, simulation = tmp_path / "jumps.csv", makeSimulation()
    reporter = JumpReporter(file, 10)
    report(reporter, simulation, 10, 0, 0)
    report(reporter, simulation, 20, 8, 4)
    report(reporter, simulation, 30, 4, 1)
    acceptances = [line.split(",")[3] for line in file.read_text().splitlines()[1:]]
    assert acceptances == ["nan", "0.5", "0.25"]


def testAsksForTheNextMultipleOfTheInterval(tmp_path):
    reporter = JumpReporter(tmp_path / "jumps.csv", 10)
    assert [reporter.describeNextReport(makeSimulation(step))["steps"] for step in (0, 3, 10)] == [10, 7, 10]


def testAppendingWritesNoSecondHeader(tmp_path):
    file = tmp_path / "jumps.csv"
    for step in (10, 20):
        report(JumpReporter(file, 10, append=True), makeSimulation(), step, 1, 1)
    assert [line.split(",")[0] for line in file.read_text().splitlines()] == ["step", "10", "20"]


def testWithoutAppendAFileIsReplaced(tmp_path):
    file = tmp_path / "jumps.csv"
    file.write_text("anything\n")
    JumpReporter(file, 10)
    assert file.read_text() == HEADER + "\n"


def testAppendingAfterAnyTruncationLeavesWholeLines(tmp_path):
    file, simulation = tmp_path / "jumps.csv", makeSimulation()
    reporter = JumpReporter(file, 10)
    for step in (10, 20):
        report(reporter, simulation, step, step, 1)
    whole = file.read_bytes()
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        report(JumpReporter(file, 10, append=True), simulation, 30, 1, 1)
        lines = file.read_text().splitlines()
        kept = whole[:size].count(b"\n")
        assert lines[0] == HEADER and len(lines) == max(kept, 1) + 1
        assert all(line.count(",") == HEADER.count(",") for line in lines)


def testAppendingRefusesAnotherTable(tmp_path):
    file = tmp_path / "other.csv"
    file.write_text("time,energy\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        JumpReporter(file, 10, append=True)
    assert file.read_text() == "time,energy\n1,2\n"


def testRefusesAnIntervalBelowOne(tmp_path):
    with pytest.raises(ValueError, match="reportInterval is 0, but must be at least 1"):
        JumpReporter(tmp_path / "jumps.csv", 0)


def testRepairDropsLinesAfterTheLastStep(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("step,value\n10,1\n20,2\n30,3\n")
    assert repairCsv(file, "step,value", lastStep=20)
    assert file.read_text() == "step,value\n10,1\n20,2\n"
