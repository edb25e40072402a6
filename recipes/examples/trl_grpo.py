"""GRPO with dual rewards in TRL instead of OpenRLHF: the model that is trained answers its own dual questions.

Prepare the data and train SFT as usual (recipes/sft.sh), then:
python recipes/examples/trl_grpo.py --run runs/cpu --out runs/cpu/trl --steps 20
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from cellduality_plugin.config import Config
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.policies.local import LocalModel, LocalPolicy
from cellduality_plugin.reward_function import DualReward

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--run", type=Path, default=Path("runs/cpu"), help="the folder of a run: its data and its sft")
parser.add_argument("--out", type=Path, required=True, help="the folder of the trained model")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--group", type=int, default=8, help="rollouts of a question")
parser.add_argument("--batch", type=int, default=32, help="rollouts of a step")
parser.add_argument("--max-len", type=int, default=256, help="tokens of question and response")
parser.add_argument("--max-new-tokens", type=int, default=112)
given = parser.parse_args()

rows = read_jsonl(given.run / "data" / "rl.jsonl")
questions = [{"prompt": [{"role": "user", "content": row["input"]}], "label": row["label"]} for row in rows]
tokenizer = AutoTokenizer.from_pretrained(given.run / "sft")
model = AutoModelForCausalLM.from_pretrained(given.run / "sft", dtype="float32")
player = LocalModel(model, tokenizer, max_model_len=given.max_len, max_new_tokens=given.max_new_tokens)
reward = DualReward(Config.load(given.run / "data" / "cellduality.json"), LocalPolicy(player, temperature=0.0, seed=0))
settings = GRPOConfig(
    str(given.out), max_steps=given.steps, per_device_train_batch_size=given.batch, num_generations=given.group,
    max_completion_length=given.max_new_tokens, learning_rate=1e-4, bf16=False, logging_steps=1, save_strategy="no",
    report_to="none",
)  # fmt: skip
trainer = GRPOTrainer(model, reward, settings, Dataset.from_list(questions), processing_class=tokenizer)
trainer.train()
trainer.save_model(str(given.out))
trainer.save_state()
