"""Arbitrary expressions, built by the grammar, and arbitrary records for them."""

from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10) | st.sampled_from(["2024-01-01", "a,b", "https://a.b/c?d=1", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip
NAMES = ("a", "b", "$c", "event", "unmapped")
RECORDS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(NAMES), JSON, max_size=5
)

_LEAVES = st.sampled_from(
    [
        *("data.a", "data.b", "data.c", "data.a.b", "data.b[0]", "data.a[*].b", "event", "data.x"),
        *("null", "true", "1", "2.5", "0", "'a'", "'2024-01-01'", "[1, 'b']", "{'a': 1}"),
    ]
)
_INFIX = st.sampled_from(
    [*("+", "-", "*", "/", "%", "==", "!=", "===", "<", ">=", "=~", "=^", "&&", "||", "&", "<<")]
)
_UNARY = st.sampled_from(
    [
        *("lower", "trim", "is_empty", "size_of", "to_decimal", "get_keys", "date", "first"),
        *("json_to_object", "get_url_host", "explode", "flattenArray", "md5", "max", "coalesce"),
    ]
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def made(form: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(*parts).map(lambda found: form.format(*found))

    return st.one_of(
        made("({0} {1} {2})", inner, _INFIX, inner),
        made("{0}({1})", _UNARY, inner),
        made("(!{0})", inner),
        made("({0} ? {1} : {2})", inner, inner, inner),
        made("iif({0}, {1}, {2})", inner, inner, inner),
        made("({0} ?? {1})", inner, inner),
        made("decode({0}, {1}, {2}, {3})", inner, inner, inner, inner),
        made("concat({0}, {1})", inner, inner),
        made("[{0}, {1}]", inner, inner),
        made("to_object('a', {0}, 'b', {1})", inner, inner),
        made("transformArray({0}, x -> [x, {1}])", inner, inner),
        made("filterArray({0}, x -> x == {1})", inner, inner),
        made("{0}[{1}]", _LEAVES, inner),
        made("contains_key(data.a.b) || {0}", inner),
        made("[uuid(), {0}]", inner),
    )


EXPRESSIONS = st.recursive(_LEAVES, _larger, max_leaves=8)
