"""Decides which sequences a step computes, and which blocks they write to. Pure: integers in, integers out."""
