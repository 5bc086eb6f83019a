"""What a rehearsal finds, each in a line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Finding:
    """What a rehearsal found: it fails the session for certain, or it may."""

    text: str
    certain: bool = False

    def __str__(self) -> str:
        return f"{'certain' if self.certain else 'warning'}: {self.text}"


certain = partial(Finding, certain=True)
