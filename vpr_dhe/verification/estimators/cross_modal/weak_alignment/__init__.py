"""Weakly supervised alignment: a descriptor and a homography learned together on each pair, from scratch.

A siamese network learns descriptors of patches that are similar where the current homography maps one patch to the
other, and dissimilar elsewhere. One loss updates both the homography and the network. The images, which may be of
different sensors, must be roughly aligned.

Source: Dong et al., "Learning to Align Images using Weak Geometric Supervision", 3DV 2018 (arXiv:1808.01424).
"""
