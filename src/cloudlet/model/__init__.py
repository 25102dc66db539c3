"""The words of the system: values shared by every room. Standard library only, no input or output."""
