"""`cellduality doctor -- COMMAND`: what would fail, or mislead, minutes into a run, found before Ray starts.

command.py   the words of a run: which trainer, with which flags, started how
flags.py     what OpenRLHF's own parser makes of the flags
model.py     the model folder: sizes out of its config.json
agent.py     the agent file: whether it is this package's, and its configuration
machine.py   versions, graphics cards and memory of this machine
run.py       all of it together, as the checks see it
memory.py    what the run takes of each card and of the host, by formula
plan.py      GiB, tokens a second and hours of each stage, by formula, from rows, model and cards
rates.py     what the hours rest on
check.py     what a check and a finding are
checks/      all checks, by what they look at
show.py      findings as a table and as JSON, the list of checks as Markdown
"""
