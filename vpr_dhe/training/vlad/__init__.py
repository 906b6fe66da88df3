"""Fit of the vocabulary and the projection of a VLAD to unlabelled images, for any model."""
