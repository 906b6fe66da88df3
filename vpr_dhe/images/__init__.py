"""Image files: listing, decoding, views of panoramas, and preprocessing for networks.

`listing.py` finds images in a folder, `decoding.py` reads files, `loading.py` takes images in any form, and
`preprocessing.py` makes batches for networks. `formats.py`, `names.py` and `view_names.py` need no numpy.
"""
