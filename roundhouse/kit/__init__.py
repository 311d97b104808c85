"""Mechanism that every process shares. Knows no noun of the domain."""
