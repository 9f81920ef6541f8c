"""The flags of `train`, with their help; the field is the flag."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated
from typing import ClassVar
from typing import Literal

import tyro

from keras_dogs.data.config import LARGEST_SIDE
from keras_dogs.data.config import SEEDS
from keras_dogs.data.config import DataConfig
from keras_dogs.errors import Damaged
from keras_dogs.errors import UserError
from keras_dogs.models import presets
from keras_dogs.system import reading
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges
from keras_dogs.system.flags import flag_of
from keras_dogs.training import recipes

Augmentation = Literal["none", "light", "standard", "strong", "keras"]
DtypePolicy = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Optimizer = Literal["adamw", "sgd"]
RecipeName = Literal[tuple(recipes.RECIPES)]
HeadStart = Literal["zero", "imagenet"]
PositionResampling = Literal["bicubic", "bicubic_plain", "linear"]

# Above the most, a flag is a slip of the finger: nobody waits for a million epochs.
_RANGES = {
    "epochs": Range(1, 10**6),
    "batch_size": Range(1, 10**6),
    "accumulate": Range(1, 10**4),
    "learning_rate": Range(0, 10**6, above=True),
    "image_size": Range(1, LARGEST_SIDE),
    "views": Range(1, 1000),
    "checkpoint_every": Range(1, 10**9),
    "keep_checkpoints": Range(1, 10**4),
    "weight_decay": Range(0, 1000),
    "global_clipnorm": Range(0, 10**9),
    **dict.fromkeys(("mixup", "cutmix"), Range(0, 100)),
    **dict.fromkeys(("unfreeze_every", "patience"), Range(0, 10**6)),
    **dict.fromkeys(("warmup_fraction", "erasing"), Range(0, 1)),
    **dict.fromkeys(("dropout", "drop_path", "label_smoothing", "ema"), Range(0, 1, below=True)),
    "layer_decay": Range(0, 1, above=True),
    **dict.fromkeys(("devices", "model_shards", "num_processes"), Range(1, 10**5)),
    "process_id": Range(0, 10**5),
    "peer_timeout": Range(0, 10**6, above=True),
    "seed": SEEDS,
}
# Of `config.json`. 2: with a digest, which tells what was changed or taken out.
SCHEMA_VERSION = 2
# Flags that may differ from process to process.
_OWN = ("process_id", "data_dir", "cache_dir", "exclude", "output")
# What another run of the same flags does not share.
_OF_ONE_RUN = ("output", "overwrite", "resume", "cache_dir", "coordinator", "num_processes", "process_id")
# On what a run runs, which may change when it goes on.
_WHERE = ("devices", "model_shards", "coordinator", "num_processes", "process_id", "peer_timeout")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Fine-tune a ViT or ResNet classifier; with no flags, an embedded one on drawn dogs, in one to three minutes."""

    preset: str = presets.DEFAULT
    """A name (resnet_nano, vit_nano, vit_base_patch16_224_imagenet21k, resnet_50_imagenet, ...), kaggle://..., hf://...,
    a folder of KerasHub, Hugging Face or timm, an .npz of google-research or its address, a .safetensors or .pth file,
    applications:resnet50[:WEIGHTS_FILE], or a run of yours; `python -m keras_dogs.describe` lists the names."""
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = DataConfig()
    output: Path | None = None
    """The run folder; default runs/<dataset>-<preset>-<backend>, numbered if that exists."""
    overwrite: bool = False
    """Replace a finished run in --output."""
    resume: bool = False
    """Go on with the unfinished run in --output, as if it had not been interrupted; other flags are taken from it."""
    recipe: RecipeName | None = None
    """How to fine-tune (docs/recipes.md); other flags override its fields; default: adamw, or
    probe_then_finetune for few photographs."""
    optimizer: Optimizer | None = None
    """adamw, or sgd with momentum 0.9; default: the recipe's."""
    epochs: int | None = None
    """Passes over the train split; default: the recipe's, or the preset's."""
    batch_size: int | None = None
    """Pictures per update of the weights; default: the recipe's, or the preset's."""
    accumulate: int | None = None
    """Steps into which a batch is split when it does not fit in memory; default: the recipe's."""
    learning_rate: float | Literal["sweep"] | None = None
    """Peak of the schedule (linear warm-up, then cosine to 0), or sweep: a third, once and three times the default,
    the best on validation; default: the recipe's, or the preset's."""
    weight_decay: float | None = None
    """Decoupled decay, not applied to biases, norms, tokens and position embeddings; default: the recipe's."""
    layer_decay: float | None = None
    """Factor on the learning rate from each block to the one below, such as 0.75; default: the recipe's."""
    warmup_fraction: float | None = None
    """Share of all updates in which the learning rate rises; default: the recipe's."""
    global_clipnorm: float | None = None
    """Gradients are scaled down to this global norm; 0 for never; default: the recipe's."""
    label_smoothing: float | None = None
    """Share of the target that is spread over all classes, such as 0.1; default: the recipe's."""
    ema: float | None = None
    """Decay of a moving average of the weights, such as 0.999, which is then scored and kept; 0 for none; default: the
    recipe's."""
    freeze_batch_norm: bool | None = None
    """Keep statistics, scales and offsets of batch norms as they are; default: the recipe's."""
    probe_first: bool | None = None
    """Train the head alone first, on features that are computed once; default: the recipe's."""
    unfreeze_every: float | None = None
    """Epochs after which the next block from the top begins to learn; 0 for all from the start; default: the
    recipe's."""
    patience: int | None = None
    """Epochs without a better validation score after which training stops; 0 for never; default: the recipe's."""
    remat: bool = False
    """Recompute each block's activations in the backward pass instead of keeping them (ViTs): less memory, slower."""
    balanced: bool = False
    """Draw training pictures so that each class is as frequent as any other."""
    image_size: int | None = None
    """Side of the square that the backbone sees, in pixels; default: the preset's. A ViT's positions are resampled."""
    position_resampling: PositionResampling | None = None
    """How a ViT's positions are resampled: bicubic (antialiased), bicubic_plain, or linear as in the ViT paper;
    default: bicubic, DINOv2's own way."""
    head: HeadStart = "zero"
    """What the head starts from: zero, or the rows of the preset's ImageNet head that stand for the breeds."""
    offline: bool = False
    """Fetch nothing; what is not in a cache is an error."""
    augmentation: Augmentation | None = None
    """The policy, from none to RandAugment and mix-up (keras: Keras' own layers, slow); default: standard, light for
    the nano presets, none for a linear probe."""
    mixup: float | None = None
    """Mix-up's Beta parameter, such as 0.2; 0 for none; default: the augmentation's."""
    cutmix: float | None = None
    """Cut-mix's Beta parameter, such as 1.0; 0 for none; default: the augmentation's."""
    erasing: float | None = None
    """Share of pictures with a random box erased, such as 0.25; default: the augmentation's."""
    dropout: float | None = None
    """Dropout before the head; default: the recipe's."""
    drop_path: float | None = None
    """Share of pictures that skip the last block's branches (ViTs only); it rises from 0 with the depth."""
    linear_probe: bool = False
    """Train the head alone; the features are computed once."""
    views: int = 4
    """With a linear probe and an augmentation: number of views per picture from which features are computed."""
    dtype_policy: DtypePolicy = "float32"
    """Precision of the backbone."""
    devices: int | Literal["all"] | None = None
    """How many GPUs of this host train together, or all; default: one, or with several processes all that each sees
    (docs/scaling.md). On CPUs, a trial that gains nothing."""
    sync_batch_norm: bool = True
    """Compute batch-norm statistics over the whole batch, as on one device, not over each device's share."""
    model_shards: int = 1
    """Number of devices that share each copy of a ViT, for models that do not fit on one (JAX)."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes (JAX; torchrun and TF_CONFIG say it on PyTorch and TensorFlow)."""
    num_processes: int | None = None
    """Number of processes, with --coordinator."""
    process_id: int | None = None
    """Index of this process, from 0, with --coordinator."""
    peer_timeout: float = 300.0
    """Seconds to wait for the other processes at the start, and for a sign of life of one later."""
    strict: bool = False
    """Make the run repeatable to the last bit, but slower: full float32 precision and deterministic kernels."""
    checkpoint_every: int = 500
    """Steps between checkpoints, besides the one after each epoch: the most that an interruption can cost."""
    keep_checkpoints: int = 2
    """Number of the newest checkpoints to keep until the run is done."""
    tensorboard: bool = False
    """Write events for TensorBoard to the run folder (needs tensorboardX)."""
    wandb: str | None = None
    """A project of Weights & Biases to log to (needs wandb)."""
    seed: int = 0
    """Decides the validation split (of a flat folder the test split, too), the order of the batches, the crops, and
    random weights."""

    PANELS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what people need first": (
            *("preset", "dataset", "output", "recipe", "epochs", "batch_size", "learning_rate", "image_size"),
            *("augmentation", "linear_probe"),
        ),
        "data": (
            *("data_dir", "exclude", "pictures_per_class", "validation_fraction", "canvas_size", "fit"),
            *("cache", "cache_dir", "max_unreadable", "skip_unreadable", "balanced", "offline"),
        ),
        "model": ("head", "position_resampling", "dropout", "drop_path", "remat", "dtype_policy"),
        "recipe": (
            *("optimizer", "weight_decay", "layer_decay", "warmup_fraction", "global_clipnorm", "label_smoothing"),
            *("ema", "accumulate", "freeze_batch_norm", "probe_first", "unfreeze_every", "patience"),
        ),
        "augmentation": ("mixup", "cutmix", "erasing", "views"),
        "run folder": ("resume", "overwrite", "checkpoint_every", "keep_checkpoints", "seed", "strict"),
        "devices": (
            *("devices", "sync_batch_norm", "model_shards", "coordinator", "num_processes", "process_id"),
            "peer_timeout",
        ),
        "tracking": ("tensorboard", "wandb"),
    }

    @classmethod
    def defaults_in_words(cls) -> dict[str, str]:
        """Says what the recipe's own values are, those of the default recipe and preset."""
        recipe = recipes.RECIPES["adamw"]._asdict()
        settings = presets.default_settings(cls.preset, presets.PRESETS[cls.preset].family, False)._asdict()
        words = {}
        for name, value in recipe.items():
            if value is None and name in settings:
                words[name] = f"{settings[name]:g} for {cls.preset}"
            elif isinstance(value, (bool, int, float, str)) and name in cls.__dataclass_fields__:
                words[name] = str(value)
        return words

    def __post_init__(self):
        check_ranges(self, _RANGES, words=("sweep", "all"))
        if self.drop_path and recipes.choose(self).linear_probe:
            raise UserError(
                f"--drop-path {self.drop_path}: has no effect with a linear probe, which leaves the blocks alone"
            )
        if self.strict and self.dtype_policy != "float32":
            raise UserError(f"--strict: is for float32, not --dtype-policy {self.dtype_policy}")
        _check_processes(self)
        if self.resume and self.overwrite:
            raise UserError("--resume: goes on with a run, --overwrite begins it again; give one of them")

    def to_plain(self) -> dict:
        """Returns the fields as what JSON can hold."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_plain(cls, values: dict, name: str = "the config") -> "TrainConfig":
        """Returns the config of what `to_plain` gave; fields that a later version added are passed over.

        Args:
            values: dict.
            name: str. What it is called in an error: a file.

        Raises:
            UserError: a field is of a wrong type or out of range; the text names it.
        """
        version = values.get("schema_version", 1)
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise UserError(f"{name}: damaged, or of a later version of keras_dogs: schema_version")
        try:
            return reading.check(values, cls, name, hook=_from_plain)
        except Damaged:
            raise
        except UserError as error:  # of a range
            raise Damaged(f"{name}: damaged: {error.args[0]}") from error

    @classmethod
    def flags_of_record(cls, values: dict) -> dict:
        """Returns the flags that run a record again, as `--config record.json` takes them.

        Where a value is what the recipe gives anyway, the flag is left out: some are refused where they do nothing.

        Args:
            values: dict. What `record.json` holds.
        """
        config, family = values["config"], values["family"]
        row = recipes.complete(recipes.RECIPES[config["recipe"]], config["preset"], family)
        given = {**config, **config["data"]}
        known = {field.name for kind in (cls, DataConfig) for field in dataclasses.fields(kind)}
        is_given_anyway = {name for name in recipes.FIELDS if config.get(name) == getattr(row, name)}
        left_out = {*is_given_anyway, *_OF_ONE_RUN, "data"}
        return {name: value for name, value in given.items() if name in known - left_out}

    def resumed_from(self, values: dict) -> "TrainConfig":
        """Returns the config of an unfinished run, which flags that are given now must not contradict.

        Raises:
            UserError: one does.
        """
        before = TrainConfig.from_plain(values, f"{self.output or 'the run'}/config.json")
        self.check_same_flags(before.to_plain(), "was begun")
        given = {name: getattr(self.data, name) for name in ("cache", "cache_dir", "exclude")}
        given = {name: value for name, value in given.items() if value != getattr(DataConfig(), name)}
        data = dataclasses.replace(before.data, **given)
        own = dict(output=self.output, resume=True, overwrite=False, offline=self.offline, **self.where())
        return dataclasses.replace(before, data=data, **own)

    def check_same_flags(self, before: dict, what: str) -> None:
        """Refuses flags that contradict those of a run, given as its `config.json` or its record has them.

        Args:
            before: dict.
            what: str. What the run did with its flags, for the error.

        Raises:
            UserError: a flag that was given now differs.
        """
        # The fingerprint of the dataset tells what a list leaves out, wherever it lies.
        about_where = ("output", "resume", "overwrite", "offline", "data", "cache", "cache_dir", "exclude", *_WHERE)
        compared = [(name, getattr(self, name), TrainConfig(), before) for name in TrainConfig.__dataclass_fields__]
        compared += [
            (name, getattr(self.data, name), DataConfig(), before.get("data", {}))
            for name in DataConfig.__dataclass_fields__
        ]
        for name, now, default, values in compared:
            kept = values.get(name)
            if name not in about_where and now not in (getattr(default, name), _from_text(kept, now)):
                flag = flag_of(name)
                raise UserError(
                    f"--resume: the run {what} with {flag} {kept}, not {now}; leave {flag} out, or continue training "
                    f"from it with --preset {self.output or 'RUN'} and another --output"
                )

    @property
    def spread(self):
        """What the engine of devices is told: a `backends.devices.engine.DeviceOptions`."""
        from keras_dogs.backends.devices.engine import DeviceOptions  # loads NumPy, which `--help` does not wait for

        return DeviceOptions(**{name: getattr(self, name) for name in DeviceOptions._fields})

    @property
    def told_to_all(self) -> dict:
        """The flags that each process of a training must be given alike, with their values."""
        plain = self.to_plain()
        plain |= plain.pop("data")
        return {flag_of(name): value for name, value in plain.items() if name not in _OWN}

    def where(self) -> dict:
        """Returns the flags that say on what this process runs."""
        return {name: getattr(self, name) for name in _WHERE}

    def on_another_host(self, own: "TrainConfig") -> "TrainConfig":
        """Returns this config for a process on another host, with the folders and devices of `own`."""
        own_paths = {name: getattr(own.data, name) for name in ("data_dir", "cache_dir")}
        data = dataclasses.replace(self.data, **own_paths, exclude=own.data.exclude or self.data.exclude)
        return dataclasses.replace(self, data=data, **own.where())


_init = TrainConfig.__init__
_PATHS = ("output", "data_dir", "exclude", "cache_dir")


@functools.wraps(_init)
def _flat_init(self, *args, **fields):
    """Takes the fields of `data`, too, and paths as text: `TrainConfig(dataset="dogs", output="run")`."""
    fields |= {name: Path(fields[name]) for name in _PATHS if isinstance(fields.get(name), str)}
    fields |= {"dataset": str(fields["dataset"])} if isinstance(fields.get("dataset"), Path) else {}
    of_data = {name: fields.pop(name) for name in DataConfig.__dataclass_fields__ if name in fields}
    if of_data:
        fields["data"] = dataclasses.replace(fields.get("data", DataConfig()), **of_data)
    _init(self, *args, **fields)


TrainConfig.__init__ = _flat_init


@dataclasses.dataclass(frozen=True)
class ReproduceConfig:
    """Train a recorded run again, on its backend or another, and tell whether it comes out the same."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    output: Path | None = None
    """Keep the new run there; default: it is removed at the end."""
    dataset: str | None = None
    """Where the pictures are now, if they were moved."""
    data_dir: Path | None = None
    """Where stanford_dogs is kept now."""
    exclude: Path | None = None
    """Where the list of pictures to leave out is now, if the run had one."""
    cache_dir: Path | None = None
    """The folder of decoded pictures; default: KERAS_DOGS_CACHE, or this system's usual cache folder."""
    offline: bool = False
    """Fetch nothing; what is not in a cache is an error."""


def _from_text(kept, now):
    """Returns what a file kept of a flag, as the type of its value now."""
    return Path(kept) if isinstance(now, Path) and kept is not None else kept


def _from_plain(kind: type, value):
    if kind is not Path:
        raise NotImplementedError(f"no way from {value!r} to {kind}")
    return Path(value)


def _check_processes(config: TrainConfig) -> None:
    if not config.coordinator:
        if config.num_processes is not None or config.process_id is not None:
            raise UserError("--num-processes and --process-id: go with --coordinator HOST:PORT")
        return
    host, _, port = config.coordinator.rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator {config.coordinator}: must be HOST:PORT")
    if config.num_processes is None or config.process_id is None:
        raise UserError("--coordinator: needs --num-processes and --process-id, too")
    if config.process_id >= config.num_processes:
        raise UserError(f"--process-id {config.process_id}: must be below --num-processes {config.num_processes}")


def _plain(value):
    """Paths to text, deep."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, (Path, presets.DefaultPreset)) else value
