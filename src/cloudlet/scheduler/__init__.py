"""The brain of control: decides how many instances of which version run, and gives calls to them.

Pure: `lifecycle`, `autoscale`, `bind`, `plan`, `catalog`, `signals`. Effects: `leases`, `fleet`,
`endpoints`, `loop`.
"""
