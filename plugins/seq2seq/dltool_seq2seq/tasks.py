"""Generated tasks: pairs of texts drawn from the run's seed.

Each target belongs to one of the splits, by a hash of the seed and the target. So no result, date
or sentence of the validation and test splits occurs in training, nor the same sum the other way
round.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import date, timedelta

from dltool.device import derive_seed
from dltool.errors import ConfigError, DataError
from dltool_seq2seq.config import TrainConfig

Pair = tuple[str, str]
SPLITS = ("train", "val", "test")
VALIDATION_PAIRS, TEST_PAIRS, LEAST_PAIRS = 1000, 2000, 100
PATIENCE = 2000  # draws for each pair that is wanted, before the task is taken to be exhausted
FRACTIONS = 2.0**-63

MONTH_NAMES = (
    "January February March April May June July August September October November December"
)
DAY_NAMES = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
MONTHS, DAYS = MONTH_NAMES.split(), DAY_NAMES.split()
FIRST_DAY, NUMBER_OF_DAYS = date(1950, 1, 1), 36_525
COMMON_WORDS = (
    "about above after again air always animal answer apple around autumn baby basket beach bear "
    "because bed before begin behind between bird black blue boat book bottle bread breakfast "
    "bridge bright bring brother brown build butter camera candle carry castle chair cheese "
    "children church circle clean clear clock cloud coffee cold colour country dance daughter deep "
    "different dinner doctor door down dream drive early earth east empty evening every family "
    "farmer father field find fire first fish floor flower follow forest friend from front fruit "
    "garden girl glass gold grass great green ground guitar hand happy heart heavy help high hill "
    "home horse hospital house hundred island kitchen knife large laugh learn leave letter light "
    "listen little long machine many market meat middle milk minute money month moon morning "
    "mother mountain mouth music never night north number ocean often open orange other paper "
    "pencil people piano picture place plant pocket point pretty question quick quiet rabbit rain "
    "river road round sailor salt school season second seven ship shoulder silver simple sister "
    "slow small snow soldier south spring square star station still stone story street strong "
    "sugar summer sunday table teacher their there thing third thousand through ticket today "
    "together tomorrow tower train travel tree under uncle valley village visit voice water "
    "weather west white window winter woman wonder wood world yellow young"
)
WORDS = COMMON_WORDS.split()
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def generate(config: TrainConfig) -> dict[str, list[Pair]]:
    """Return the pairs of each split; all sources differ, but `hello` is one pair many times.

    Raises:
        DataError: E503, the task is too small for three splits.
    """
    if config.task == "hello":
        return {"train": [("hello", "ohlol")] * config.samples, "val": [], "test": []}
    most = max(config.samples // 5, LEAST_PAIRS)
    wanted = {
        "train": config.samples,
        "val": min(most, VALIDATION_PAIRS),
        "test": min(most, TEST_PAIRS),
    }
    pairs = {split: drawn(config, split, count) for split, count in wanted.items()}
    empty = [split for split in SPLITS if not pairs[split]]
    if empty:
        raise DataError(
            "E503",
            f"the task {config.task} is too small: its {empty[0]} split is empty",
            cure="use a larger --max-value, or larger --val-fraction and --test-fraction",
        )
    return pairs


def drawn(config: TrainConfig, split: str, count: int) -> list[Pair]:
    """Return up to `count` pairs of a split, in an order that depends on seed and split alone."""
    draw = _drawer(config)
    stream = random.Random(derive_seed(config.seed, config.task, split))
    found: dict[str, str] = {}
    idle = 0
    while len(found) < count and idle < PATIENCE:
        source, target = draw(stream)
        if source in found or split_of(target, config) != split:
            idle += 1
            continue
        found[source] = target
        idle = 0
    return list(found.items())


def split_of(target: str, config: TrainConfig) -> str:
    """Return the split that a target belongs to."""
    place = derive_seed(config.seed, "split", target) * FRACTIONS
    if place < config.test_fraction:
        return "test"
    return "val" if place < config.test_fraction + config.val_fraction else "train"


def _drawer(config: TrainConfig) -> Callable[[random.Random], Pair]:
    if config.task == "arithmetic":
        return lambda stream: _sum(stream, config.max_value, config.operators)
    return {"reverse": _reversed, "date": _date, "spelling": _misspelt}[config.task]


def _sum(stream: random.Random, largest: int, operators: str) -> Pair:
    first, second = _number(stream, largest), _number(stream, largest)
    sign = stream.choice(operators)
    result = first + second if sign == "+" else first - second
    return f"{first}{sign}{second}", str(result)


def _number(stream: random.Random, largest: int) -> int:
    """Draw the number of digits first, so that short numbers are not rare."""
    digits = stream.randint(1, len(str(largest)))
    low = 0 if digits == 1 else 10 ** (digits - 1)
    return stream.randint(low, min(largest, 10**digits - 1))


def answer(source: str) -> str | None:
    """Return the right answer to a sum or difference, or None where the text is none."""
    match = re.fullmatch(r"(\d+)([+-])(\d+)", source)
    if match is None:
        return None
    first, sign, second = match.groups()
    return str(int(first) + int(second) if sign == "+" else int(first) - int(second))


def _reversed(stream: random.Random) -> Pair:
    text = "".join(stream.choice(ALPHABET) for _ in range(stream.randint(3, 12)))
    return text, text[::-1]


def _date(stream: random.Random) -> Pair:
    day = FIRST_DAY + timedelta(days=stream.randrange(NUMBER_OF_DAYS))
    month, weekday = MONTHS[day.month - 1], DAYS[day.weekday()]
    shown = stream.choice(
        (
            f"{day.day} {month} {day.year}",
            f"{month} {day.day}, {day.year}",
            f"{weekday}, {day.day} {month} {day.year}",
            f"{weekday[:3]} {month[:3]} {day.day} {day.year}",
            f"{day.day:02}.{day.month:02}.{day.year}",
            f"{day.day:02}-{month[:3].lower()}-{day.year % 100:02}",
            f"{day.year}/{day.month}/{day.day}",
        )
    )
    return shown, day.isoformat()


def _misspelt(stream: random.Random) -> Pair:
    words = stream.sample(WORDS, 3)
    return " ".join(_with_mistake(word, stream) for word in words), " ".join(words)


def _with_mistake(word: str, stream: random.Random) -> str:
    """Swap two letters, or leave one out, double it or replace it."""
    place = stream.randrange(1, len(word))
    kind = stream.randrange(4)
    if kind == 0:
        return word[: place - 1] + word[place] + word[place - 1] + word[place + 1 :]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    if kind == 2:
        return word[:place] + word[place - 1] + word[place:]
    return word[:place] + stream.choice(ALPHABET) + word[place + 1 :]


def tidied(task: str, source: str) -> str:
    """Bring a user's source into the form of the task: sums have no spaces."""
    if task == "arithmetic":
        return "".join(source.split()).replace("−", "-").replace("–", "-")
    return source.strip() if task in ("reverse", "date", "spelling", "hello") else source


def longer(config: TrainConfig, max_value: int, count: int) -> list[Pair]:
    """Return sums with an operand beyond the run's `max_value`, up to another one.

    Raises:
        ConfigError: E205, the run is none of arithmetic, or `max_value` is none beyond.
    """
    if config.task != "arithmetic" or max_value <= config.max_value:
        raise ConfigError(
            "E205",
            "--max-value asks for longer operands than those of an arithmetic run",
            received=max_value,
            expected=f"more than {config.max_value}, and a run of --task arithmetic",
        )
    stream = random.Random(derive_seed(config.seed, "longer", max_value))
    found: dict[str, str] = {}
    while len(found) < count:
        source, target = _sum(stream, max_value, config.operators)
        if max(map(int, re.findall(r"\d+", source))) > config.max_value:
            found[source] = target
    return list(found.items())
