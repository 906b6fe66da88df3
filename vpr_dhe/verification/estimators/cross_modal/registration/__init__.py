"""Registration networks for pairs of small images, and the estimator built on them."""
