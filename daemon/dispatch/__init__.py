"""Which job is next: pending jobs in memory, by rank (model.Job.rank), without asking the database for each."""

from daemon.dispatch.dispatcher import Dispatcher
from daemon.dispatch.later import SUSPECT_AFTER_INTERRUPTIONS, SUSPECT_PATIENCE_SECONDS
from daemon.dispatch.roll import Census

__all__ = ["SUSPECT_AFTER_INTERRUPTIONS", "SUSPECT_PATIENCE_SECONDS", "Census", "Dispatcher"]
