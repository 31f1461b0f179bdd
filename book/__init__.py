"""The tools that make the book; `python -m book` lists what they do."""
