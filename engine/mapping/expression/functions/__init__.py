"""The functions of the expression language: a table, a module a category.

`FUNCTIONS` maps each name, an alias too, to its `Function`. A function is plain Python over
values; what is converted, what null does and who catches errors is the evaluator's business.
"""

from engine.mapping.expression.functions import (
    analytics,
    arrays,
    conversion,
    dates,
    hashes,
    logic,
    objects,
    regexes,
    text,
    urls,
    user_agents,
)
from engine.mapping.expression.functions.table import Function, Parameter

_MODULES = (
    *(text, regexes, hashes, urls, dates, objects, arrays),
    *(logic, conversion, user_agents, analytics),
)
FUNCTIONS: dict[str, Function] = {
    name: function
    for module in _MODULES
    for function in module.TABLE.functions
    for name in (function.name, *function.aliases)
}

__all__ = ["FUNCTIONS", "Function", "Parameter"]
