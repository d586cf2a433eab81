"""Tables as a person reads them: Markdown and LaTeX from the same cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Cells = Callable[[Callable[[str], str]], list[list[str]]]
"""A heading and lines of text, given how bold text is written."""


BOLD, PLAIN = "\x0e", "\x0f"
"""Stand for the command of bold text until all else is escaped."""
SPECIAL = {
    **{plain: f"\\{plain}" for plain in "%_&#${}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "–": "--", "−": "$-$", "³": "$^3$", "≥": r"$\ge$", "±": r"$\pm$"},
    **{BOLD: r"\textbf{", PLAIN: "}"},
}


def markdown(cells: Cells, title: str, note: str, n_text: int = 1) -> str:
    """A title, a table whose first `n_text` columns are aligned left, and a note."""
    head, *body = ([escape_markdown(cell) for cell in line] for line in cells(marked))
    rule = [*["---"] * n_text, *["---:"] * (len(head) - n_text)]
    lines = ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
    return f"{escape_markdown(title)}\n\n" + "\n".join(lines) + f"\n\n{escape_markdown(note)}\n"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, bold where it is `marked`; an underscore between letters means nothing."""
    text = re.sub(r"([\\`*|<>~]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", " ".join(text.split()))
    return text.replace(BOLD, "**").replace(PLAIN, "**")


def latex(cells: Cells, title: str, note: str, n_text: int = 1, long: bool = False) -> str:
    """A tabular of booktabs, its title and note as comments; a longtable where `long`, since a tabular never breaks."""
    lines = cells(marked)
    head, *body = ([_escaped(cell) for cell in line] for line in lines)
    environment = "longtable" if long else "tabular"
    packages = r"\usepackage{booktabs}" + (r", \usepackage{longtable}" if long else "")
    written = [
        f"% needs {packages}; {' '.join(title.split())}",
        *(f"% {sentence}" for sentence in _escaped(note).split(". ")),
        rf"\begin{{{environment}}}{{{'l' * n_text}{'r' * (len(head) - n_text)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *([r"\endhead"] if long else []),
        *(" & ".join(line) + r" \\" for line in body),
        r"\bottomrule",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(written) + "\n"


def marked(text: str) -> str:
    """Text that shall be bold, whatever escapes it later."""
    return f"{BOLD}{text}{PLAIN}"


def bracketed(value: str, interval: Sequence[str]) -> str:
    """`value (low–high)`; `to` between limits that may be negative; the value alone where a limit is missing."""
    low, high = interval
    if "–" in (low, high):
        return value
    return f"{value} ({low} to {high})" if low[:1] in "+-−" or high[:1] in "+-−" else f"{value} ({low}–{high})"


def _escaped(text: str) -> str:
    """Each character by itself, so that what one is written as is not escaped again."""
    return "".join(SPECIAL.get(character, character) for character in text)
