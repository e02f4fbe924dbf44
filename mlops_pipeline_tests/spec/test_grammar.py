import pytest

from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import (
    MAX_DEPTH,
    MAX_LENGTH,
    Call,
    Case,
    Column,
    Constant,
    Expression,
    Membership,
    Node,
    parse,
)

A, B, C = Column("a"), Column("b"), Column("c")


def call(name: str, *arguments: Node) -> Call:
    return Call(name, arguments)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", call("+", A, call("*", B, C))),
        ("(a + b) * c", call("*", call("+", A, B), C)),
        ("a - b - c", call("-", call("-", A, B), C)),
        ("a / b / c", call("/", call("/", A, B), C)),
        ("a or b and c", call("or", A, call("and", B, C))),
        ("not a and b", call("and", call("not", A), B)),
        ("not a = b", call("not", call("=", A, B))),
        ("a + b < c", call("<", call("+", A, B), C)),
        ("-a * b", call("*", call("negate", A), B)),
        ("a - -1", call("-", A, Constant(-1))),
        ("a == b", call("=", A, B)),
        ("a <> b", call("!=", A, B)),
        ("a is not null", call("not", call("is null", A))),
        ("a not in (1, -2, 'x')", call("not", Membership(A, (1, -2, "x")))),
        ("A IS NULL OR b", call("or", call("is null", Column("A")), B)),
        ("coalesce(a, b, 0)", call("coalesce", A, B, Constant(0))),
        ("case when a then b end", Case(((A, B),), Constant(None))),
        (
            "case when a then 1 when b then 2 else c end",
            Case(((A, Constant(1)), (B, Constant(2))), C),
        ),
        ("1.5e3", Constant(1500.0)),
        ("7", Constant(7)),
        ("'it''s'", Constant("it's")),
        ("true", Constant(True)),
        ("-true", call("negate", Constant(True))),
        ("abs", Column("abs")),
    ],
)
def test_parse_text_gives_its_tree(text: str, tree: Node) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "position", "expected", "found"),
    [
        ("a +", 4, "a value", "the end of the expression"),
        ("", 1, "a value", "the end of the expression"),
        ("a b", 3, "an operator or the end", "'b'"),
        ("a = b = c", 7, "an operator or the end", "'='"),
        ("(a + b", 7, "')'", "the end of the expression"),
        ("a is 3", 6, "'null'", "'3'"),
        ("a not 3", 7, "'in'", "'3'"),
        ("a in ()", 7, "a value", "')'"),
        ("a in (b)", 8, "a list of numbers or texts", "')'"),
        ("case a end", 6, "'when'", "'a'"),
        ("case when a then b", 19, "'end'", "the end of the expression"),
        ("and", 1, "a value", "'and'"),
        ("abs(a, b)", 9, "1 arguments of abs", "')'"),
        ("coalesce(a)", 11, "2 or more arguments of coalesce", "')'"),
    ],
)
def test_parse_wrong_text_names_position_expected_and_found(
    text: str, position: int, expected: str, found: str
) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert caught.value.what == f"the expression does not parse at character {position}"
    assert (caught.value.where, caught.value.expected) == (text, expected)
    assert caught.value.found == found


def test_parse_unknown_function_lists_the_known_ones() -> None:
    with pytest.raises(
        ExpressionError, match=r"at character 5\n.*\n  expected: one of the functions"
    ) as error:
        parse("1 + round(a)")
    assert "abs, coalesce, greatest, least, ln, nullif" in str(error.value)
    assert "found: 'round'" in str(error.value)


@pytest.mark.parametrize(
    ("text", "position"), [("a ; b", 2), ("a + .5", 4), ("'open", 1), ("a % 2", 2)]
)
def test_parse_unreadable_character_names_its_position(text: str, position: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert caught.value.what == f"cannot read the expression at character {position}"
    assert caught.value.way_out is not None


def test_parse_too_long_text_says_how_long_it_may_be() -> None:
    with pytest.raises(ExpressionError, match=f"at most {MAX_LENGTH} characters"):
        parse("a" * (MAX_LENGTH + 1))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1900 + "a" + ")" * 1900,
        "a or (" * 500 + "a" + ")" * 500,
        "not " * 900 + "a",
        "- " * 1900 + "a",
        "+".join("a" * 1900),
        " or ".join(["a"] * 600),
        "case when a then " * 180 + "a" + " end" * 180,
    ],
)
def test_parse_deep_text_is_refused_before_it_exhausts_the_stack(text: str) -> None:
    with pytest.raises(
        ExpressionError, match=f"nested too deeply(.|\n)*at most {MAX_DEPTH} levels"
    ):
        parse(text)


def test_parse_long_list_and_sum_of_ordinary_size_is_accepted() -> None:
    assert parse(" + ".join(["a"] * 30))
    assert parse(f"a in ({', '.join(map(str, range(500)))})")


def test_columns_of_every_kind_of_node_are_found() -> None:
    text = "case when a in (1) then -b else coalesce(c, 'd') end + least(e, 1) / f"
    assert Expression.of(text).columns == {"a", "b", "c", "e", "f"}
