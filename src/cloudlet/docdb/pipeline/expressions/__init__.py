"""Aggregation expressions: ``compile_expression`` turns a value into a closure over document and variables.

For users outside the pipeline (``$expr`` of a filter): compile once with ``compile_expression(value)``, call
with ``(document, variables_at(now))`` or ``(document, {})``. A result may be ``values.MISSING``; ``truthy``
says whether a result counts as true. Both compiling and evaluating raise InvalidFilter whose text names the
operator and carries MongoDB's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from cloudlet.docdb.pipeline.expressions import (
    arithmetic,
    arrays,
    comparison,
    convert,
    dates,
    objects,
    sets,
    strings,
    variables,
)
from cloudlet.docdb.pipeline.expressions.base import (
    BUDGET,
    ROOT,
    Budget,
    Builder,
    Compiler,
    Constant,
    Expression,
    Facts,
    Variables,
    refused,
    truthy,
)
from cloudlet.docdb.values import Value

__all__ = [
    "BUDGET",
    "OPERATORS",
    "ROOT",
    "Budget",
    "Compiler",
    "Constant",
    "Expression",
    "Facts",
    "Variables",
    "compile_expression",
    "compiler",
    "expression_facts",
    "refused",
    "truthy",
    "variables_at",
]

OPERATORS: Final[Mapping[str, Builder]] = {
    **arithmetic.OPERATORS,
    **arrays.OPERATORS,
    **comparison.OPERATORS,
    **convert.OPERATORS,
    **dates.OPERATORS,
    **objects.OPERATORS,
    **sets.OPERATORS,
    **strings.OPERATORS,
    **variables.OPERATORS,
}
"""Every operator by name."""


def compiler(names: Iterable[str] = (), redacting: bool = False) -> Compiler:
    """A compiler for expressions that may use these variables besides the system's. ``redacting`` allows
    ``$$DESCEND``, ``$$PRUNE`` and ``$$KEEP``.
    """
    return Compiler(OPERATORS, frozenset(names), redacting)


def compile_expression(value: Value, names: Iterable[str] = ()) -> Expression:
    """The closure of one prepared expression. Raises InvalidFilter that names what is not understood."""
    return compiler(names).compile(value)


def expression_facts(value: Value) -> Facts:
    """What an expression needs and costs, for those who decide where it may run. Raises InvalidFilter."""
    made = compiler()
    made.compile(value)
    return made.facts


def variables_at(now: datetime, budget: Budget | None = None) -> Variables:
    """The variables a pipeline starts with. Evaluation that spends more than the budget raises Overrun."""
    return {"NOW": now} if budget is None else {"NOW": now, BUDGET: budget}
