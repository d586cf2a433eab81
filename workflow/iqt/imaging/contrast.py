"""The contrast of a scan, by what its name and its sidecar say."""

from __future__ import annotations

import json
import re
from pathlib import Path

from iqt.io.naming import image_stem

CONTRASTS = (
    "T1w",
    "T2w",
    "FLAIR",
    "PDw",
    "T2starw",
    "inplaneT1",
    "inplaneT2",
    "T1map",
    "T2map",
    "bold",
    "dwi",
    "angio",
)
WORDS = {
    "T1w": r"t1w?|mp2?rage|spgr|tfl|bravo|fspgr|mpr",
    "T2w": r"t2w?|space_?t2|t2_?tse|t2_?fse",
    "FLAIR": r"flair|(?:t2|dark)_?fluid",
    "PDw": r"pdw?",
}
"""What people write into names, as whole words."""
PROTOCOL = ("SeriesDescription", "ProtocolName")


def contrast_of(path: Path) -> tuple[str | None, str]:
    """The BIDS suffix of a scan's contrast and what says so: the suffix of its name, else a word in it, else its
    sidecar, which is the simulator's or describes the series; None where nothing says anything."""
    stem = image_stem(path.name)
    if (suffix := suffix_of(path)) is not None:
        return suffix, path.name
    if (found := contrast_in(stem)) is not None:
        return found, path.name
    sidecar = path.with_name(f"{stem}.json")
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        if facts.get("suffix") in CONTRASTS:  # a record of `iqt degrade`
            return facts["suffix"], sidecar.name
        text = " ".join(str(facts.get(key, "")) for key in PROTOCOL)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None, ""
    return contrast_in(text), sidecar.name


def suffix_of(path: Path) -> str | None:
    """The contrast that a BIDS suffix at the end of a scan's name says; None where it ends otherwise."""
    suffix = image_stem(path.name).rpartition("_")[2]
    return suffix if suffix in CONTRASTS else None


def contrast_warnings(path: Path, trained: str | None) -> list[str]:
    """A sentence where the scan's contrast is another than that of the scans that a model was trained on."""
    found, where = contrast_of(path)
    if trained is None or found in (None, trained):
        return []
    return [
        f"{where} says {found}, but the model was trained on {trained} scans: the result is not to be trusted; use a "
        f"model of {found}"
    ]


def contrast_in(text: str) -> str | None:
    """The contrast that a text names, if it names but one."""
    parts = f"_{re.sub(r'[^a-z0-9]+', '_', text.lower())}_"
    found = [name for name, words in WORDS.items() if re.search(rf"_(?:{words})_", parts)]
    if "FLAIR" in found:  # is often called T2 FLAIR; T1 FLAIR is another, T1-weighted sequence
        return "T1w" if re.search(r"_t1w?_flair_", parts) else "FLAIR"
    return found[0] if len(found) == 1 else None
