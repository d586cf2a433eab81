"""Writing so that a file is either whole or absent, and the little JSON and TSV that every stage uses."""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from iqt.errors import UserError
from iqt.terminal import note

CHUNK = 1 << 20
"""Bytes that are read at a time."""
DISK = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}
"""Errors in reading a file that are no fault of the file."""
PARTIAL = ".partial-"
"""What the name of an unfinished file begins with."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes `path`'s place when the block ends without an error.

    The temporary name keeps the endings (`.nii.gz`), because writers choose the format by them. A process that is
    killed leaves it behind: see `sweep`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    endings = "".join(path.suffixes[-2:])
    handle, name = tempfile.mkstemp(prefix=f"{PARTIAL}{path.name}-", suffix=endings, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # Some file systems rename before they write: after a power cut the name would stand for nothing.
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would hide results from the rest of a lab
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it takes `path`'s place when the block ends without an error.

    Raises:
        UserError: `path` is there already, and no empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: is there already; name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}{path.name}-", dir=path.parent) as made:
        folder = Path(made) / path.name
        folder.mkdir()
        yield folder
        os.replace(folder, path)


def sweep(paths: Iterable[str | Path]) -> None:
    """Remove what killed processes left of these files under temporary names; each folder is read once."""
    names: dict[Path, set[str]] = {}
    for path in map(Path, paths):
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        for stale in folder.glob(f"{PARTIAL}*"):
            if stale.name.removeprefix(PARTIAL).rsplit("-", 1)[0] in wanted:
                if stale.is_dir():
                    shutil.rmtree(stale, ignore_errors=True)
                else:
                    stale.unlink(missing_ok=True)


def nearest_folder(path: str | Path) -> Path:
    """The path itself if it is a folder, else the nearest one above it that there is."""
    path = Path(path)
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk` through links as well, after all else, and each folder once; folders that are taken out of the list are
    not walked."""
    walked: set[str] = set()
    waiting = [str(root)]
    while waiting:
        for folder, folders, files in os.walk(waiting.pop(0)):
            real = os.path.realpath(folder)
            if real in walked:
                folders.clear()
                continue
            walked.add(real)
            yield Path(folder), folders, files
            waiting += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]


def missing_file(path: str | Path) -> str:
    """What to say of a file that cannot be opened because it is not there: a link may have lost what it points to."""
    path = Path(path)
    if not path.is_symlink():
        return f"{path}: no such file"
    target = os.readlink(path)
    if ".git/annex" in target:
        return f"{path}: its content was not fetched (it is a git-annex link); get the file first, with `datalad get`"
    return f"{path}: is a link to {target}, which is not there; get the file first"


def digest(stream: BinaryIO) -> tuple[int, str]:
    """Size and SHA-256 of what a stream holds."""
    total, checksum = 0, hashlib.sha256()
    while chunk := stream.read(CHUNK):
        total += len(chunk)
        checksum.update(chunk)
    return total, checksum.hexdigest()


def checksum(path: str | Path) -> str:
    """SHA-256 of a file as hexadecimal text."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files that are no UTF-8


def write_json(path: str | Path, content: Mapping) -> None:
    """JSON with two-space indents; NaN is refused, because other readers of JSON refuse it."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; run the stage that writes it first") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, where a JSON file is needed") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise UserError(f"{path}: not readable as JSON ({error}); delete it and run again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def write_table(path: str | Path, rows: Sequence[Mapping], columns: Sequence[str] | None = None) -> None:
    """Rows as TSV, or CSV where the name ends in .csv; `columns` fixes the order and is needed for no rows."""
    columns = list(columns or rows[0])
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(
            handle, columns, delimiter="," if str(path).endswith(".csv") else "\t", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8 or UTF-16 (by its mark), else in Western Europe's Windows code page, which is said.

    Raises:
        UserError: it is absent, not readable, or holds no text.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(missing_file(path)) from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, where a file of text is needed") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in content and not wide:
        raise UserError(f"{path}: holds no text (a byte 0 at {content.index(0)}); save it as text in UTF-8")
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if wide:
            raise UserError(f"{path}: holds no text in UTF-16 ({error.reason}); save it as UTF-8") from None
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: holds no text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    note(f"{path} is no UTF-8 and is read in the code page Windows-1252")
    return text


def read_table(path: str | Path, required: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of a TSV or CSV as text, without blanks around cells. Empty lines are skipped, and cells that a row lacks at
    its end are empty. Where the heading is not separated as the file's ending says, it is by tab, comma or semicolon.

    Raises:
        UserError: the file or a required column is missing, a column is named twice, or a line does not fit the
            heading; the message names the line.
    """
    try:
        text = read_text(path)
    except UserError as error:
        raise UserError(str(error).replace("no such file", "no such table")) from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
    head: list[str] = []
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not head:
                head = _heading(path, cells, required)
                continue
            if any(cells[len(head) :]):
                raise UserError(
                    f"{path}: line {reader.line_num} has {len(cells)} cells, its heading {len(head)}; correct it"
                )
            row = dict.fromkeys(head, "") | dict(zip(head, cells, strict=False))
            short = [name for name in required if head.index(name) >= len(cells)]
            if short:
                raise UserError(f"{path}: line {reader.line_num} ends before its column {short[0]}; complete it")
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not readable ({error}); is a quote not closed?") from None
    if not head:
        _heading(path, [], required)
    return rows


def _delimiter(path: str | Path, text: str) -> str:
    own = "," if str(path).endswith(".csv") else "\t"
    first = text.lstrip().partition("\n")[0]
    return own if own in first else max((own, "\t", ";", ","), key=first.count)


def _heading(path: str | Path, cells: Sequence[str], required: Sequence[str]) -> list[str]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise UserError(f"{path}: column {', '.join(map(repr, twice))} is named twice; give each a name of its own")
    missing = [name for name in required if name not in cells]
    if missing:
        raise UserError(f"{path}: column {', '.join(missing)} is missing; it has {', '.join(cells) or 'none'}")
    return list(cells)
