"""What stands before, behind and beside a network, as nodes of its graph."""
