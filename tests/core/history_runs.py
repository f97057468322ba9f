"""Run folders as training writes them, made in a moment for tests of looking back."""

import json


def make(folder, **facts):
    """Write a finished run; `settings`, `records`, `result` and others replace the usual."""
    folder.mkdir(parents=True)
    settings = {"data": "digits", "model": "small", "learning_rate": 0.01, "seed": 0}
    settings |= facts.pop("settings", {})
    config = {name: {"value": value, "origin": "default"} for name, value in settings.items()}
    for name, origin in facts.pop("origins", {}).items():
        config[name]["origin"] = origin
    records = facts.pop("records", None)
    if records is None:
        records = [record(epoch, accuracy=0.5 + epoch / 10) for epoch in (1, 2, 3)]
    parts = {
        "config.json": config,
        "environment.json": facts.pop("environment", {"python": "3.11.9", "cores": 2}),
        "data.json": {"fingerprint": facts.pop("fingerprint", "f00d"), "counts": {"train": 10}},
        "run.json": {
            "format": 1,
            "dltool": "0.1.0",
            "topic": "cnn",
            "name": "digits-small",
            "status": "finished",
            "grade": "bitwise",
            "created": "2026-11-21T10:00:00+00:00",
            "command": ["dltool", "cnn", "train"],
            "process": 1,
            "result": {"val_accuracy": 0.8, "test_accuracy": score(0.75)},
            **facts,
        },
    }
    for name, content in parts.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    lines = "".join(json.dumps(each) + "\n" for each in records)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder


def score(value, n=100, half=0.05):
    """Return a result's number as topics write it."""
    return {"value": value, "n": n, "low": value - half, "high": value + half, "baseline": 0.1}


def record(epoch, accuracy, best=True):
    """Return a logged line."""
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "train_loss": 1 / epoch,
        "val_loss": 1.1 / epoch,
        "val_accuracy": accuracy,
        "lr": 0.01,
        "seconds": 0.5 * epoch,
        "best": best,
    }
