"""``$expr``: an aggregation expression as a condition.

The pipeline stands above the filters (its ``$match`` uses them), so this module asks for the expression
compiler only when a filter really holds an expression; at import time the two would need each other.
"""

from __future__ import annotations

from typing import Final

from cloudlet.docdb.filter.ast import Expr
from cloudlet.docdb.paths import Test
from cloudlet.docdb.values import Value

STEPS_MAX: Final = 2_000
"""What an expression may cost for one document in the server's own process; beyond it a worker takes over."""


def parse_expr(value: Value) -> Expr:
    """The node of an expression. Raises InvalidFilter that names what is not understood."""
    from cloudlet.docdb.pipeline.expressions import compiler

    made = compiler()
    evaluate = made.compile(value)
    return Expr(value, evaluate, made.facts.costly, made.facts.patterned, made.facts.nodes)


def expr_test(node: Expr, bounded: bool) -> Test:
    """Whether the expression is true for a document. If ``bounded``, Overrun is raised beyond STEPS_MAX."""
    from cloudlet.docdb.pipeline.expressions import BUDGET, Budget, truthy

    evaluate = node.evaluate
    if not bounded:
        return lambda document: truthy(evaluate(document, {}))
    return lambda document: truthy(evaluate(document, {BUDGET: Budget(STEPS_MAX)}))
