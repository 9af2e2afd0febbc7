"""Actions of operators: commands in processes of their own, and reloads of good and bad configurations."""

from __future__ import annotations

import random
from pathlib import Path
from threading import Event
from typing import Any

from tests.chaos.commands import DONE, NOT_DONE, NOT_RUNNING, WRONG_USE, ask
from tests.chaos.documents_of import SKIPPED
from tests.chaos.model import KINDS, POISON, SUBMITTED, Model, compose
from tests.chaos.pausing import EVERYTHING
from tests.chaos.waiting import within
from tests.chaos.world import World
from tests.chaos.writing import appear

STARTING_LOOKS = 100
REFUSED = '"event": "configuration refused'
REFUSE_SECONDS, LOSE_SECONDS, FOUND_SECONDS = 60.0, 0.5, 3.0
NOT_SERVED = "there is no watch"
BAD = (
    'state_dir = "state"\n[[watch]\n',
    'state_dir = "state"\nworkers = "many"\n',
    'state_dir = "state"\n[[watch]]\nname = "keep"\nsource = "keep/in"\nsink = "keep/in"\n',
    "",
)


def reload_watches(world: World, model: Model, chance: random.Random) -> str:
    """One watch is taken out, or all are back; sometimes a setting of all of them is another, too."""
    everything = set(world.watches)
    if chance.random() < 0.5:
        world.priority = chance.randint(1, 10)
    if world.served == everything:
        world.served = everything - {chance.choice(sorted(everything))}
    else:
        world.served = everything
    world.configure()
    world.hang_up()
    missing = sorted(everything - world.served)
    return f"{f'without {missing[0]}' if missing else 'with all'}, of priority {world.priority}"


def reload_bad(world: World, model: Model, chance: random.Random) -> str:
    """It is refused whole. A daemon that is started later gets the good one back."""
    which = chance.randrange(len(BAD))
    if not world.has_started():
        return SKIPPED + "a daemon that starts reads it, too"
    refuse(world, BAD[which])
    return f"number {which}"


def refuse(world: World, text: str, seconds: float = REFUSE_SECONDS) -> None:
    """Have a daemon that has started read this: it says that it refuses it, and serves what it has served."""
    refusals, before = world.times_said(REFUSED), world.serving()
    world.configure(text)
    world.hang_up()
    heeded = within(seconds, lambda: world.times_said(REFUSED) > refusals or not world.pid)
    world.configure()
    if not heeded:
        world.strange_ends.append(f"a bad configuration is not said to be refused: {text!r}")
    if lost := within(LOSE_SECONDS, lambda: _lost(world, before)):
        world.strange_ends.append(f"{sorted(lost)} are not served any more after a bad configuration: {text!r}")


def _lost(world: World, before: set[str] | None) -> set[str]:
    """Watches that were served, and are not served now, as far as the daemon says so; not for a reload before this."""
    after = world.serving()
    return set() if before is None or after is None else (before & world.served) - after


def pause(world: World, model: Model, chance: random.Random) -> str:
    """All or one watch, for a while; sometimes until the end of the round. Something comes meanwhile."""
    what = chance.choice([EVERYTHING, chance.choice(sorted(world.watches))])
    seconds, resumes = chance.uniform(0.0, 1.0), chance.random() < 0.7
    if not world.pid:
        return SKIPPED + "the daemon does not run"
    known = [name for (name,) in world.rows("SELECT name FROM watches")]
    if not known or (what and what not in known):
        return SKIPPED + "the job table has never heard of it"
    done = [hold(world, what).returncode]
    if done == [DONE] and (served := sorted(world.served & {what} if what else world.served)):
        document = model.new(chance.choice(served), "txt")
        appear(world, document, *compose(document, chance))
        within(FOUND_SECONDS, lambda: world.newest_job(document) or not world.pid)
    if resumes:
        Event().wait(seconds)
        done.append(go_on(world, what).returncode)
    return f"{what or 'all'}{'' if resumes else ', not resumed'}: {done}"


def hold(world: World, what: str) -> Any:
    """Pause a watch, or everything."""
    told = ask(world, "pause", *([what] if what else []))
    if told.returncode == DONE:
        world.pauses.hold(what)
    return told


def go_on(world: World, what: str) -> Any:
    """Lift that; what was begun in spite of it is noted."""
    world.strange_ends += world.pauses.lift(what)
    return ask(world, "resume", *([what] if what else []))


def submit(world: World, model: Model, chance: random.Random) -> str:
    """Some documents at once, into a batch of their own. Once the command says so they are the daemon's to convert."""
    watch, batch = chance.choice(sorted(world.watches)), f"b{len(model):04}"
    folder = world.home / "handed in" / batch
    folder.mkdir(parents=True)
    documents = [model.new(watch, chance.choice(KINDS), f"{SUBMITTED}{batch}/d") for _ in range(chance.randint(1, 5))]
    files = []
    for document in documents:
        content, text = compose(document, chance)
        document.written(content, text)
        files.append(folder / document.name.rpartition("/")[2])
        files[-1].write_bytes(content)
    for _ in range(STARTING_LOOKS):  # only a daemon that runs takes them
        if world.has_started():
            break
        world.ensure()
        Event().wait(0.1)
    taken = _submitted(world, watch, batch, files)
    if taken.returncode != DONE:
        return f"{SKIPPED}{batch} was not taken: {taken.stderr[:200]!r}"
    for document in documents:
        document.current = document.versions[-1]
    return f"{watch}: {batch}, {len(documents)} documents"


def _submitted(world: World, watch: str, batch: str, files: list[Path]) -> Any:
    """Whether the daemon took them. A watch that was taken out, or is not yet back, takes none; a daemon that has
    started, and is there after the command, was there for it."""
    before = world.pid if world.has_started() else 0
    told = ask(
        world,
        *("submit", *map(str, files), "--watch", watch, "--batch", batch),
        allowed=(DONE, NOT_DONE, WRONG_USE, NOT_RUNNING),
    )
    if told.returncode == WRONG_USE and NOT_SERVED not in told.stderr:
        world.strange_ends.append(f"submitting {batch} was wrong use: {told.stderr[:500]}")
    if told.returncode == NOT_RUNNING and before and world.pid == before:
        world.strange_ends.append(f"submitting {batch}: {told.stderr[:500]}, yet the daemon runs")
    return told


def retry(world: World, model: Model, chance: random.Random) -> str:
    """Some jobs that have ended, however they did."""
    share = chance.random()
    rows = world.rows(
        f"""SELECT id FROM jobs WHERE state IN ('completed', 'failed', 'cancelled', 'vanished')
            AND instr(CAST(source AS TEXT), '{POISON}') = 0 ORDER BY id"""
    )
    ids = [int(row[0]) for row in rows]
    chosen = ids[int(share * len(ids)) :][:3]
    if not chosen:
        return SKIPPED + "no job has ended"
    told = retry_jobs(world, model, chosen)
    return f"{', '.join(map(str, chosen))}: {told.returncode}"


def retry_jobs(world: World, model: Model, ids: list[int]) -> Any:
    """These may leave their final state from now on."""
    model.retried |= set(ids)
    return ask(world, "retry", *map(str, ids))


def cancel(world: World, model: Model, chance: random.Random) -> str:
    rows = world.rows("SELECT id FROM jobs WHERE state IN ('pending', 'processing') ORDER BY id")
    share = chance.random()
    ids = [str(row[0]) for row in rows[int(share * len(rows)) :][:2]]
    if not ids:
        return SKIPPED + "no job is open"
    return f"{', '.join(ids)}: {ask(world, 'cancel', *ids).returncode}"
