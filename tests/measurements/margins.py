"""How far every numerical assertion is from its bound, and which margins depend on the processor. A pytest plugin.

    pytest -p measurements.margins -o enable_assertion_pass_hook=true --margins a.json    # once a setting, such as
                                                                 # ONEDNN_MAX_CPU_ISA=AVX2
    python tests/measurements/margins.py a.json b.json     # what changes by more than a third between them

A margin is the distance to the bound as a share of it (of the tolerance, for approximate equality): 0 is on the bound.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np

NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
COMPARED = re.compile(
    rf"^\(?(?:np\.float\d+\()?({NUMBER})\)* (<=|>=|<|>) \(?(?:np\.float\d+\()?({NUMBER})\)?(?: (\*|/) ({NUMBER})\)?)?"
)
APPROXIMATE = re.compile(rf"^\(?(?:np\.float\d+\()?({NUMBER})\)* == ({NUMBER}) ± ({NUMBER})")
CHANGED = 1 / 3
FOUND: dict[str, float] = {}


def pytest_addoption(parser) -> None:
    parser.addoption("--margins", help="JSON to write the margins to.")


def pytest_configure(config) -> None:
    if config.getoption("--margins"):
        _watch(np.testing, "assert_allclose", {"rtol": 1e-7, "atol": 0.0})


def pytest_assertion_pass(item, lineno: int, orig: str, expl: str) -> None:
    """Note the margin of an assertion that compares two numbers."""
    first = expl.split("\n")[0]
    if found := APPROXIMATE.match(first):
        value, wanted, tolerance = (float(part) for part in found.groups())
        _note(f"{item.nodeid}:{lineno} {orig}", 1 - abs(value - wanted) / tolerance if tolerance else 1.0)
    elif found := COMPARED.match(first):
        value, bound = float(found[1]), float(found[3])
        if found[4]:
            bound = bound * float(found[5]) if found[4] == "*" else bound / float(found[5])
        if "." in first and bound:
            _note(f"{item.nodeid}:{lineno} {orig}", abs(value - bound) / abs(bound))


def pytest_sessionfinish(session) -> None:
    if path := session.config.getoption("--margins"):
        Path(path).write_text(json.dumps(FOUND, indent=1))


def _note(key: str, margin: float) -> None:
    FOUND[key] = min(margin, FOUND.get(key, np.inf))


def _watch(module, name: str, defaults: dict[str, float]) -> None:
    plain = getattr(module, name)

    def watched(actual, desired, *arguments, **options):
        frame = sys._getframe(1)
        rtol, atol = (options.get(key, value) for key, value in defaults.items())
        off = np.abs(np.asarray(actual, float) - np.asarray(desired, float))
        allowed = atol + rtol * np.abs(np.asarray(desired, float))
        with np.errstate(all="ignore"):
            used = float(np.nanmax(np.where(allowed > 0, off / allowed, 0), initial=0))
        _note(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {name}", 1 - used)
        return plain(actual, desired, *arguments, **options)

    setattr(module, name, watched)


def main() -> None:
    one, other = (json.loads(Path(path).read_text()) for path in sys.argv[1:3])
    rows = []
    for key in one.keys() & other.keys():
        low, high = sorted((one[key], other[key]))
        if high - low > CHANGED * max(abs(high), 1e-9):
            rows.append((low, high, key))
    print(f"{len(one.keys() & other.keys())} margins; {len(rows)} change by more than a third:")
    for low, high, key in sorted(rows):
        print(f"{low:8.3f} {high:8.3f}  {key}")


if __name__ == "__main__":
    main()
