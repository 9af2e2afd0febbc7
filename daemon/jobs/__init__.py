"""The job table: what there is to convert, what became of it, and what is known of every document."""

from daemon.jobs.completion import Completion
from daemon.jobs.enqueue import Handed, Receipt
from daemon.jobs.history import Pruned
from daemon.jobs.table import JobTable

__all__ = ["Completion", "Handed", "JobTable", "Pruned", "Receipt"]
