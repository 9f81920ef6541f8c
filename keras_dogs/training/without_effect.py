"""The table of flags that would have no effect on a training run: a flag that does nothing is refused.

A flag that only another family uses is reported, not refused: `compare --train-flags` gives two families the same ones.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras_dogs.errors import UserError
from keras_dogs.models import families
from keras_dogs.system import progress
from keras_dogs.system.flags import no_effect
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.recipes import Recipe


class Situation(NamedTuple):
    """What decides whether a flag has an effect.

    Attributes:
        config: `TrainConfig`.
        recipe: `Recipe`, complete.
        family: str. Of the backbone.
        backend: str.
        num_devices: int. That train together.
        reads_features: bool. Whether steps read features that were computed once.
        draws: bool. Whether the augmentation draws anything.
        keeps_validation: bool. Whether the dataset has a validation split of its own.
    """

    config: TrainConfig
    recipe: Recipe
    family: str
    backend: str
    num_devices: int
    reads_features: bool
    draws: bool
    keeps_validation: bool

    @property
    def row(self) -> families.Family:
        """What is known of the family."""
        return families.family(self.family)


class Row(NamedTuple):
    """When a flag does nothing.

    Attributes:
        flag: str. The field of `TrainConfig` or of its `DataConfig`.
        is_idle: function of a `Situation`.
        why: str. Follows "has no effect".
        is_of_family: bool. Whether another family would use it: said, and not refused.
    """

    flag: str
    is_idle: Callable[[Situation], bool]
    why: str
    is_of_family: bool = False


_PROBE = "with a linear probe, which trains the head alone"
TABLE = (
    Row(
        "coordinator",
        lambda it: it.backend != "jax",
        "on this backend: torchrun and TF_CONFIG say it (docs/scaling.md)",
    ),
    Row("num_processes", lambda it: it.backend != "jax", "on this backend: torchrun and TF_CONFIG say it"),
    Row("process_id", lambda it: it.backend != "jax", "on this backend: torchrun and TF_CONFIG say it"),
    Row("sync_batch_norm", lambda it: it.num_devices == 1, "on one device"),
    Row("views", lambda it: not it.reads_features, "without a linear probe on features"),
    Row("views", lambda it: it.reads_features and not it.draws, "without an augmentation: every view is the same"),
    Row(
        "cache",
        lambda it: it.reads_features and it.config.data.cache == "device",
        "with features that are computed once: each picture is read once",
    ),
    Row("layer_decay", lambda it: it.recipe.linear_probe, _PROBE),
    Row("unfreeze_every", lambda it: it.recipe.linear_probe, _PROBE),
    Row("probe_first", lambda it: it.recipe.linear_probe, _PROBE),
    Row("freeze_batch_norm", lambda it: it.recipe.linear_probe, _PROBE),
    Row("remat", lambda it: it.reads_features, "with features that are computed once"),
    Row(
        "freeze_batch_norm",
        lambda it: it.row.kind == families.VIT,
        "on a ViT, which has no batch norm",
        is_of_family=True,
    ),
    Row(
        "position_resampling",
        lambda it: it.row.resizing == "nothing",
        "on a model without positions",
        is_of_family=True,
    ),
    Row("data_dir", lambda it: it.config.data.dataset != "stanford_dogs", "except with --dataset stanford_dogs"),
    Row("validation_fraction", lambda it: it.keeps_validation, "on a dataset that keeps a validation split of its own"),
    Row(
        "max_unreadable",
        lambda it: it.config.data.skip_unreadable,
        "together with --skip-unreadable, which lifts the limit",
    ),
)


def check(situation: Situation) -> None:
    """Refuses flags that were given and do nothing; says it of those that another family would use.

    Raises:
        UserError: it names the first, and why.
    """
    for row in TABLE:
        value, default = _given(situation.config, row.flag)
        if value == default or not row.is_idle(situation):
            continue
        text = no_effect(row.flag, value, row.why)
        if not (row.is_of_family or situation.config.resume):  # an unfinished run cannot leave it out any more
            raise UserError(f"{text}; leave it out")
        progress.open_console().print(text)


def _given(config: TrainConfig, flag: str):
    """Returns the value of a flag, and its default."""
    if hasattr(config, flag):
        return getattr(config, flag), getattr(TrainConfig(), flag)
    return getattr(config.data, flag), getattr(type(config.data)(), flag)
