"""Add up what the steps of `make test` found; its last line is the result of the whole.

    python .ci/summary.py _build/reports [steps that failed]

The steps that run pytest leave a JUnit report. A failed step without one counts as one failure.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

STEPS = ("lint", "unit", "nbval", "pages")


def count(report: Path) -> dict[str, int]:
    """Passed, failed and skipped tests of one JUnit report."""
    suites = list(ET.parse(report).getroot().iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return {"passed": tests - failed - skipped, "failed": failed, "skipped": skipped}


def main(folder: str, *failed_steps: str) -> int:
    total = {"passed": 0, "failed": 0, "skipped": 0}
    print("\n== Summary")
    for step in STEPS:
        report = Path(folder) / f"{step}.xml"
        found = count(report) if report.exists() else {"passed": 0, "failed": 0, "skipped": 0}
        if step in failed_steps and not found["failed"]:
            found["failed"] = 1
        elif not report.exists() and step not in failed_steps:
            found["passed"] = 1
        print(f"{step:<6} " + ", ".join(f"{number} {what}" for what, number in found.items()))
        for what, number in found.items():
            total[what] += number
    print(", ".join(f"{number} {what}" for what, number in total.items()))
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
