"""Mapillary Street-Level Sequences (Warburg et al., CVPR 2020), read where its archives were extracted.

The tree is {train_val,test}/CITY/{query,database} with images/KEY.jpg and one row per image, in the same order, in each
of postprocessed.csv (position), raw.csv (heading, date, panorama or not), subtask_index.csv (which images count in the
published evaluation) and seq_info.csv; the cities of test have only the last two.

`cities.py` says which cities there are and where they lie, `subsets.py` what of them is read and counts, `tables.py`
reads the CSV files, `images.py` the images of a city, and `dataset.py` makes a data set of them.
"""

from vpr_dhe.datasets.msls.dataset import LAYOUT, read_msls

__all__ = ["LAYOUT", "read_msls"]
