"""Train several classifiers on scikit-learn's breast cancer data, compare them and keep the best.

Run it on this machine without a server:   pyflyte run breast_cancer.py choose_model
Run it on aloft:                           pyflyte run --remote --wait breast_cancer.py choose_model
"""

import base64
import io
import pickle
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from flytekit import Deck, Resources, task, workflow
from flytekit.types.file import FlyteFile
from matplotlib import pyplot as plt
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import RocCurveDisplay, accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TARGET = "malignant"


@dataclass
class Quality:
    """What validation found out about the data."""

    rows: int
    features: int
    malignant_share: float


@dataclass
class Candidate:
    """What to train."""

    name: str
    regularization: float = 1.0
    trees: int = 200


@dataclass
class Score:
    """How a model does on rows that it has not seen."""

    name: str
    accuracy: float
    roc_auc: float


class Split(NamedTuple):
    train: pd.DataFrame
    test: pd.DataFrame


class Trained(NamedTuple):
    model: FlyteFile
    score: Score


class Choice(NamedTuple):
    best: Score
    model: FlyteFile


@task
def load() -> pd.DataFrame:
    """The data set that comes with scikit-learn: 569 tumours, 30 measurements of each."""
    frame = load_breast_cancer(as_frame=True).frame
    frame[TARGET] = 1 - frame.pop("target")
    print(f"loaded {len(frame)} rows")
    return frame


@task
def validate(data: pd.DataFrame) -> Quality:
    """Refuse data that no model should be trained on."""
    problems = [f"{column}: {missing} values are missing" for column, missing in data.isna().sum().items() if missing]
    problems += [f"{column}: negative" for column in data.columns if (data[column] < 0).any()]
    if problems:
        raise ValueError("the data cannot be used: " + "; ".join(problems))
    return Quality(rows=len(data), features=data.shape[1] - 1, malignant_share=float(data[TARGET].mean()))


@task
def split(data: pd.DataFrame, quality: Quality, test_fraction: float, seed: int) -> Split:
    """Keep rows apart for the evaluation, with equal shares of both classes."""
    print(f"{quality.rows} rows, {quality.malignant_share:.1%} malignant")
    train, test = train_test_split(data, test_size=test_fraction, random_state=seed, stratify=data[TARGET])
    return Split(train=train.reset_index(drop=True), test=test.reset_index(drop=True))


def estimator(candidate: Candidate, seed: int) -> ClassifierMixin:
    if candidate.name == "logistic regression":
        return make_pipeline(StandardScaler(), LogisticRegression(C=1 / candidate.regularization, max_iter=1000, random_state=seed))
    if candidate.name == "random forest":
        return RandomForestClassifier(n_estimators=candidate.trees, random_state=seed)
    if candidate.name == "gradient boosting":
        return HistGradientBoostingClassifier(l2_regularization=candidate.regularization, random_state=seed)
    raise ValueError(f"no such model: {candidate.name!r}")


@task(requests=Resources(cpu="500m", mem="256Mi"))
def train(candidate: Candidate, train: pd.DataFrame, test: pd.DataFrame, seed: int) -> Trained:
    """Fit one model and score it."""
    model = estimator(candidate, seed).fit(train.drop(columns=TARGET), train[TARGET])
    probability = model.predict_proba(test.drop(columns=TARGET))[:, 1]
    score = Score(
        name=candidate.name,
        accuracy=float(accuracy_score(test[TARGET], probability > 0.5)),
        roc_auc=float(roc_auc_score(test[TARGET], probability)),
    )
    print(f"{score.name}: accuracy {score.accuracy:.4f}, area under the curve {score.roc_auc:.4f}")
    path = candidate.name.replace(" ", "_") + ".pickle"
    with open(path, "wb") as file:
        pickle.dump(model, file)
    return Trained(model=FlyteFile(path), score=score)


@task(enable_deck=True)
def choose(scores: list[Score], models: list[FlyteFile], test: pd.DataFrame) -> Choice:
    """Take the model with the largest area under the curve, and draw all of them."""
    figure, (curves, bars) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for score, file in zip(scores, models):
        with open(file, "rb") as stream:
            model = pickle.load(stream)
        RocCurveDisplay.from_estimator(model, test.drop(columns=TARGET), test[TARGET], name=score.name, ax=curves)
    curves.set(title="Rows not seen in training", xlim=(-0.01, 0.3), ylim=(0.7, 1.01))
    bars.barh([s.name for s in scores], [s.accuracy for s in scores])
    bars.set(title="Accuracy", xlim=(0.9, 1.0))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    encoded = base64.b64encode(picture.getvalue()).decode()
    Deck("Models", f'<h2>Which model is best?</h2><img alt="curves and accuracies" src="data:image/png;base64,{encoded}">')

    position, best = max(enumerate(scores), key=lambda pair: pair[1].roc_auc)
    print(f"best: {best.name}, accuracy {best.accuracy:.4f}")
    return Choice(best=best, model=models[position])


@workflow
def train_all(train_set: pd.DataFrame, test_set: pd.DataFrame, seed: int) -> tuple[list[Score], list[FlyteFile]]:
    """Three models side by side."""
    linear = train(candidate=Candidate(name="logistic regression"), train=train_set, test=test_set, seed=seed)
    forest = train(candidate=Candidate(name="random forest"), train=train_set, test=test_set, seed=seed)
    boosting = train(candidate=Candidate(name="gradient boosting"), train=train_set, test=test_set, seed=seed)
    return [linear.score, forest.score, boosting.score], [linear.model, forest.model, boosting.model]


@workflow
def choose_model(test_fraction: float = 0.25, seed: int = 7) -> Choice:
    """Load, validate, split, train, evaluate, choose."""
    data = load()
    quality = validate(data=data)
    parts = split(data=data, quality=quality, test_fraction=test_fraction, seed=seed)
    scores, models = train_all(train_set=parts.train, test_set=parts.test, seed=seed)
    return choose(scores=scores, models=models, test=parts.test)
