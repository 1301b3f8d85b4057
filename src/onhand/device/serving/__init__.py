"""The long-lived process of a device: requests in, answers out."""
