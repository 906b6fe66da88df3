"""Weakly supervised alignment: a descriptor and a homography learned together, on the one pair, from nothing.

A siamese network describes patches of both images so that patches which the current homography brings together are
alike, and others are not. The one loss moves the homography as well as the network. All that is known beforehand is
that the images are roughly aligned; they may be of different sensors.

Source: Dong et al., "Learning to Align Images using Weak Geometric Supervision", 3DV 2018 (arXiv:1808.01424).
"""
