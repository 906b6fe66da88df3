"""Answer one query with only NumPy, OpenCV, FAISS and ONNX Runtime: a lower bound of the start-up time.

    python benchmarks/start_without_torch.py INDEX PHOTO MODELS

A lower bound for `benchmarks/start.py`, not a way to query: the index has to be of `lite-vlad`, with one segment, and
maps as float16. Nothing is checked, adapted or calibrated; preprocessing differs in rounding. MODELS is the folder
`vpr_dhe/models` of the package, which is not imported.
"""

import argparse
import json
import zipfile
from pathlib import Path

import cv2
import faiss
import numpy as np
import onnxruntime

_SIDE, _CELLS, _WIDTH = 320, 20, 64
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
_THRESHOLD_PX = 1.5 * _SIDE / _CELLS
_RERANK = 100


def network(models: Path) -> onnxruntime.InferenceSession:
    """Open the graph of the package with the weights of the model file."""
    (file,) = models.glob("graphs/lite-vlad-*.zip")
    with zipfile.ZipFile(file) as archive:
        graph, names = archive.read("graph.onnx"), json.loads(archive.read("graph.json"))["weights"]
    raw = (models / "weights" / "lite-vlad.safetensors").read_bytes()
    first = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:first])

    def tensor(name: str) -> np.ndarray:
        info = header[name]
        begin, end = (first + offset for offset in info["data_offsets"])
        return np.frombuffer(raw[begin:end], _TYPES[info["dtype"]]).reshape(info["shape"]).astype(np.float32)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor(name)) for name in names]
    options.add_external_initializers(names, values)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def inliers(query: np.ndarray, candidate: np.ndarray, centres: np.ndarray) -> int:
    """Count the inliers of MAGSAC++ among mutual nearest neighbours."""
    products = query @ candidate.T
    there, back = products.argmax(1), products.argmax(0)
    mutual = np.flatnonzero(back[there] == np.arange(len(query)))
    if len(mutual) < 4:
        return 0
    try:
        _, mask = cv2.findHomography(centres[mutual], centres[there[mutual]], cv2.USAC_MAGSAC, _THRESHOLD_PX)
    except cv2.error:  # of degenerate sets
        return 0
    return 0 if mask is None else int(mask.sum())


def main() -> None:
    """Print the five best images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("models", type=Path)
    arguments = parser.parse_args()

    session = network(arguments.models)
    (segment,) = (arguments.index / "segments").iterdir()
    names = [json.loads(line)["record"]["path"] for line in (segment / "images.jsonl").read_text().splitlines()]
    vectors = np.fromfile(segment / "vectors.f32", np.float32).reshape(len(names), -1)
    maps = np.memmap(segment / "local_maps.bin", np.float16, "r").reshape(len(names), _CELLS**2, _WIDTH)
    image = cv2.cvtColor(cv2.imread(str(arguments.photo)), cv2.COLOR_BGR2RGB)
    pixels = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) / np.float32(255)
    pixels = ((pixels - np.float32(_MEAN)) / np.float32(_STD)).transpose(2, 0, 1)[None]
    vector, local_map, *_ = (output[0] for output in session.run(None, {session.get_inputs()[0].name: pixels}))
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    _, found = flat.search(vector[None] / np.linalg.norm(vector), min(_RERANK, len(names)))
    centres = np.stack(np.meshgrid(np.arange(_CELLS), np.arange(_CELLS)), -1).reshape(-1, 2) * (_SIDE / _CELLS)
    counts = [(inliers(local_map, maps[row].astype(np.float32), centres), names[row]) for row in found[0]]
    for count, name in sorted(counts, reverse=True)[:5]:
        print(name, count)


if __name__ == "__main__":
    main()
