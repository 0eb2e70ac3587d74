"""The page needs nothing but itself, and a report holds its data in one file."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from edgefl.board import page


@pytest.mark.parametrize("name", page.ASSETS)
def test_nothing_is_fetched_from_elsewhere(name):
    text = page.asset(name).decode()
    named = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not named
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
    assert not re.findall(r"\son[a-z]+=|style=\"", text)  # the policy allows neither


def test_a_report_is_one_file_whose_script_cannot_be_ended_by_its_data():
    hostile = {"why": "</script><script>alert(1)</script><!--", "plain": "ä"}
    text = page.whole(hostile)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None and json.loads(data[1]) == hostile
    assert text.count("<script") == 2 and "src=" not in text and "stylesheet" not in text


def test_a_reports_policy_allows_its_own_script_and_style_alone():
    text = page.whole(None)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_every_id_that_the_script_names_is_in_the_page():
    html, script = page.asset("page.html").decode(), page.asset("board.js").decode()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= set(ids)
    assert {name for name in re.findall(r'(?:for|aria-labelledby|href)="#?([\w-]+)"', html)} - {"board"} <= set(ids)
