"""From the official raw downloads to the project's one layout: registry, preparation, splits, leakage audit.

``python -m data_scripts list | info NAME | prepare NAME --raw DIR --out DIR | audit DIR_OR_ZIP |
make_splits --only NAME``.
"""
