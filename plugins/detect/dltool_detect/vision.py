"""Import torchvision without torch's compiler, which takes longer to load than all the rest.

torchvision 0.29 loads `torch._dynamo` for one function, asked only by RoIAlign in deterministic
mode on a GPU. Here that function is found when it is first asked; for one picture this saves a
third of the time from the call to the box.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def load() -> None:
    """Import torchvision; where the short way does not work, in the usual way."""
    import torch  # noqa: F401  (before the stand-ins: it may load the compiler itself)

    if "torchvision" in sys.modules or any(name in sys.modules for name in COMPILER):
        return
    stand_ins = {name: ModuleType(name) for name in COMPILER}
    stand_ins[COMPILER[1]].is_compile_supported = _ask  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        import torchvision.models.detection  # noqa: F401
    except Exception:  # another version may want more of the compiler
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def _ask(device_type: Any) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))
