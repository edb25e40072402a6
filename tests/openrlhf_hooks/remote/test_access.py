"""Who may ask, and where a server listens without a token."""

from __future__ import annotations

import pytest

from cellduality_plugin.openrlhf_hooks.remote.access import TOKEN_VARIABLE, allowed, find_token
from tests.refused import refused


def test_a_token_is_made_for_this_machine_alone(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    (one, made), (other, _) = find_token("127.0.0.1"), find_token("::1")
    assert made
    assert allowed(f"Bearer {one}", one)
    assert not allowed(f"Bearer {one}", other)
    for host in ("0.0.0.0", "::", "10.0.0.7", "rewards.lab", ""):
        with refused("no-token"):
            find_token(host)
    monkeypatch.setenv(TOKEN_VARIABLE, "0123456789abcdef")
    assert find_token("0.0.0.0") == find_token("127.0.0.1") == ("0123456789abcdef", False)


@pytest.mark.parametrize("token", ["short", "with a blank in the middle", "ünïcödé-ünïcödé-ü", "tab\tor-a-new-line\n"])
def test_a_weak_token_is_refused_and_not_shown(monkeypatch, token):
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with refused("weak-token") as caught:
        find_token("127.0.0.1")
    assert token not in str(caught.value)


@pytest.mark.parametrize("header", ["Bearer ünï", "Basic \ud800", "Basic QQ==", "Basic" + "A" * 10_000, " " * 50])
def test_a_header_of_any_kind_is_no_token(header):
    assert not allowed(header, "0123456789abcdef")
