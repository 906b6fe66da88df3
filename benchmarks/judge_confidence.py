"""Confidence in the first answer: by its inliers, by its evidence, and by the same-place logit of a learned judge.

    OMP_NUM_THREADS=1 python benchmarks/judge_confidence.py FOLDER --frame-tolerance thumbs_gardens_point=2

Each query is asked twice, as it is and with its place taken out of the candidates, as for a calibration. A logistic
regression on the scenes that the judge learned from makes a probability of each confidence; the area under the
precision-recall curve, the recall at 100 % precision and the expected calibration error are those of sets that nothing
learned from. The judge is that of `learned_judge.py` with weights and verdict; its rows are means of several trainings.
Writes `benchmarks/results/judge_confidence.md`.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float64
from judge_network import Design, Judge, Shortlists, scores_of
from learned_judge import parser_of, read_all, trained
from measuring import RESULTS, folder_for, table
from sklearn.linear_model import LogisticRegression

from vpr_dhe.evaluation.calibration.metrics import expected_calibration_error
from vpr_dhe.evaluation.precision_recall import precision_recall

Confidences: TypeAlias = Float64[np.ndarray, " answers"]


class Answers(NamedTuple):
    """First answers of a set: confidence in each, and whether it is right."""

    confidence: Confidences
    right: Bool[np.ndarray, " answers"]
    queries: int


class Figures(NamedTuple):
    """Area under the precision-recall curve and recall at full precision in percent, and the calibration error."""

    area: float
    full_precision: float
    calibration_error: float


def answers(one: Shortlists, judge: Judge, by: str) -> Answers:
    """Rank by a judge, with and without the places of the queries, and give the confidence in each first answer."""
    confidences, rights = list[Confidences](), list[np.ndarray]()
    for lists in (one, one.without_places()):
        asked = lists.present.any(dim=1).numpy()
        scores = scores_of(judge, lists)
        first = np.where(lists.present.numpy(), scores, -np.inf).argmax(axis=1)
        values = lists.inliers.double().numpy() if by == "inliers" else scores
        rows = np.arange(len(first))
        confidences.append(values[rows, first][asked])
        rights.append(lists.right.numpy()[rows, first][asked])
    return Answers(np.concatenate(confidences), np.concatenate(rights), len(one.present))


def figures(learned_from: Sequence[Answers], measured: Sequence[Answers]) -> list[Figures]:
    """Figures of each measured set, with probabilities by a regression on other sets that weigh the same."""
    confidences = np.concatenate([_compressed(one.confidence) for one in learned_from])
    rights = np.concatenate([one.right for one in learned_from])
    weights = np.concatenate([np.full(len(one.right), 1 / len(one.right)) for one in learned_from])
    model = LogisticRegression(C=1e3).fit(confidences[:, None], rights, weights / weights.mean())
    found = list[Figures]()
    for one in measured:
        curve = precision_recall(one.confidence.tolist(), one.right.tolist(), one.queries)
        assert curve is not None
        probabilities = model.predict_proba(_compressed(one.confidence)[:, None])[:, 1]
        error = expected_calibration_error(probabilities, one.right)
        found.append(Figures(curve.area, curve.recall_at_full_precision, error))
    return found


def _compressed(confidences: Confidences) -> Confidences:
    """Confidences on a scale on which their logit is nearly linear: they grow with numbers of inliers."""
    return np.sign(confidences) * np.log1p(np.abs(confidences))


def main() -> None:
    """Measure, print and write."""
    options = parser_of(__doc__).parse_args()
    with folder_for(options.cache) as cache:
        training, measured = read_all(options.folder, options.model, dict(options.frame_tolerance), cache)
    evidence = [Judge(Design()).eval()]
    learned = [trained(training, seed, Design(verdict=True)) for seed in range(options.runs)]
    ways = {"inliers": ("inliers", evidence), "evidence": ("scores", evidence), "judge": ("scores", learned)}
    rows = list[list[str]]()
    for name, (by, judges) in ways.items():
        runs = [
            figures([answers(one, judge, by) for one in training], [answers(one, judge, by) for one in measured])
            for judge in judges
        ]
        means = np.mean(np.array(runs), axis=0)
        cells = [f"{area:.1f} / {full:.1f} / {error:.3f}" for area, full, error in [*means, means.mean(axis=0)]]
        rows.append([name, *cells])
        print(rows[-1], flush=True)
    text = table(("confidence by", *(one.name for one in measured), "mean"), rows)
    print(text)
    (RESULTS / "judge_confidence.md").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
