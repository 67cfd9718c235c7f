"""No rule of the planner without its row in docs/providers/planner.md, no refusal without the test that shows what it prevents."""
import os
import pathlib
import re

import pytest

SOURCE = pathlib.Path(os.environ["QUIESCED_SOURCE"])
HERE = pathlib.Path(__file__).resolve().parent
RULES = dict(re.findall(r'^ *\{"([a-z-]+)", (REFUSAL|WARNING),', (SOURCE / "daemon/model/planner_rules.c").read_text(), re.M))
ROWS = dict(re.findall(r"^\| `([a-z-]+)` (\|.*)$", (SOURCE / "docs/providers/planner.md").read_text(), re.M))
SHOWN = set(re.findall(r"^def test_(\w+)\(", (HERE / "test_what_it_prevents.py").read_text(), re.M))


def test_the_page_has_a_row_for_every_rule_and_no_other():
    assert RULES and set(RULES) == set(ROWS)


@pytest.mark.parametrize("rule", [rule for rule, severity in RULES.items() if severity == "REFUSAL"])
def test_the_row_of_a_refusal_names_tests_that_exist(rule):
    named = set(re.findall(r"`(\w+)`", ROWS[rule].rstrip(" |").rsplit("|", 1)[1]))
    assert named and named <= SHOWN, named - SHOWN
