"""The expression language, as editors ask for it: is this one right, and which words are there?"""

from functools import cache
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from engine.mapping.expression.evaluator import CompileError, Expression, as_json
from engine.mapping.expression.frame import Frame
from engine.mapping.expression.functions import FUNCTIONS, Function, Parameter
from engine.mapping.expression.nodes import ExpressionError
from engine.mapping.expression.operators import DOCUMENTED

Json = dict[str, Any]

router = APIRouter(prefix="/languages/el", tags=["Functions"])

_JAVA = {
    "text": "java.lang.String",
    "integer": "java.lang.Long",
    "number": "java.lang.Number",
    "real": "java.lang.Double",
    "boolean": "java.lang.Boolean",
    "date": "java.time.ZonedDateTime",
    "array": "java.util.List",
    "object": "java.util.Map",
}


class Candidate(BaseModel):
    """An expression to be judged; a set and sample data are taken, and not needed."""

    model_config = ConfigDict(extra="forbid")

    expression: str = Field(min_length=1)
    mappingSetId: str | None = None  # noqa: N815  # Data Prep's name
    sampleData: str | None = None  # noqa: N815  # Data Prep's name
    sampleDataType: str | None = None  # noqa: N815  # Data Prep's name


@router.post("/validate")
def validate_expression(body: Candidate) -> Json:
    """Whether an expression can be used; `error` has all that is wrong with it."""
    try:
        Expression(body.expression)
    except CompileError as error:
        return {"validationStatus": "failed", "error": "; ".join(error.problems)}
    except ExpressionError as error:
        return {"validationStatus": "failed", "error": str(error)}
    return {"validationStatus": "succeeded", "error": "none"}


@router.get("/functions")
def list_functions() -> list[Json]:
    """All functions, as the table that runs them has them."""
    return _functions()


@router.get("/operators")
def list_operators() -> list[Json]:
    """All operators."""
    return [
        {
            "operatorSymbol": symbol,
            "methodName": method,
            "numberOfOperands": operands,
            "description": description,
            "example": example,
        }
        for symbol, method, operands, description, example in DOCUMENTED
    ]


@cache
def _functions() -> list[Json]:
    shown = [
        _function(name, function)
        for name, function in FUNCTIONS.items()
        if function.form not in ("refused", "method")
    ]
    return sorted(shown, key=lambda each: (each["category"], each["function"]))


def _function(name: str, function: Function) -> Json:
    return {
        "category": function.category,
        "function": name,
        "description": function.description,
        "syntax": function.syntax.replace(f" {function.name}(", f" {name}("),
        "returns": function.description,
        "returnType": _JAVA.get(function.returns, "java.lang.Object"),
        "example": function.example,
        "result": _result(function),
        "params": [_parameter(each, n) for n, each in enumerate(function.parameters, 1)],
        "since": 1,
    }


def _result(function: Function) -> str:
    """What the example gives, if no record and no moment matters to it."""
    if function.form in ("now", "uuid", "path") or function.category == "User Agent":
        return ""
    if "now()" in function.example:
        return ""
    [value] = Expression(function.example).column(Frame([{}], [""]))
    return str(as_json(value))


def _parameter(parameter: Parameter, position: int) -> Json:
    java = _JAVA.get(parameter.kind, "java.lang.Object")
    return {
        "name": parameter.name,
        "description": "Zero or more arguments" if parameter.repeats else "",
        "type": "object" if parameter.repeats else parameter.kind,
        "dataType": f"[L{java};" if parameter.repeats else java,
        "position": position,
    }
