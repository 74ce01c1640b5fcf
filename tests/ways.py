"""Losses and ways back that go the short way, beside the long way."""

import pytest
from loss_cases import Case, drawn

from softmax_numba import gradients, losses


@pytest.fixture
def long_way(monkeypatch):
    """How many calls were left to it."""
    calls = []
    for module, name in ((losses, "_loss"), (gradients, "_vjp")):
        whole = getattr(module, name)

        def counted(*arguments, whole=whole):
            calls.append(arguments)
            return whole(*arguments)

        monkeypatch.setattr(module, name, counted)
    return calls


def plain(shape, dtype, axis=-1, reduction="mean", seed=1) -> Case:
    """A loss at class indices without options."""
    case = drawn(seed, dtype, shape, axis % len(shape), "indices")
    options = {"reduction": reduction, "ignore_index": case.options.get("ignore_index", -100)}
    return case._replace(axis=axis, options=options)


def both_ways(case):
    """Loss and gradient by the short way and by the long way, and the loss in calls of its own."""
    short, short_loss = case.loss_and_gradient(), case.loss()
    how = case.options["reduction"], 0.0, 0.0, 0.0
    arguments = case.logits, case.targets, case.axis, None, case.options["ignore_index"], how
    return (*short, short_loss), (*losses._loss(*arguments, True, None), losses._loss(*arguments, False, None)[0])
