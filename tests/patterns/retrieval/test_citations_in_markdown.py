"""Marks in every form that models write, and brackets in code, which are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from runmeter.patterns.retrieval.citations import find_citations
from runmeter.patterns.retrieval.code import code_in
from runmeter.patterns.retrieval.retriever import Passage

PASSAGES = [Passage(text=text) for text in "abc"]


def cited(answer: str) -> tuple[list[int], list[int]]:
    citations, unsupported = find_citations(answer, PASSAGES)
    return [each.number for each in citations], list(unsupported)


@pytest.mark.parametrize(
    ("answer", "numbers", "unsupported"),
    [
        ("x [1-3].", [1, 2, 3], []),
        ("x [1–3].", [1, 2, 3], []),
        ("x [1 — 2].", [1, 2], []),
        ("x [2-5].", [2, 3], [4, 5]),
        ("x [1, 2 and 3].", [1, 2, 3], []),
        ("x [1, 2, and 3].", [1, 2, 3], []),
        ("x [1 and 2].", [1, 2], []),
        ("x [1 & 9].", [1], [9]),
        ("x [1;2].", [1, 2], []),
        ("x [1, 2-3].", [1, 2, 3], []),
        ("x [1][2].", [1, 2], []),
        ("x [3-1].", [], []),
        ("x [2024-2026], [1, ], [and 1], [1 or 2], [1.2], [-1], [1band2].", [], []),
        (r"x \[1], y \[2-3].", [], []),
        ("[1](https://example.com)", [1], []),
    ],
)
def test_marks_have_many_forms(answer: str, numbers: list[int], unsupported: list[int]) -> None:
    assert cited(answer) == (numbers, unsupported)


CODE = [
    "~~~\nx[2]\n~~~\n",
    "~~~python\nx[2]\n```\nx[2]\n~~~~\n",
    "```\nx[2]\n~~~\nx[2]\n```\n",
    "````\n```\nx[2]\n```\nx[2]\n````\n",
    "  ```\n  x[2]\n  ```\n",
    "~~~\nx[2]",
    "    x = y[2]\n",
    "\tx = y[2]\n    y[2]\n\n    z[2]\n",
    "``a`b[2]``\n",
    "`a\nb[2]`\n",
    "``` x[2] ```\n",
    "`` `x[2]` ``\n",
    "- item\n\n  ```\n  x[2]\n  ```\n",
    "1. ```\n   x[2]\n   ```\n",
    "> ~~~\n> x[2]\n> ~~~\n",
    "- item\n\n        x[2]\n",
]


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_code_has_no_marks(code: str, end: str) -> None:
    whole = f"One [1].\n\n{code}".replace("\n", end)
    assert cited(whole) == ([1], [])
    if code.endswith("\n"):
        assert cited(whole + f"{end}Three [3].") == ([1, 3], [])


@pytest.mark.parametrize(
    "prose",
    [
        "One\n    goes on [2].",
        "- item\n    - nested [2]",
        "- item\n\n    - nested [2]",
        "1. item\n\n    goes on [2]",
        "- a\n    - b\n        - c [2]",
        "A ` alone [2] and no other.",
        "A ` here.\n\nAnd [2] ` there.",
        "Two `` and one ` [2].",
        r"\`x [2]\`",
        "A ~~struck~~ [2] text.",
        "> quoted [2]",
    ],
)
def test_prose_that_looks_like_code_has_marks(prose: str) -> None:
    assert cited(prose) == ([2], [])


LINES = st.lists(
    st.sampled_from(
        [
            "",
            "x[2]",
            "`x[2]`",
            "``",
            "`",
            "    x[2]",
            "- x[2]",
            "  x[2]",
            "```",
            "~~~",
            "````",
            "`` a`b ``",
            "      x[2]",
        ]
    ),
    max_size=8,
)


@given(LINES)
def test_fences_are_those_of_commonmark(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = code_in(text)
    assert found == sorted(found)
    if any(line.startswith(("-", "  ")) for line in lines):
        return  # of lists less is known here
    starts = [sum(len(line) + 1 for line in lines[:number]) for number in range(len(lines))]
    for token in MarkdownIt().parse(text):
        if token.type == "fence" and token.map:
            inside = [starts[number] for number in range(token.map[0], min(token.map[1], len(lines)))]
            assert all(any(start <= place <= end for start, end in found) for place in inside)


def test_a_long_answer_takes_no_longer_than_its_length_says() -> None:
    answer = "`" + "[1] `` " * 20_000 + " " * 20_000 + "\n" + "> " * 20_000
    assert len(find_citations(answer, PASSAGES)[0]) < 20_000
