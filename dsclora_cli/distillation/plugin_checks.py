"""Checks around the code of a method of another package: what the code raises, prints and returns.

Every fault of such code is an error with the name of the package, raised where the code returns. Further down, the
training loop would fail over the same fault as if dsclora were to blame, or train something else without a message.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dsclora_cli.datasets.patches import Batch
from dsclora_cli.distillation.losses import OWN_TERMS, DistillBatch, FeatureTerm
from dsclora_cli.errors import DscloraError, UsageError, class_and_line
from dsclora_cli.methods import MethodPlugin
from dsclora_cli.models.network import Network
from dsclora_cli.paths import is_file
from dsclora_cli.training.trainer import LossTerms, TrainingSetup


@contextmanager
def errors_named(plugin: MethodPlugin) -> Iterator[None]:
    """Turn an exception of another package's code into one line with the name of the package.

    What the code prints goes to standard error: standard output has the JSON of the command.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (DscloraError, torch.OutOfMemoryError):  # explained in a line already
        raise
    # The code of a plugin may raise anything; SystemExit would end the command without a line.
    except (Exception, SystemExit) as error:
        raise DscloraError(
            f"{plugin.title} failed: {class_and_line(error)}",
            f"report the error to the authors of {plugin.package}; DSCLORA_DEBUG=1 shows where",
        ) from error


def checked_setup(plugin: MethodPlugin, setup: object) -> TrainingSetup:
    """Return a setup whose functions are checked at every call.

    Raises:
        UsageError: `setup` is no TrainingSetup.
        DscloraError: A field of the setup cannot be used.
    """
    if not isinstance(setup, TrainingSetup):
        raise UsageError(
            f"{plugin.title} returned {type(setup).__name__}, no TrainingSetup",
            "the function returns context.student_setup(...), see docs/distillation.md",
        )
    if problem := _setup_problem(setup):
        raise _fault(plugin, problem)

    def loss_terms(batch: Batch) -> LossTerms:
        with errors_named(plugin):
            terms = setup.loss_terms(batch)
        if problem := _terms_problem(terms, setup.logged_only):
            raise _fault(plugin, problem)
        return terms

    def to_network(average: nn.Module) -> Network:
        with errors_named(plugin):
            network: object = setup.to_network(average)
        if not isinstance(network, Network):
            raise _fault(plugin, f"returned {type(network).__name__} from to_network, no Network")
        return network

    def save(average: nn.Module, path: Path, origin: str) -> None:
        with errors_named(plugin):
            setup.save(average, path, origin)
        if not is_file(path):
            raise _fault(plugin, f"wrote no file in save: {path} is missing")

    return replace(setup, loss_terms=loss_terms, to_network=to_network, save=save)


def checked_features(plugin: MethodPlugin, features: FeatureTerm) -> FeatureTerm:
    """Return the loss of a method with checks of its errors and of its names.

    A name of dsclora's own terms would replace that term.
    """

    def checked(batch: DistillBatch) -> dict[str, Tensor]:
        try:
            terms = features(batch)
        except (DscloraError, torch.OutOfMemoryError):  # explained in a line already
            raise
        except Exception as error:
            if widths := _unequal_widths(batch):
                raise DscloraError(
                    f"{plugin.title} failed: {class_and_line(error)}",
                    f'the feature maps differ in channels ({widths}): student_setup with maps="projected" brings the '
                    f"student's maps to the teacher's; or report the error to the authors of {plugin.package}",
                ) from error
            raise
        if not isinstance(terms, Mapping):
            raise _fault(plugin, f"returned {type(terms).__name__} as its loss, no dict of terms by name")
        if taken := sorted(OWN_TERMS & terms.keys()):
            raise _fault(plugin, f"returned a loss term called {taken[0]}, a name of a term of dsclora")
        return terms

    return checked


def _unequal_widths(batch: DistillBatch) -> str:
    """Return the channels of the first maps that differ between student and teacher; empty where all are equal."""
    pairs = ((own.shape[1], wanted.shape[1]) for own, wanted in batch.map_pairs())
    return next((f"student {own}, teacher {wanted}" for own, wanted in pairs if own != wanted), "")


def _fault(plugin: MethodPlugin, problem: str) -> DscloraError:
    hint = f"report the error to the authors of {plugin.package}; docs/distillation.md says what a method returns"
    return DscloraError(f"{plugin.title} {problem}", hint)


def _setup_problem(setup: TrainingSetup) -> str:
    """Return what is wrong with the fields of a setup; empty where nothing is."""
    if not isinstance(setup.module, nn.Module):
        return f"returned a setup with {type(setup.module).__name__} as module, no torch.nn.Module"
    if isinstance(setup.logged_only, str):  # ("name") for ("name",): every part of the text would pass for a name
        return f"returned a setup with the text {setup.logged_only!r} as logged_only, no tuple of names"
    if Path(setup.file_name).name != setup.file_name:
        return f"returned a setup with {setup.file_name!r} as file_name, which is no name of a file in the run folder"
    return ""


def _terms_problem(terms: object, logged_only: tuple[str, ...]) -> str:
    """Return what is wrong with the terms of a loss; empty where nothing is."""
    if not isinstance(terms, Mapping):
        return f"returned {type(terms).__name__} as its loss, no dict of terms by name"
    for name, term in terms.items():
        if problem := _term_problem(name, term, name in logged_only):
            return f"returned a loss term {problem}"
    summed = [term for name, term in terms.items() if name not in logged_only]
    if len({term.device for term in summed}) > 1:
        return "returned loss terms on several devices"
    if not any(term.requires_grad for term in summed):
        return "returned a loss without a gradient: no term depends on the student, or logged_only names all of them"
    return ""


def _term_problem(name: object, term: object, is_logged: bool) -> str:
    """Return what is wrong with a term, beginning with the name; empty where nothing is."""
    if not isinstance(name, str):
        return f"with the name {name!r}, no text"
    if not isinstance(term, Tensor):
        return f"{name} of the type {type(term).__name__}, no tensor"
    if term.dim():
        return f"{name} of the shape {tuple(term.shape)}, no scalar"
    if term.is_complex() or not (is_logged or term.is_floating_point()):
        return f"{name} of the type {term.dtype}, no floating-point number"
    # A zero without a gradient is usual: no sample of the batch met a condition.
    if not (is_logged or term.requires_grad) and bool(term != 0):
        return f"{name} without a gradient: it does not depend on the student, and logged_only does not name it"
    return ""
