"""Random expressions of the grammar as text, well typed or of operands of any types."""

from hypothesis import strategies as st

COLUMNS = {
    "x": "float64",
    "y": "float64",
    "n": "int64",
    "m": "int64",
    "s": "string",
    "b": "boolean",
}
BIG = 2**63 - 1
SMALL = ["0", "1", "-7", "100"]  # in sums DuckDB adds up constants first, and might overflow there
INTEGERS = [*SMALL, "2147483648", "9007199254740993", str(BIG), f"-{BIG + 1}"]
FLOATS = ["0.5", "2.0", "0.1", "-0.0", "1e-320", "1e308", "1e999", "-1e999"]
LITERALS = {
    "number": [*INTEGERS, *FLOATS],
    "integer": INTEGERS,
    "text": ["''", "'a'", "'B'", "'it''s'", "'é'", "'10'"],
    "truth": ["true", "false"],
}
LEAVES = {
    "number": ["x", "y", "x", "y", "n", *SMALL, *FLOATS],
    "integer": ["n", "m", "n", "m", *SMALL],
    "text": ["s", "s", *LITERALS["text"]],
    "truth": ["b", "b", "true", "false"],
}
KINDS = st.sampled_from(["number", "number", "integer", "text", "truth"])
OF_ITS_KIND = [
    *("coalesce({}, {})", "coalesce({}, {}, {})", "nullif({}, {})"),
    *("least({}, {})", "greatest({}, {})", "least({}, {}, {})"),
]
ARITHMETIC = ["({} + {})", "({} - {})", "({} * {})", "(- ({}))", "abs({})"]
FORMS = {  # what is made of operands of the same kind
    "number": [*OF_ITS_KIND, *ARITHMETIC, *ARITHMETIC, "({} / {})", "({} / {})", "ln({})"],
    "integer": [*OF_ITS_KIND, *ARITHMETIC, *ARITHMETIC],
    "text": OF_ITS_KIND,
    "truth": [*OF_ITS_KIND, "({} and {})", "({} or {})", "(not {})"],
}
TESTS = [  # truth values made of operands of another kind
    *("({} = {})", "({} != {})", "({} < {})", "({} <= {})", "({} > {})", "({} >= {})"),
    *("({} is null)", "({} is not null)", "in", "not in"),
]


@st.composite
def expressions(draw: st.DrawFn, kind: str, depth: int = 4, *, mixed: bool = False) -> str:
    """An expression of a kind; `mixed`: its operands may be of any kind."""

    def part(of: str) -> str:
        return draw(expressions(draw(KINDS) if mixed else of, depth - 1, mixed=mixed))

    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from([*LEAVES[kind], "null"]))
    if draw(st.integers(0, 5)) == 0:
        branches = f"when {part('truth')} then {part(kind)} when {part('truth')} then {part(kind)}"
        return f"case {branches} {draw(st.sampled_from(['', f'else {part(kind)}']))} end"
    form, of = draw(st.sampled_from(FORMS[kind])), kind
    if kind == "truth" and draw(st.booleans()):
        form, of = draw(st.sampled_from(TESTS)), draw(KINDS)
    if "{}" in form:
        return form.format(*(part(of) for _ in range(form.count("{}"))))
    values = draw(st.lists(st.sampled_from(LITERALS[of]), min_size=1, max_size=3))
    return f"({part(of)} {form} ({', '.join(values)}))"
