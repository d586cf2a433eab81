"""What the page shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator

from iqt.config.section import Section
from iqt.config.sources import as_id
from iqt.errors import UserError


def _shown(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000:
        return value
    if isinstance(value, list) and value:
        return [as_id(name) for name in value]
    raise ValueError("an integer from 1 to 10000 (people), or a list of ids, is needed")


Shown = Annotated[int | list[str], BeforeValidator(_shown)]


class Report(Section):
    """What the page shows."""

    people: Shown = 3
    """Test people whose slices are drawn and whose volumes the viewer shows: a number takes the first by name, a list
    names them (`[sub-01, sub-07_ses-2]`). Of a person with several scans it is the first, unless a scan is named."""

    def shown(self, scans: Iterable[str]) -> list[str]:
        """The test scans to show, one per person, never chosen by a result.

        Args:
            scans: names of all test scans.

        Raises:
            UserError: somebody named is no test person.
        """
        first: dict[str, str] = {}
        for scan in sorted(scans):
            first.setdefault(scan.split("_")[0], scan)
        if isinstance(self.people, int):
            return list(first.values())[: self.people]
        known = {**first, **{scan: scan for scan in scans}}
        wanted = [f"sub-{name.removeprefix('sub-')}" for name in self.people]
        unknown = [name for name in wanted if name not in known]
        if unknown:
            some = ", ".join(list(first)[:10]) + (", ..." if len(first) > 10 else "")
            raise UserError(
                f"report.people: {', '.join(unknown)} is not among the test people; choose of the {len(first)}: {some}"
            )
        return list(dict.fromkeys(known[name] for name in wanted))
