"""Stands in for the real engine: with its folder on PYTHONPATH, `python -m engines` starts this one."""
