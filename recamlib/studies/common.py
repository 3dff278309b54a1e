"""What notebooks share: stages put together from what a table gives and what settings say."""

from collections.abc import Mapping
from typing import Any, TypeVar

from recamlib.errors import SettingsError
from recamlib.method.crf import usable
from recamlib.stages.base import Settings

S = TypeVar("S", bound=Settings)
Blocks = Mapping[str, Mapping[str, Any]]  # settings by name: of a stage's class, or of a network


def make(stage: type[S], settings: Blocks, **given: Any) -> S:
    """Return a stage from what a table gives it and the settings under its class's name.

    A dense CRF that is wanted and not there is left out, with a warning.

    Raises
    ------
    SettingsError
        If a setting is also given, so that one of the two would be ignored; or one does not fit the stage.

    Examples
    --------
    >>> from recamlib.stages.classify import TrainClassifier
    >>> make(TrainClassifier, {"TrainClassifier": {"lr": 0.05}}, seed=1).lr
    0.05
    """
    own = settings.get(stage.__name__, {})
    if both := [name for name in own if name in given]:
        raise SettingsError(f"{stage.__name__}.{both[0]} is not a setting here: the table gives it itself")
    values = {**given, **own}
    if "crf" in stage.model_fields:
        values["crf"] = usable(values.get("crf", stage.model_fields["crf"].default))
    return stage(**values)
