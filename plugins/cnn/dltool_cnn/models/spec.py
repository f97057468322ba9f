"""What builds a network, and what it refuses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dltool.errors import ConfigError

SMALL_IMAGE = 64


@dataclass(frozen=True)
class Spec:
    """What builds a network: its name and its sizes.

    Attributes:
        height, width: of the images that come in.
        base_width: channels of the first layer where a network can be had in widths; 0: its own.
        side: side that the network enlarges images to before it looks at them; 0: as they are.
    """

    name: str
    channels: int
    height: int
    width: int
    num_classes: int
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    base_width: int = 0
    side: int = 0

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width of what the first layer sees."""
        return (self.side, self.side) if self.side else (self.height, self.width)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """Rebuild a spec from JSON values."""
        return cls(**{**values, "hidden": tuple(values.get("hidden", ()))})


def at_least(spec: Spec, side: int) -> None:
    """Refuse images that a network cannot take.

    Raises:
        ConfigError: E202, they are smaller than `side`.
    """
    height, width = spec.seen
    if min(height, width) < side:
        enough = max(side, 28)
        shape = f"{spec.channels}x{enough}x{enough}"
        raise ConfigError(
            "E202",
            f"{spec.name} needs images of at least {side}x{side} pixels",
            received=f"{height}x{width}",
            cure=f"add --image-size {enough} (to summary: --input {shape})",
        )
