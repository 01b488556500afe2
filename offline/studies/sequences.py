"""What the studies of the generating half have in common: the next order of customers with a session."""

from __future__ import annotations

from model_store.errors import InvalidData
from offline.evaluation.tables import Table, fair_tiers
from offline.evaluation.task import Task
from offline.studies.comparing import table
from offline.studies.study import Request
from offline.studies.writing import Writings

NEXT = "next_order"


def writings(request: Request, task: Task) -> Writings:
    """Sessions of the task's customers. Raises InvalidData where nobody has one."""
    workshop = request.workshop
    found = Writings(task, request.data, workshop.config.generation.sessions.actions, workshop.progress)
    if not found.has_session.any():
        raise InvalidData("no customer did anything before what is to be foretold, so there is no sequence to read")
    return found


def next_order(task: Task, sessions: Writings) -> Table:
    """The articles of the next order of customers with a session, which are what a generation speaks of."""
    tiers, among = fair_tiers(task.stock_tells_sales)
    title = f"The next order of customers with a session{among}"
    return table(NEXT, title, tiers, task, task.first_order & sessions.has_session)


def needs_searches(request: Request, study: str) -> None:
    """Raises InvalidData where nobody searched: there is no memory of queries to look into."""
    for rows in request.data.events():
        if "search" in rows.column("type").to_pylist():
            return
    raise InvalidData(
        f"{study}: the data set has no searches, so prompts name no candidates; import it with searches (for H&M's, "
        "'modiste import hm … --derive-searches' makes some up)"
    )
