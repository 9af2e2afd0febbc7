"""Actions of operators: commands in processes of their own, and reloads of good and bad configurations."""

from __future__ import annotations

import random
from threading import Event

from tests.chaos.documents_of import SKIPPED
from tests.chaos.model import KINDS, POISON, SUBMITTED, Model, compose
from tests.chaos.world import World

STARTING_LOOKS = 100
BAD = (
    'state_dir = "state"\n[[watch]\n',
    'state_dir = "state"\nworkers = "many"\n',
    'state_dir = "state"\n[[watch]]\nname = "keep"\nsource = "keep/in"\nsink = "keep/in"\n',
    "",
)


def reload_watches(world: World, model: Model, chance: random.Random) -> str:
    """One watch is taken out, or all are back."""
    everything = set(world.watches)
    if world.served == everything:
        world.served = everything - {chance.choice(sorted(everything))}
    else:
        world.served = everything
    world.configure()
    world.hang_up()
    missing = sorted(everything - world.served)
    return f"without {missing[0]}" if missing else "with all"


def reload_bad(world: World, model: Model, chance: random.Random) -> str:
    """It is refused whole. A daemon that is started later gets the good one back."""
    which = chance.randrange(len(BAD))
    if not world.has_started():
        return SKIPPED + "a daemon that starts reads it, too"
    world.configure(BAD[which])
    world.hang_up()
    Event().wait(0.3)
    world.configure()
    return f"number {which}"


def pause(world: World, model: Model, chance: random.Random) -> str:
    """All or one watch, for a while; sometimes until the end of the round."""
    what = chance.choice([[], [chance.choice(sorted(world.watches))]])
    seconds, resumes = chance.uniform(0.0, 1.0), chance.random() < 0.7
    if not world.pid:
        return SKIPPED + "the daemon does not run"
    world.command("pause", *what)
    if resumes:
        Event().wait(seconds)
        world.command("resume", *what)
    return f"{what[0] if what else 'all'}{'' if resumes else ', not resumed'}"


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
        Event().wait(0.1)
    told = world.command("submit", *map(str, files), "--watch", watch, "--batch", batch)
    if told.returncode != 0:
        return f"{SKIPPED}{batch} was not taken: {told.stderr[:200]!r}"
    for document in documents:
        document.current = document.versions[-1]
    return f"{watch}: {batch}, {len(documents)} documents"


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
    retry_jobs(world, model, chosen)
    return ", ".join(map(str, chosen))


def retry_jobs(world: World, model: Model, ids: list[int]) -> None:
    """These may leave their final state from now on."""
    model.retried |= set(ids)
    world.command("retry", *map(str, ids))


def cancel(world: World, model: Model, chance: random.Random) -> str:
    rows = world.rows("SELECT id FROM jobs WHERE state IN ('pending', 'processing') ORDER BY id")
    share = chance.random()
    ids = [str(row[0]) for row in rows[int(share * len(rows)) :][:2]]
    if not ids:
        return SKIPPED + "no job is open"
    world.command("cancel", *ids)
    return ", ".join(ids)
