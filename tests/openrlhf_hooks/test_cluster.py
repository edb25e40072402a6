"""What is read of a Ray cluster, from the report that the installed Ray writes."""

from __future__ import annotations

import pytest

from cellduality_plugin.openrlhf_hooks.cluster import Cluster, address_of
from tests.openrlhf_hooks.conftest import PAIR


def test_what_there_is_what_is_free_and_what_waits(ray_report):
    read = Cluster.read(ray_report({"CPU": (0.0, 4.0), "GPU": (0.0, 1.0), "memory": (0.0, 1e9)}, groups=[PAIR]))
    assert read == Cluster({"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}, ("{'GPU': 1.0, 'CPU': 1.0} * 2 (PACK)",))
    assert str(read) == "4 of 4 CPU free, 1 of 1 GPU free"
    read = Cluster.read(ray_report({"CPU": (1.0, 4.0), "GPU": (1.0, 1.0)}, actors=[({"GPU": 1.0}, 2), ({"CPU": 1}, 1)]))
    assert read.waiting == ("{'GPU': 1.0}",), "cards are what a run waits for"
    assert read.free == {"CPU": 3, "GPU": 0}
    reserved = {"GPU_group_0_0123456789abcdef0123456789abcdef0123": (0.2, 1.0)}
    read = Cluster.read(ray_report({"CPU": (0.0, 4.0), "GPU": (2.0, 4.0), **reserved}))
    assert (read.free["GPU"], read.waiting) == (pytest.approx(2), ()), "reserved, though little runs there"
    for text in ("", "No cluster status. It may take a few seconds for the services to start.", "0/1"):
        assert Cluster.read(text) is None


def test_the_address_is_the_jobs_before_the_environments_before_that_of_what_was_started():
    submit, environment = ["ray", "job", "submit", "--address=http://a:1", "--"], {"RAY_ADDRESS": "b:2"}
    started = [["r"], ["log_monitor", "--gcs-address=c:3"]]
    assert address_of(submit, environment, started) == "http://a:1"
    assert address_of(["python"], environment, started) == "b:2"
    assert [address_of(["python"], {}, lines) for lines in (started, [["r"]])] == ["c:3", ""]
