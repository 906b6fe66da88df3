"""What training drives down, as differentiable functions of predicted homographies."""
