"""Softmax regression on handwritten digits, trained by SciPy with cross_entropy_and_grad, beside scikit-learn.

    pip install 'softmax-numba[examples]'
    python examples/digits.py [--output digits-logits.npy]
    softmax-numba report --input digits-logits.npy

It trains on 1,347 of the 1,797 digits that come with scikit-learn and prints what share of the other 450 it reads
rightly, and its time beside that of LogisticRegression, which minimises the same objective by the same method with
the same stopping rule. The logits of the 450 are saved: real ones to measure a softmax on.
"""

import argparse
import statistics
from pathlib import Path
from timeit import timeit

import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from softmax_numba import cross_entropy_and_grad

CLASSES, HELD_OUT, ROUNDS = 10, 450, 9
C = 1.0  # the inverse of the penalty's strength, as scikit-learn has it
TOLERANCE, STEPS = 1e-5, 1000


def with_ones(pixels: np.ndarray) -> np.ndarray:
    """``pixels`` and a column of ones: what the last row of the parameters, the bias, is multiplied by."""
    return np.column_stack([pixels, np.ones(len(pixels))])


def objective(parameters: np.ndarray, x: np.ndarray, digits: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean cross-entropy plus |weights|² / (2 C n), and its gradient; the bias is not penalised."""
    matrix = parameters.reshape(-1, CLASSES)
    logits = x @ matrix
    loss, gradient = cross_entropy_and_grad(logits, digits, out=logits)  # the gradient takes the logits' place
    penalty = matrix / (C * len(x))
    penalty[-1] = 0.0
    return float(loss + 0.5 * np.vdot(penalty, matrix)), (x.T @ gradient + penalty).ravel()


def fit(x: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """The best parameters, shape (pixels + 1, classes), by L-BFGS as scikit-learn sets it up."""
    options = {"gtol": TOLERANCE, "ftol": 64 * np.finfo(float).eps, "maxls": 50, "maxiter": STEPS}
    start = np.zeros(x.shape[1] * CLASSES)
    return minimize(objective, start, (x, digits), method="L-BFGS-B", jac=True, options=options).x.reshape(-1, CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(description="Softmax regression on handwritten digits, beside scikit-learn.")
    parser.add_argument("--output", type=Path, default="digits-logits.npy", metavar="FILE", help="where the logits go")
    output = parser.parse_args().output

    pixels, digits = load_digits(return_X_y=True)
    train, test, y, y_test = train_test_split(
        pixels / pixels.max(), digits, test_size=HELD_OUT, stratify=digits, random_state=0
    )
    x, x_test = with_ones(train), with_ones(test)
    regression = LogisticRegression(C=C, tol=TOLERANCE, max_iter=STEPS)

    # These fits are the warm-up: the first call of cross_entropy_and_grad compiles, or loads what was compiled once.
    ours, theirs = fit(x, y), regression.fit(train, y)
    rounds = [
        (timeit(lambda: fit(x, y), number=1), timeit(lambda: regression.fit(train, y), number=1)) for _ in range(ROUNDS)
    ]
    print(f"{len(x)} digits to train on, {len(x_test)} held out; time: median of {ROUNDS} rounds after a warm-up")
    fits = {"softmax-numba": ours, "scikit-learn": np.vstack([theirs.coef_.T, theirs.intercept_])}
    for (name, matrix), seconds in zip(fits.items(), zip(*rounds, strict=True), strict=True):
        accuracy = np.mean((x_test @ matrix).argmax(axis=1) == y_test)
        reached, _ = objective(matrix, x, y)
        milliseconds = statistics.median(seconds) * 1e3
        print(f"{name:13}  accuracy {accuracy:.4f}  objective {reached:.6f}  {milliseconds:.1f} ms")

    logits = x_test @ ours
    np.save(output, logits)
    print(f"logits of the held-out digits: {output}, shape {logits.shape}, {logits.dtype}")


if __name__ == "__main__":
    main()
