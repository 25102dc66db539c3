"""The language of security rules, shared by documents, files and functions: text to tree, tree to value."""
