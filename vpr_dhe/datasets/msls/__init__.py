"""Mapillary Street-Level Sequences (Warburg et al., CVPR 2020), as extracted from its archives.

The layout is {train_val,test}/CITY/{query,database} with images/KEY.jpg and one row per image, in the same order, in
each of postprocessed.csv (position), raw.csv (heading, date, panorama or not), subtask_index.csv (images of the
published evaluation) and seq_info.csv; the cities of test have only the last two.

`cities.py` lists the cities and their folders, `subsets.py` the splits and rules, `tables.py` reads CSV files,
`images.py` the images of a city, and `dataset.py` makes the data set.
"""

from vpr_dhe.datasets.msls.dataset import LAYOUT, read_msls

__all__ = ["LAYOUT", "read_msls"]
