"""The documentation as tests read it: sections, rows of tables and blocks of code of a page."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def sections(text: str) -> dict[str, str]:
    """Return {heading: text up to the next heading of any level}."""
    parts = re.split(r"^#{1,6} +(.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> list[list[str]]:
    """Return the cells of every table row of a section, without heads."""
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines]
    return [row for row in cells if not row[0].startswith("---") and row[0].startswith("`")]


def example_name() -> str:
    """Return the name of the use case that the README writes."""
    return str(yaml.safe_load(blocks(text_of("README.md"), "yaml")[0])["name"])
