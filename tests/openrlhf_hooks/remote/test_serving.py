"""The one command that serves rewards."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.openrlhf_hooks.remote.judge import with_endpoint
from tests.refused import refused

ROOT = Path(__file__).resolve().parents[3]
TYPE = "cell_type_annotation"
COMMAND = [sys.executable, "-W", "ignore", "-c", "from cellduality_plugin.cli import main; main()", "serve-reward"]


def test_flags_go_before_the_configuration(make_config):
    config = make_config(dual={"endpoint": {"urls": ["http://old/v1"], "model": "old", "concurrency": 3}})
    endpoint = with_endpoint(config, urls=("http://new/v1",), model="", tokenizer="folder").dual.endpoint
    assert (endpoint.urls, endpoint.model, endpoint.concurrency) == (("http://new/v1",), "old", 3)
    assert endpoint.tokenizer == "folder"


def test_an_endpoint_has_to_be_named(make_config):
    for changes, where in (({}, "dual.endpoint.urls"), ({"urls": ("http://host/v1",)}, "dual.endpoint.model")):
        with refused("no-endpoint") as error:
            with_endpoint(make_config(), **changes)
        assert error.value.where == where


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
    make_config(tasks={TYPE: {"pair": TYPE, "reward": "likelihood"}})
    usual = ["--policy-url", policy_server.url, "--model", "toy", "--tokenizer", str(small_world.model), "--port", "0"]
    command = [*COMMAND, "--config", str(tmp_path / "cellduality.json"), *usual]
    clean = {name: value for name, value in os.environ.items() if name != "CELLDUALITY_TOKEN"}
    environment = {**clean, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        line = process.stdout.readline()
        found = re.fullmatch(r"--reward\.remote_url (http://reward:(\S+)@(127\.0\.0\.1:\d+)/)\n", line)
        assert found, (line, process.stderr.read() if process.poll() is not None else "")
        _, token, host = found.groups()
        policy_server.after = 1.0
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"http://{host}/", json.dumps(posted(TYPE)).encode(), headers)
        replies = []

        def ask() -> None:
            with urllib.request.urlopen(request, timeout=120) as response:
                replies.append(json.load(response))

        asking = threading.Thread(target=ask)
        asking.start()
        while not policy_server.asked:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)  # with a request under way
        asking.join()
        assert process.wait(120) == 0
        assert process.stderr.read() == ""
    assert replies[0]["rewards"] > 0.0
