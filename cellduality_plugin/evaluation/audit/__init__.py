"""Before training: does a reward prefer the truth? Answers of known worth are put before it, and it is watched."""
