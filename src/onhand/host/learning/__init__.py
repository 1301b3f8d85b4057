"""What a bundle needs so that it can learn on a device: graphs of losses and their gradients."""
