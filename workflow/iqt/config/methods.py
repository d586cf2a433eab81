"""Methods: what is compared, each an entry of the configuration, of a kind that a module of `iqt.methods` holds."""

from __future__ import annotations

from typing import Annotated, Union

from pydantic import Field

from iqt.methods import kinds

KINDS = kinds()
Method = Annotated[Union[tuple(dict.fromkeys(KINDS.values()))], Field(discriminator="kind")]  # noqa: UP007
