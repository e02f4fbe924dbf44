"""What is printed cannot command a terminal."""

import pytest
from rich.text import Text

from mlops_pipeline.cli import console

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp\u200b\r"


def test_escapes_are_shown_instead_of_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(f"{HOSTILE}[bold]x[/]", lead=HOSTILE)
    console.print_table(("name", "why"), [(HOSTILE, Text(HOSTILE, "red"))])
    console.print_json({"by": HOSTILE})
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e", "\u200b", "\r"} & set(printed)
    assert r"\x1b]0;owned\x07" in printed
    assert "[bold]x[/]" in printed
