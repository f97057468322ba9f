"""Put a trained detector into the wheel: weights in half precision, described.

    python plugins/detect/ship.py RUN

The run's own command and figures go into `model.json`; the card beside it is written by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dltool_detect.models import build

from dltool import checkpoint, manifests, resuming, runs

TARGET = Path(__file__).parent / "dltool_detect" / "shipped"
CARD = "README.md"


def main() -> None:
    """Write the folder and print what it weighs."""
    run = Path(sys.argv[1])
    detector = build.load_run(run)
    config = runs.read_json(run, "config.json")
    facts = runs.read_json(run)
    given = {
        name: item["value"]
        for name, item in config.items()
        if item["origin"] != "default" and name not in resuming.FREE
    }
    given["data"] = Path(given["data"]).name
    data = runs.read_json(run, "data.json")
    result = facts["result"]
    description = {
        **build.describe(detector),
        "results": {key: result[key] for key in ("split", "ap50", "ap", "val_ap", "best_epoch")},
        "interval": result[result["split"]]["ap50_interval"],
        "trained": {"settings": given, "data": data["counts"], "seed": config["seed"]["value"]},
    }
    card = (TARGET / CARD).read_bytes() if (TARGET / CARD).exists() else b""
    checkpoint.save_model(TARGET, detector.half(), description)
    (TARGET / CARD).write_bytes(card)
    size = (TARGET / manifests.MODEL).stat().st_size
    print(json.dumps({"folder": str(TARGET), "bytes": size, **description["results"]}))


if __name__ == "__main__":
    main()
