"""A real reward server under a real HTTP client: what is judged, what is refused, and what goes wrong."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.openrlhf_hooks.remote import server as room
from cellduality_plugin.openrlhf_hooks.remote.protocol import MAX_ITEMS
from tests.refused import refused

ROOT = Path(__file__).resolve().parents[3]
TYPE = "cell_type_annotation"
LIKELY = {TYPE: {"pair": TYPE, "reward": "likelihood"}}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def client(served):
    """A client of a server that judges by likelihood."""
    return served(tasks=LIKELY)


def test_several_rollouts_are_answered_in_their_order_and_share_the_calls_of_their_row(client, posted, policy_server):
    policy_server.log_prob = lambda place: -1.0
    reply = client.post(posted(TYPE, "T", "", "CD19+ B", "T")).json()
    first, nothing, other, again = reply["rewards"]
    assert first == again == other > nothing == 0.0
    assert reply["extra_logs"]["dual_answer_parsed"] == [1.0, 0.0, 1.0, 1.0]
    client.post(posted(TYPE, "T"))
    assert len(policy_server.asked) == client.metrics()["dual_requests_total"] == 2
    assert client.metrics()["rewards_total"] == 5
    client.post(posted(TYPE, "T", row=1))
    assert len(policy_server.asked) == 3


class TestWhatIsRefused:
    def test_without_the_token(self, client, posted, policy_server):
        for header in ("", "bearer a-token-of-some-lengt", "Basic !!!", "Digest a-token-of-some-length"):
            reply = client.send("POST", "/", posted(TYPE), Authorization=header)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert client.send("GET", "/metrics", Authorization=header).status_code == 401
        assert policy_server.asked == []

    def test_a_wrong_field_is_named_and_the_policy_not_asked(self, client, posted, policy_server):
        body = posted(TYPE)
        row = json.loads(body["labels"][0])
        lacking = [{"known": {}}, {"unknown": "T"}, {"inputs": {}}, {"known": {"observed": "T"}}]  # what its dual shows
        labels = "[" * 10_000, *(json.dumps({**row, **part}) for part in lacking)
        for named, changes in {
            "labels[0]": [{"labels": [label]} for label in labels],
            "query[0]": [{"query": ["<answer>T</answer>"]}],
            "body": [{"query": ["\ud800"]}],
            "query": [{"query": "ab"}, {"query": []}, {"query": ["a"] * (MAX_ITEMS + 1)}],
            "prompts": [{"prompts": ["a", "b"]}, {"prompts": [None]}, {"prompts": None}],
        }.items():
            for change in changes:
                reply = client.post({**body, **change})
                error = reply.json()["error"]
                assert (reply.status_code, error.startswith(named), len(error) < 300) == (400, True, True), change
        assert policy_server.asked == []

    @pytest.mark.parametrize(
        ("head", "body", "status"),
        [
            ("Content-Length: 4", b"[1]\n", 400),
            ("Content-Length: 2001", b"", 413),
            ("Transfer-Encoding: chunked", (b"3e8\r\n" + b" " * 1000 + b"\r\n") * 3, 413),
            ("Content-Length: 10", b" ", 408),
        ],
    )
    def test_a_body_that_is_no_request_or_too_long_or_does_not_come(self, head, body, status, client, monkeypatch):
        monkeypatch.setattr(room, "_BODY_BYTES", 2000)
        monkeypatch.setattr(room, "_BODY_SECONDS", 0.2)
        with socket.create_connection(client.host.split(":"), timeout=10) as connection:
            usual = "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token-of-some-length\r\n"
            connection.sendall(f"{usual}{head}\r\n\r\n".encode() + body)
            assert connection.recv(100).startswith(f"HTTP/1.1 {status}".encode())
        assert client.metrics()[f'requests_total{{code="{status}"}}'] == 1

    def test_what_is_past_the_bound_is_told_when_to_come_again(self, served, posted, policy_server):
        client = served(limits={"at_once": 1, "waiting": 2}, tasks=LIKELY)
        bodies = [posted(TYPE, row=row) for row in range(12)]
        policy_server.after = 1.0
        with ThreadPoolExecutor(12) as threads:
            asked = [threads.submit(client.post, body) for body in bodies]
            while sum(future.done() for future in asked) < 9:
                time.sleep(0.01)
            metrics = client.metrics()
            replies = [future.result() for future in asked]
        assert (metrics["in_flight"], metrics["queue"]) == (1, 2)
        codes = sorted(reply.status_code for reply in replies)
        assert codes == [200] * 3 + [429] * 9
        assert {reply.headers["retry-after"] for reply in replies if reply.status_code == 429} == {"1"}
        assert client.post(posted(TYPE, "T", "T", "T", "T")).status_code == 429
        assert client.post(posted(TYPE)).status_code == 200
        assert client.metrics()["queue"] == client.metrics()["in_flight"] == 0


@given(data=st.data())
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_at_all_gets_a_4xx_or_a_reward(data, client, posted):
    body = posted(TYPE)
    name = data.draw(st.sampled_from([*body, "part of the row"]))
    if name in body:
        body[name] = data.draw(ANYTHING | ANYTHING.map(lambda value: [value]))
    else:
        row = json.loads(body["labels"][0])
        row[data.draw(st.sampled_from(sorted(row)))] = data.draw(ANYTHING)
        body["labels"] = [json.dumps(row)]
    reply = client.post(body)
    assert reply.status_code in (200, 400), reply.content
    assert reply.status_code == 400 or math.isfinite(reply.json()["rewards"])


def test_a_policy_that_fails_costs_one_reward(served, posted, policy_server, said):
    client = served(tasks=LIKELY, endpoint={"retries": 0})
    client.post(posted(TYPE, row=1))  # now it knows the length of the context, and asks nothing but rewards
    policy_server.script = [said(body=b"\xff")]
    reply = client.post(posted(TYPE)).json()
    assert (reply["rewards"], reply["extra_logs"]["dual_failed"]) == (0.0, 1.0)
    assert client.metrics()['failures_total{cause="malformed"}'] == 1
    assert client.post(posted(TYPE)).json()["rewards"] > 0.0  # asked anew, though the row is the same


def test_an_error_of_ours_is_one_500_and_the_server_goes_on(client, posted, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(room.protocol, "reply", lambda scores: {}["wrong"])
        assert client.post(posted(TYPE)).status_code == 500
    assert client.post(posted(TYPE)).status_code == 200
    metrics = client.metrics()
    assert metrics['requests_total{code="500"}'] == metrics['requests_total{code="200"}'] == 1
    assert "KeyError: 'wrong'" in caplog.text


def test_health_tells_whether_the_policy_answers(client, policy_server, monkeypatch):
    monkeypatch.setattr(room, "_HEALTH_HOLDS", 0.0)
    for status, policy in ((200, "answers"), (503, "refused")):
        reply = client.send("GET", "/healthz")
        assert (reply.status_code, reply.json()) == (status, {"policy": policy})
        policy_server.stop()


CHAT = {"urls": ["http://h/v1"], "model": "m", "kind": "chat"}


@pytest.mark.parametrize(
    ("settings", "flags", "code"),
    [
        ({"dual": {"endpoint": CHAT}}, [], "needs-log-probs"),
        ({}, ["--host", "0.0.0.0"], "no-token"),
        ({}, ["--policy-url", "localhost:8000"], "no-address"),
        ({}, ["--tokenizer", "/nowhere/at/all"], "no-tokenizer"),
        ({}, ["--key-variable", "NO_SUCH_KEY"], "no-key"),
        ({}, ["--port", ""], "cannot-listen"),
    ],
)
def test_what_cannot_be_served_is_refused(settings, flags, code, make_config, tmp_path, small_world, monkeypatch):
    monkeypatch.delenv("CELLDUALITY_TOKEN", raising=False)
    make_config(tasks={TYPE: {"pair": TYPE, "reward": {"duality": 1, "likelihood": 1}}}, **settings)
    usual = ["--policy-url", "http://127.0.0.1:1/v1", "--model", "toy", "--tokenizer", str(small_world.model)]
    config = ["--config", str(tmp_path / "cellduality.json")]
    with socket.create_server(("127.0.0.1", 0)) as taken, refused(code):
        flags = [flag or str(taken.getsockname()[1]) for flag in flags]
        CliRunner().invoke(app, ["serve-reward", *config, *usual, *flags], catch_exceptions=False)


def test_it_prints_the_flag_serves_and_ends_well(make_config, tmp_path, small_world, policy_server, posted):
    make_config(tasks=LIKELY)
    usual = ["--policy-url", policy_server.url, "--model", "toy", "--tokenizer", str(small_world.model), "--port", "0"]
    program = "from cellduality_plugin.cli import main; main()", "serve-reward"
    command = [sys.executable, "-W", "ignore", "-c", *program, "--config", str(tmp_path / "cellduality.json"), *usual]
    clean = {name: value for name, value in os.environ.items() if name != "CELLDUALITY_TOKEN"}
    environment, pipe = {**clean, "PYTHONPATH": str(ROOT)}, subprocess.PIPE
    with (
        subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process,
        ThreadPoolExecutor(1) as thread,
    ):
        line = process.stdout.readline()
        found = re.fullmatch(r"--reward\.remote_url (http://reward:\S+@127\.0\.0\.1:\d+/)\n", line)
        assert found, (line, process.stderr.read() if process.poll() is not None else "")
        policy_server.after = 1.0
        reply = thread.submit(httpx.post, found[1], json=posted(TYPE), timeout=120, trust_env=False)
        while not policy_server.asked:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)  # with a request under way
        assert reply.result().json()["rewards"] > 0.0
        assert process.wait(120) == 0
        assert process.stderr.read() == ""
