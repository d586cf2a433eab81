"""From YAML to a validated configuration, with errors that say what to do."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from iqt.config.benchmark import Config
from iqt.config.methods import KINDS
from iqt.config.section import Section, SectionType, hint, merge
from iqt.errors import UserError
from iqt.io.files import read_text


def parse_config(raw: Mapping, source: str = "config") -> Config:
    """Validate a configuration as read from YAML.

    Raises:
        UserError: one message that lists every problem as file, key, value, what is allowed, and a hint.
    """
    raw = copy.deepcopy(dict(raw))
    methods = raw.get("methods")
    if isinstance(methods, Mapping):
        shared = {key: raw[key] for key in ("patches", "training") if isinstance(raw.get(key), Mapping)}
        raw["methods"] = _resolve_bases(methods, shared, source)
    sets = raw.get("lowfield")
    if isinstance(sets, Mapping):
        raw["lowfield"] = {name: _resolve_base(sets, name, "lowfield", source) for name in sets}
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(_explain(error, source)) from None


def read_config(path: Path) -> Config:
    """The configuration in a YAML file; UserError where it is not readable or not valid."""
    return parse_config(_read_yaml(path) or {}, str(path))


def require_plain_numbers(path: Path) -> None:
    """UserError where a YAML file writes a whole number in a way that reads as another one: 010 is 8, and 1:30 is 90.

    An id that is written so, with its zeros, would become somebody else's.
    """
    _require_plain_numbers(read_text(path), path)


def _require_plain_numbers(text: str, path: Path) -> None:
    import yaml

    try:
        tokens = list(yaml.scan(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError):
        return  # what is wrong with it is said where it is read
    for token in tokens:
        written = token.value if isinstance(token, yaml.ScalarToken) and token.plain else ""
        if not written[:2].strip("+-")[:1].isdigit():
            continue
        value = _parse_yaml(written, str(path))
        if isinstance(value, int) and str(value) != written.replace("_", "").lstrip("+"):
            raise UserError(
                f"{path}: line {token.start_mark.line + 1}: {written} would be read as the number {value}; write an id "
                f"in quotes, as '{written}', and a number as {value}"
            )


def _read_yaml(path: Path) -> Any:
    text = read_text(path)
    _require_plain_numbers(text, path)
    return _parse_yaml(text, str(path))


def _parse_yaml(text: str, source: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}: not readable as YAML ({error})") from None
    except RecursionError:
        raise UserError(f"{source}: is nested too deeply to be a configuration") from None


def parse_section(model: type[SectionType], text: str | None, option: str = "--settings") -> SectionType:
    """A section from a JSON text (as the rules pass it) or from a YAML or JSON file; the defaults for None. `option` is
    what a user gave it by, for messages."""
    if text is None:
        return model()
    if text.lstrip().startswith("{"):
        source, raw = option, _parse_yaml(text, option)
    else:
        source, path = text, Path(text)
        if not path.is_file():
            raise UserError(f"{option} {text}: neither JSON nor a file")
        raw = _read_yaml(path)
    try:
        return model.model_validate(raw or {})
    except ValidationError as error:
        raise UserError(_explain(error, source, model)) from None


def _resolve_bases(methods: Mapping, shared: Mapping, source: str) -> dict:
    """Methods with what they copy from others, and trained ones laid over the sections that they share."""
    resolved: dict[str, Any] = {}
    for name in methods:
        entry = _resolve_base(methods, name, "methods", source)
        if isinstance(entry, Mapping) and _is_learned(entry.get("kind")):
            entry = {**entry, **{key: merge(section, entry.get(key) or {}) for key, section in shared.items()}}
        if isinstance(methods[name], Mapping) and "base" in methods[name]:
            entry = {**entry, "base": methods[name]["base"]}
        resolved[name] = entry
    return resolved


def _resolve_base(entries: Mapping, name: str, section: str, source: str, above: tuple[str, ...] = ()) -> Any:
    """An entry laid over the one that its `base` names, and that one over its own."""
    entry = entries[name]
    if not isinstance(entry, Mapping) or "base" not in entry:
        return entry
    base = entry["base"]
    if base not in entries:
        raise UserError(f"{source}: {section}.{name}.base = {base!r} names no entry. {hint(base, entries)}")
    if base in (*above, name):
        raise UserError(f"{source}: {section}.{name}.base = {base!r} goes in a circle; base it on another entry")
    if "preset" in entry:
        raise UserError(
            f"{source}: {section}.{name} has both base and preset, which set the same keys; leave one of them out"
        )
    changes = {key: value for key, value in entry.items() if key != "base"}
    return merge(_resolve_base(entries, base, section, source, (*above, name)) or {}, changes)


def _is_learned(kind: Any) -> bool:
    return isinstance(kind, str) and kind in KINDS and KINDS[kind].trained


def _explain(error: ValidationError, source: str, model: type[Section] = Config) -> str:
    lines = []
    for problem in error.errors():
        where = problem["loc"]
        section = _section_at(model, where[:-1])
        if model is Config and where[:1] == ("methods",):
            where = where[:2] + where[3:]  # the third part is the kind, by which pydantic chose the model
        key = ".".join(str(part) for part in where) or "(whole file)"
        value = "..." if problem["type"] == "secret_in_url" else problem.get("input")
        shown = "a section" if isinstance(value, Mapping | BaseModel) else json.dumps(value, default=str)
        if problem["type"] == "extra_forbidden":
            allowed = list(section.model_fields) if section else []
            # Without its value, which may be a secret.
            lines.append(f"  {key}: unknown key. {hint(str(where[-1]), allowed)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"  {key} = {shown}: {message[0].lower()}{message[1:]}{'' if message.endswith('?') else '.'}")
    return f"{source}: the configuration is not valid.\n" + "\n".join(lines) + "\nEvery key: config/README.md"


def _section_at(model: type[Section], where: tuple) -> type[Section] | None:
    """The section at a location of a validation error."""
    if model is Config and where[:1] == ("methods",):
        return _section_at(KINDS[where[2]], where[3:]) if len(where) > 2 else None
    for part in where:
        field = model.model_fields.get(part) if model else None
        if field is None:  # a name inside a dictionary of sections
            continue
        choices = (field.annotation, *get_args(field.annotation))
        model = next((kind for kind in choices if isinstance(kind, type) and issubclass(kind, Section)), None)
    return model
