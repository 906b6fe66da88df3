"""Networks that register two small images, and what is shared by the estimators made of them."""
