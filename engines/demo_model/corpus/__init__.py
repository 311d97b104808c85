"""The generated text that the demo model learns from: seeded, pure Python, ours."""
