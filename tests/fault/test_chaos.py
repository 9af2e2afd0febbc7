"""The campaign of faults: its script is that of its seed, it passes a sound daemon, and it finds a planted bug."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

import pytest

from tests.chaos import campaign, report
from tests.chaos.actions import WEIGHTS, script
from tests.chaos.model import Document, compose
from tests.chaos.plants import PLANTS

pytestmark = pytest.mark.chaos
SEED = 5
ACTIONS = 5


def drawn(seed: int) -> list[tuple[str, float, float]]:
    return [(action.name, action.pause_seconds, action.chance.random()) for action in islice(script(seed), 500)]


def test_the_same_seed_has_the_same_actions() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert {name for name, _, _ in drawn(1)} == set(WEIGHTS)


@pytest.mark.parametrize("kind", ["txt", "html", "docx"])
def test_an_output_is_of_one_version_and_whole(kind: str) -> None:
    document, chance = Document("keep", f"d1.{kind}", kind), random.Random(1)
    texts = []
    for _ in range(2):
        content, text = compose(document, chance)
        document.written(content, text)
        texts.append(text)
    for version, text in zip(document.versions, texts, strict=True):
        assert document.of_markdown(text.encode()) is version
        assert document.of_source(version.sha256) is version
    lines = texts[0].splitlines()
    for torn in ("", texts[0][:-1], "\n".join(lines[:-1]), "\n".join(lines[1:]), texts[0] + texts[1]):
        assert document.of_markdown(torn.encode()) is None


def test_a_sound_daemon_passes(tmp_path: Path) -> None:
    result = campaign.run(SEED, 0, actions_a_round=ACTIONS, buckets=False)
    assert result.findings == {}, "\n".join(result.log)
    assert result.rounds == 1
    assert result.jobs
    report.write_json(result, tmp_path / "result.json")
    written = json.loads((tmp_path / "result.json").read_bytes())
    assert written["actions"] == dict(result.actions)
    assert written["sizes"][0]["descriptors"] == result.sizes[0].descriptors
    assert f"--seed {SEED}" not in report.table(result)


def test_a_planted_bug_is_found() -> None:
    result = campaign.run(SEED, 0, "no-sync", actions_a_round=ACTIONS, buckets=False)
    assert any("before it was synced" in found for found in result.findings)
    assert f"--seed {SEED} --minutes 1 --plant no-sync" in report.table(result)


def test_every_plant_says_what_it_is() -> None:
    assert all(plant.what and plant.apply.__name__.startswith("_") for plant in PLANTS.values())
