"""What can be wrong with a machine and an installation, and what to do about it: ``cloudlet doctor``.

Each file looks at one part. Looking is apart from judging: what was seen is a record, and the findings are a
function of it.
"""
