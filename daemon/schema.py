"""The layout of the job table, as a list of migrations. A landed entry is never changed; a new one is appended.

`user_version` counts the entries applied. The counters are kept by triggers, so that no code path can forget them
and no command ever counts rows of history.
"""

from __future__ import annotations

from typing import NamedTuple

APPLICATION_ID = 0x434F4E56  # "CONV"

_FIRST = """
CREATE TABLE watches (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    source BLOB NOT NULL,
    sink BLOB NOT NULL
);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    watch INTEGER NOT NULL REFERENCES watches (id),
    source BLOB NOT NULL,
    version TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    stage TEXT,
    priority INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    discovered_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    error_kind TEXT,
    error TEXT,
    hint TEXT,
    output TEXT,
    engine TEXT,
    engine_version TEXT,
    pages INTEGER,
    location BLOB,
    disposal TEXT
);
CREATE INDEX jobs_by_source ON jobs (watch, source, id);
CREATE INDEX jobs_pending ON jobs (watch, priority DESC, id) WHERE state = 'pending';
CREATE INDEX jobs_by_watch ON jobs (watch, id);
CREATE INDEX jobs_by_state ON jobs (state, watch, id);
CREATE INDEX jobs_disposal ON jobs (id) WHERE disposal IS NOT NULL;

-- The last seen version of each document, and the last one converted with the content it had. Outlives pruned jobs:
-- it is what keeps a source that still exists from being converted again.
CREATE TABLE documents (
    watch INTEGER NOT NULL REFERENCES watches (id),
    source BLOB NOT NULL,
    version TEXT NOT NULL,
    converted_version TEXT,
    converted_sha256 TEXT,
    PRIMARY KEY (watch, source)
) WITHOUT ROWID;

CREATE TABLE counts (
    watch INTEGER NOT NULL,
    state TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    PRIMARY KEY (watch, state)
) WITHOUT ROWID;

CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
    INSERT INTO counts VALUES (new.watch, new.state, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER jobs_changed AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
    UPDATE counts SET jobs = jobs - 1 WHERE watch = old.watch AND state = old.state;
    INSERT INTO counts VALUES (new.watch, new.state, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
    UPDATE counts SET jobs = jobs - 1 WHERE watch = old.watch AND state = old.state;
END;
"""

# Operators' switches, batches, documents that were handed in, and news for others.
_SECOND = """
ALTER TABLE watches ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;

-- One row, whether dispatch is paused for all watches, those to come included.
CREATE TABLE dispatch (paused INTEGER NOT NULL);
INSERT INTO dispatch VALUES (0);

-- `changes` counts what was added and retried: who wants to call a batch complete must have seen the last of them.
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    watch INTEGER NOT NULL REFERENCES watches (id),
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    last_added_at REAL NOT NULL,
    completed_at REAL,
    unfinished INTEGER NOT NULL DEFAULT 0,
    changes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (watch, name)
);
CREATE INDEX batches_due ON batches (watch, last_added_at, id) WHERE completed_at IS NULL AND unfinished = 0;

ALTER TABLE jobs ADD COLUMN batch INTEGER REFERENCES batches (id);
-- A document that was handed in without a source: it lies at its location in the spool, until it is converted.
ALTER TABLE jobs ADD COLUMN submitted INTEGER NOT NULL DEFAULT 0;
-- Of jobs in a batch: what its manifest says of the document and of its Markdown.
ALTER TABLE jobs ADD COLUMN sha256 TEXT;
ALTER TABLE jobs ADD COLUMN markdown_sha256 TEXT;
CREATE INDEX jobs_by_batch ON jobs (batch, state, id) WHERE batch IS NOT NULL;
CREATE INDEX jobs_in_batch ON jobs (batch, id) WHERE batch IS NOT NULL;
CREATE INDEX jobs_spooled ON jobs (location) WHERE submitted = 1 AND location IS NOT NULL;

CREATE TABLE batch_counts (
    batch INTEGER NOT NULL,
    state TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    PRIMARY KEY (batch, state)
) WITHOUT ROWID;

CREATE TRIGGER batched_inserted AFTER INSERT ON jobs WHEN new.batch IS NOT NULL BEGIN
    INSERT INTO batch_counts VALUES (new.batch, new.state, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    UPDATE batches SET unfinished = unfinished + 1 WHERE id = new.batch AND new.state IN ('pending', 'processing');
END;
CREATE TRIGGER batched_changed AFTER UPDATE OF state ON jobs
WHEN new.batch IS NOT NULL AND old.state <> new.state BEGIN
    UPDATE batch_counts SET jobs = jobs - 1 WHERE batch = old.batch AND state = old.state;
    INSERT INTO batch_counts VALUES (new.batch, new.state, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    UPDATE batches SET unfinished = unfinished
            + (new.state IN ('pending', 'processing')) - (old.state IN ('pending', 'processing'))
        WHERE id = new.batch
        AND (new.state IN ('pending', 'processing')) <> (old.state IN ('pending', 'processing'));
END;
CREATE TRIGGER batched_deleted AFTER DELETE ON jobs WHEN old.batch IS NOT NULL BEGIN
    UPDATE batch_counts SET jobs = jobs - 1 WHERE batch = old.batch AND state = old.state;
    UPDATE batches SET unfinished = unfinished - 1 WHERE id = old.batch AND old.state IN ('pending', 'processing');
END;

-- Waiting counts: a step of priority is worth ten minutes of it (model.Job.rank).
DROP INDEX jobs_pending;
CREATE INDEX jobs_pending ON jobs (watch, discovered_at - 600.0 * priority, id) WHERE state = 'pending';

-- What others are to be told, in the order in which it happened, until all of them have got it.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at REAL NOT NULL,
    payload TEXT NOT NULL
);

-- Who is to be told (the command, the webhook): has got the events up to `delivered`, but for those that were dropped.
CREATE TABLE targets (
    name TEXT PRIMARY KEY,
    delivered INTEGER NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND)


class Amendment(NamedTuple):
    """What makes a layout whole that bore its number before it was finished. `brings` is a name that it lacked."""

    version: int
    brings: str
    statements: str


def _part_of(migration: str, start: str, end: str) -> str:
    """From the first text up to the second."""
    rest = migration[migration.index(start) :]
    return rest[: rest.index(end)]


# In this order; a table that lacks one lacks what follows.
AMENDMENTS = (
    Amendment(
        1,
        "jobs_by_state",
        """
        DROP INDEX jobs_processing;
        DROP INDEX jobs_failed;
        CREATE INDEX jobs_by_watch ON jobs (watch, id);
        CREATE INDEX jobs_by_state ON jobs (state, watch, id);
        """,
    ),
    # Nothing was written to `events` and `batches` before they had their columns.
    Amendment(2, "targets", "DROP TABLE events;" + _SECOND[_SECOND.index("CREATE TABLE events") :]),
    Amendment(
        2,
        "batch_counts",
        """
        DROP INDEX batches_open;
        ALTER TABLE batches ADD COLUMN unfinished INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE batches ADD COLUMN changes INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE jobs ADD COLUMN sha256 TEXT;
        ALTER TABLE jobs ADD COLUMN markdown_sha256 TEXT;
        """
        + _part_of(_SECOND, "CREATE INDEX batches_due", "ALTER TABLE jobs")
        + _part_of(_SECOND, "CREATE INDEX jobs_in_batch", "-- Waiting counts"),
    ),
)
