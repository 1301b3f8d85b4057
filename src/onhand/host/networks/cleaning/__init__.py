"""The rules of `onhand.host.networks.clean`: each takes a graph and gives one of its function."""
