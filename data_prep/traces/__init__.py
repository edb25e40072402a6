"""Reasoning traces for SFT: a teacher is asked, its candidates are filtered, what passes becomes rows (section 3.3)."""
