"""The language of docstrings and documentation: short, literal sentences (CONTRIBUTING.md, "Language").

`python tests/test_prose.py [PATH ...]` prints what the tests would complain about.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 25
"""Words in a sentence."""
WIDTH = 100
"""Columns of a line of Markdown."""
PROPERTY = {"property", "cached_property", "validator", "field_validator", "model_validator"}

OPENING = re.compile(r"(?:Of|That|So many|So much|Who|Whoever|Whose|What|Why|When|Where|How|Needless|Since)\b")
"""A docstring does not begin like this: it says what the thing is, or what the function does."""
NOT_A_VERB = re.compile(
    r"(?:A|An|The|Whether|One|All|Each|Every|Any|It|Its|This|These|Those|They|There|If|In|On|At|By|For|From|With|"
    r"Without|To|No|Not|None|Nothing|Both|Some|As|Only|Those|Also|Everything|Something|True|False|\()\s"
)
"""The docstring of a function begins with a verb."""
PHRASES = re.compile(
    r"\b(?:so many|so much (?:of|as)|a (?:row|line|lane|trial|file) an? (?:\w+)|mends?|mended|needless|whoever|"
    r"(?:is|was|are|were) let (?:in|go)|given up|gives up a (?:run|trial)|gave up|"
    r"what (?:it|they|he) (?:came to|comes to|is made of)|as often as not|in the manner of|withal|henceforth)\b",
    re.IGNORECASE,
)
"""Phrases of an earlier style, each with a plain equivalent."""

INLINE = re.compile(r"`[^`]*`|\$[^$]*\$|https?://\S+|!?\[([^\]]*)\]\([^)]*\)")
SENTENCE = re.compile(r"(?<=[.!?:;])[)\"”*]*\s+(?=[A-Z0-9`\"“(*λβτ])|\n\n|[;:](?=\s)")
WORD = re.compile(r"[A-Za-zλβτµ]{1}")


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text. A colon or a semicolon ends one too; code counts as one word."""
    plain = INLINE.sub(lambda match: match[1] or "CODE", text)
    plain = re.sub(r"\b(?:e\.g|i\.e|cf|vs|Fig|Eq|al|pp?)\.", "CODE", plain)
    for sentence in SENTENCE.split(plain):
        if sentence and sentence.strip():
            yield " ".join(sentence.split())


def complaints_about(text: str) -> Iterator[str]:
    """Yield what is wrong with a paragraph of prose."""
    for sentence in sentences(text):
        words = [word for word in sentence.split() if WORD.search(word)]
        if len(words) > LIMIT:
            yield f"{len(words)} words: {' '.join(sentence.split()[:8])} ..."
        if found := PHRASES.search(sentence):
            yield f"{found[0]!r} in: {sentence[:80]}"


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield (line, kind, text) of each docstring; kind is `module`, `class`, `function`, `property` or `attribute`."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for before, statement in zip([None, *body], body, strict=False):
            if not (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                continue
            if before is None and isinstance(node, ast.Module):
                kind = "module"
            elif before is None and isinstance(node, ast.ClassDef):
                kind = "class"
            elif before is None and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in node.decorator_list}
                kind = "property" if names & PROPERTY else "function"
            elif isinstance(before, ast.Assign | ast.AnnAssign):
                kind = "attribute"
            else:
                continue
            yield statement.lineno, kind, statement.value.value


def python_complaints(path: Path) -> Iterator[str]:
    """Yield what is wrong with the docstrings and comments of a Python file."""
    source = path.read_text(encoding="utf-8")
    for line, kind, text in docstrings(ast.parse(source)):
        if OPENING.match(text):
            yield f"{line}: a docstring begins with {text.split()[0]!r}: {text.splitlines()[0][:80]}"
        elif kind == "function" and NOT_A_VERB.match(text):
            yield f"{line}: a function's docstring begins with a verb: {text.splitlines()[0][:80]}"
        prose = re.sub(r"^ *>>>.*(?:\n *\S.*)*", "", text, flags=re.MULTILINE)
        prose = re.sub(r"::\n\n(?: {4,}.*\n|\n)+", ".\n\n", prose)
        prose = re.sub(r"\n(?= *[-*|] )|\n(?= *\w+(?: \([^)]*\))?: )", "\n\n", prose)
        yield from (f"{line}: {what}" for what in complaints_about(prose))
    for number, text in enumerate(source.splitlines(), 1):
        comment = re.match(r"^\s*#(?!!) (.*)", text)
        if comment and (found := PHRASES.search(comment[1])):
            yield f"{number}: {found[0]!r} in: {comment[1][:80]}"


def markdown_complaints(path: Path) -> Iterator[str]:
    """Yield what is wrong with the prose of a Markdown file. Tables and code blocks are not prose."""
    paragraph: list[str] = []
    first = 0
    fenced = False
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        prose = not (fenced or line.startswith(("    ", "|", "#", "<", "```", "![")) or re.match(r"^\s*\[.*\]:", line))
        if prose and len(line) > WIDTH and not re.search(r"https?://\S{40}", line):
            yield f"{number}: {len(line)} columns"
        item = re.match(r"^\s*(?:[-*]|\d+\.) ", line)
        if paragraph and (not prose or not line.strip() or item):
            yield from (f"{first}: {what}" for what in complaints_about("\n".join(paragraph)))
            paragraph = []
        if prose and line.strip():
            first = first if paragraph else number
            paragraph.append(line[item.end() :] if item else line)


PYTHON = sorted(
    [
        *ROOT.glob("miiii_search/**/*.py"),
        *ROOT.glob("bench/*.py"),
        *ROOT.glob("examples/*.py"),
        *ROOT.glob("website/**/*.py"),
    ]
)
TESTS = sorted(ROOT.glob("tests/**/*.py"))
MARKDOWN = sorted(
    [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), ROOT / "workers" / "README.md", ROOT / "website" / "README.md"]
)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_docstrings_are_plain(path: Path) -> None:
    assert not list(python_complaints(path))


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_docstrings_of_tests_begin_plainly(path: Path) -> None:
    """Tests are exempt from the rest: their names say what they check."""
    found = docstrings(ast.parse(path.read_text(encoding="utf-8")))
    assert not [text for _, _, text in found if OPENING.match(text)]


@pytest.mark.parametrize("path", MARKDOWN, ids=named)
def test_pages_are_plain(path: Path) -> None:
    assert not list(markdown_complaints(path))


def test_the_check_finds_what_it_is_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        '"""That which is bad."""\ndef f(): \n    """The sum."""\n# whoever comes\nx = 1\n"""' + "word " * 26 + '."""\n'
    )
    page = tmp_path / "bad.md"
    page.write_text("word " * 26 + "\n\n- a row a task\n\n" + "x" * 101 + "\n\n    " + "code " * 40 + "\n")
    assert len(list(python_complaints(bad))) == 4
    assert len(list(markdown_complaints(page))) == 4


if __name__ == "__main__":
    arguments = [Path(argument).resolve() for argument in sys.argv[1:]] or [*PYTHON, *MARKDOWN]
    files = [file for path in arguments for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    found = [
        f"{file}:{what}"
        for file in files
        for what in (markdown_complaints(file) if file.suffix == ".md" else python_complaints(file))
    ]
    print(*found, sep="\n")
    sys.exit(bool(found))
