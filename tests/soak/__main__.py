"""python -m tests.soak [--only CASE...] [--repeat N] [--seed N] [--keep] --results FILE

Runs trials and appends one JSON line each to FILE. Trials whose line is in FILE already are not run again: stop it
whenever you like, and give the same command to go on. What a violation left behind is kept in FILE.evidence/. At the
end, or with --summary alone, it prints a summary: median, min and max of each figure against its target, each
violation, and each trial that was not made because its nodes did not come up; those are tried once more at the next
time. The exit code is 1 where there are violations, or trials that have not been made since.

Without root the cases that need machines of their own (network namespaces) are skipped, and it says so.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.soak.cases import CASES, Case
from tests.soak.nodes import Standing
from tests.soak.results import Result, append, load, made, never_made, summary
from tests.soak.run import run

SAID = ("next_start_s", "next_assigned_s", "again", "redone", "peak_mb")
"""Figures that are printed after each trial."""


def main() -> int:
    """Returns the exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, _stop)
    path: Path = options.results
    results = load(path)
    try:
        with Standing() as standing:
            for case in () if options.summary else [CASES[name] for name in options.only or CASES]:
                done = {result["trial"] for result in results if result["case"] == case.name and made(result)}
                if reason := case.why_not():
                    print(f"{case.name}: skipped: {reason}")
                    continue
                for number in range(case.repeat if options.repeat is None else options.repeat):
                    if number not in done:
                        results.append(_trial(case, number, options, standing))
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.")
    print(summary(results))
    return int(any(result["violations"] for result in results) or bool(never_made(results)))


def _stop(number: int, frame: object) -> None:
    """SIGTERM: end as at Ctrl-C, once; its nodes and namespaces go before it does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _trial(case: Case, number: int, options: argparse.Namespace, standing: Standing) -> Result:
    """Run one, write its line down, and say so."""
    begun = time.monotonic()
    path: Path = options.results
    kept = path.with_name(path.name + ".evidence")
    result = run(case, number, seed=options.seed, kept=kept, standing=standing, always=options.keep)
    append(path, result)
    said = "; ".join(result["violations"]) or "ok" if made(result) else f"not made: {result['not_made']}"
    figures = {name: result[name] for name in SAID if name in result}
    print(f"{case.name} {number}: {said} {figures} {time.monotonic() - begun:.1f} s", flush=True)
    return result


def _options() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("--only", nargs="+", choices=list(CASES), metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--repeat", type=int, metavar="N", help="trials of each case [20 or 50, as promised]")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of everything that is chosen [1]")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE")
    parser.add_argument("--keep", action="store_true", help="what trials leave behind, also of those that went well")
    parser.add_argument("--summary", action="store_true", help="run nothing; print what FILE says")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
