"""The rung `namespaces`: each cell has namespaces, a root, a network and a user of its own.

``driver.py`` runs in the node. ``launcher.py`` is a small process beside it, which builds the root that all
cells see (``image.py``) and clones them; ``cell.py`` is what a clone does until it is the runtime. What runs
in the launcher and in cells uses the standard library only, because its interpreter sees nothing else.
"""
