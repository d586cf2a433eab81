"""What a command says on the terminal beside its results: on stderr, coloured only on a terminal."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from iqt.errors import UserError

LEVEL = "IQT_VERBOSITY"
"""Environment variable: `quiet` (warnings and errors alone), `verbose`, or neither."""
COLOURS = {"warning": "33", "error": "31"}


def warn(text: str) -> None:
    """What may be wrong with a result; always said."""
    _say("warning", text)


def note(text: str) -> None:
    """What a user may want to know, unless they asked for quiet."""
    if os.environ.get(LEVEL) != "quiet":
        _say("note", text)


def detail(text: str) -> None:
    """What only those want to know who asked for more."""
    if os.environ.get(LEVEL) == "verbose":
        _say("detail", text)


def coloured(kind: str, text: str) -> str:
    """A text in the colour of its kind where stderr is a terminal that shows colours (https://no-color.org)."""
    shown = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\033[{COLOURS[kind]}m{text}\033[0m" if shown and kind in COLOURS else text


def _say(kind: str, text: str) -> None:
    line = f"{coloured(kind, f'{kind}:')} {text}"
    if "tqdm" in sys.modules:  # or it would be written into a bar
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
    else:
        print(line, file=sys.stderr, flush=True)


class Bar:
    """One progress bar for all that a command does, phase by phase; nothing where stderr is no terminal or a user asked
    for quiet."""

    def __init__(self, **phases: float) -> None:
        """`phases`: about how much of the time each takes, in the order in which they come."""
        from tqdm import tqdm

        whole = sum(phases.values())
        self._shares = {name: share / whole for name, share in phases.items()}
        self._begin, self._share = 0.0, 0.0
        quiet = os.environ.get(LEVEL) == "quiet"
        shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        self._bar = tqdm(total=1.0, bar_format=shape, disable=True if quiet else None, leave=False)

    def phase(self, name: str) -> None:
        """The next phase begins: the bar stands where all before it are done."""
        names = list(self._shares)
        self._begin = sum(self._shares[before] for before in names[: names.index(name)])
        self._share = self._shares[name]
        self._bar.set_description_str(name.replace("_", " "), refresh=False)
        self._at(self._begin)

    def within(self, done: int, total: int) -> None:
        """How far the phase is."""
        self._at(self._begin + self._share * done / max(total, 1))

    def _at(self, share: float) -> None:
        self._bar.n = share
        self._bar.refresh()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "write to another folder",
    errno.EACCES: "make it accessible",
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
        "name another file or folder",
    ),
}
"""What a user can do about the machine's errors."""


@contextmanager
def one_message(program: str) -> Iterator[None]:
    """End a program whose user, or whose machine, made an error with one message and exit status 1, Ctrl-C in 130."""
    try:
        yield
    except UserError as error:
        sys.exit(f"{program}: {coloured('error', 'error:')} {error}")
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        where = f"{error.filename}: " if error.filename else ""
        remedy = f"{REMEDIES[error.errno]} and run the same command again"
        sys.exit(f"{program}: {coloured('error', 'error:')} {where}{error.strerror}; {remedy}")
    except KeyboardInterrupt:
        sys.exit(130)
