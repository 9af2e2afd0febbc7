"""The campaign of faults: its script is that of its seed, it passes a sound daemon, and it finds a planted bug."""

from __future__ import annotations

import json
import random
import re
from itertools import islice
from pathlib import Path

import pytest

from tests.chaos import campaign, report
from tests.chaos.actions import SUBJECTS, WEIGHTS, script
from tests.chaos.checks import is_moved
from tests.chaos.faults_of import DEATHS, ERRORS
from tests.chaos.hooks import Faults, Journal
from tests.chaos.model import Document, compose
from tests.chaos.places import DISPOSING, Folder
from tests.chaos.plants import PLANTS
from tests.chaos.provoking import PASSED_BY
from tests.chaos.world import World
from tests.harness import ROOT

pytestmark = pytest.mark.chaos
SEED = 5
ACTIONS = 5


def drawn(seed: int) -> list[tuple[str, float, float]]:
    return [(action.name, action.pause_seconds, action.chance.random()) for action in islice(script(seed), 500)]


def test_the_same_seed_has_the_same_actions() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert {name for name, _, _ in drawn(1)} == set(WEIGHTS)


def test_every_fault_point_has_its_turn() -> None:
    piles = {name: len(subjects) for name, subjects in SUBJECTS.items()}
    seen: dict[str, list[str]] = {name: [] for name in SUBJECTS}
    for action in script(1):
        if action.subject and len(seen[action.name]) < piles[action.name]:
            seen[action.name] += action.subject
        if all(len(labels) == piles[name] for name, labels in seen.items()):
            break
    assert {name: sorted(labels) for name, labels in seen.items()} == {
        name: sorted(subjects) for name, subjects in SUBJECTS.items()
    }


def test_every_fault_that_may_be_armed_has_its_point() -> None:
    texts = [path.read_text() for path in (ROOT / "daemon").rglob("*.py")]
    points = {label for text in texts for label in re.findall(r'fault\("([^"]+)"\)', text)}
    steps = set(re.findall(r'step\(.*?"\w+", "([^"]+)", fault', (ROOT / "tests/chaos/daemon.py").read_text()))
    assert {*DEATHS, *ERRORS, *PASSED_BY} <= points | steps


def test_what_a_retry_moves_again_may_be_hidden_meanwhile(tmp_path: Path) -> None:
    watch = World(tmp_path, None, None, "").watches["move"]
    document = Document("move", "one/d1.txt", "txt")
    document.current = document.written(b"content", "content")
    assert isinstance(watch.done, Folder)
    watch.done.put(f"one/{DISPOSING}7-0123", b"another content")
    assert not is_moved(watch, document)
    watch.done.put(f"one/{DISPOSING}7-4567", b"content")
    assert is_moved(watch, document)


def test_faults_are_met_beside_one_another_each_as_often_as_it_is_to_be(tmp_path: Path) -> None:
    world = World(tmp_path, None, None, "")
    faults = Faults(world.control, Journal(world.control))
    world.arm("write", "EIO", 1, 2)
    world.arm("rename", "ENOSPC", 0, 1)
    world.arm("sync", "EIO", 0, 1)
    faults.look()
    faults("write")
    with pytest.raises(OSError, match="space"):
        faults("rename")
    faults("rename")
    for _ in range(2):
        faults.look()
        with pytest.raises(OSError, match="Input/output"):
            faults("write")
    faults("write")
    world.disarm()
    faults.look()
    faults("sync")
    assert world.journal("fired") == ["ENOSPC at rename", "EIO at write", "EIO at write"]
    world.arm("write", "EIO", 1, 2)
    faults.look()
    faults("write")
    with pytest.raises(OSError, match="Input/output"):
        faults("write")


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
