from __future__ import annotations

import sys

import jinja2

from data_prep.models import smollm2
from data_prep.models.smollm2 import CHAT_TEMPLATE, build_smollm2, find_gguf
from tests.refused import refused


def test_weights_are_found_without_importing_the_package(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "weights_for_a_test"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(folder.parent)
    for package, content, code in (
        ("no_such_package_here", None, "not-installed"),
        (folder.name, None, "not-installed"),
        (folder.name, b"not weights at all", "unreadable-file"),
    ):
        monkeypatch.setattr(smollm2, "PACKAGE", package)
        if content:
            (folder / "SmolLM2.gguf").write_bytes(content)
            assert find_gguf() == folder / "SmolLM2.gguf"
        with refused(code):
            build_smollm2(tmp_path / "out")
    assert folder.name not in sys.modules
    assert not (tmp_path / "out").exists()


def test_chat_template_adds_nothing_of_its_own():
    template = jinja2.Template(CHAT_TEMPLATE)
    question = [{"role": "user", "content": "Which type?"}]
    prompt = template.render(messages=question, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nWhich type?<|im_end|>\n<|im_start|>assistant\n"
    whole = template.render(messages=[*question, {"role": "assistant", "content": "B"}])
    assert whole == prompt + "B<|im_end|>\n"
