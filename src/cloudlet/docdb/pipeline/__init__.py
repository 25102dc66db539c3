"""The aggregation pipeline: stages, accumulators and expressions, parsed once and run over documents.

What an expression or a stage means is MongoDB's ("Aggregation Operators" and "Aggregation Stages" of its
manual). Nothing is imported here, because the filter language needs ``expressions`` and the stages need
filters.
"""
