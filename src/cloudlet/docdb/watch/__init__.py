"""Live results: a watch tells what a query returns, and then every change of that.

``service`` is the door. A change of the store goes to the ``hub`` of its environment, through the ``terms``
of the queries to those it may concern (``live``), and becomes something to be told (``pending``) by each
``watch`` of the query. Everything is exact by sequence number: a watch stands at one, its pending entries say
how to get from what its client has to that state, and what is missing is read from the log (``snapshot``).
"""
