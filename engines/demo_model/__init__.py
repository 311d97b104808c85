"""Roundhouse's own demo model: its shipped files, and the programs that make them.

Importing this package imports nothing heavy; `train` and `evaluate` are commands of their own.
"""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "files"
