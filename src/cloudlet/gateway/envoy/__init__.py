"""The edge: Envoy's configuration as pure rendering, and its publication.

``structure`` (routes, clusters), ``keys``, ``bans``, ``replies`` and ``bootstrap`` turn records into JSON;
``endpoints`` streams instances; ``publisher`` puts everything into effect; ``command`` is the process.
"""
